"""The fault suite: an installation under load, in which things are broken on purpose, and an account of it.

    kinds       the closed list of faults, and what each of them may do to mail
    plan        a seeded choice of rounds, each of one fault, the last of several
    load        the jobs that are published meanwhile
    report      what was published, what the ledger says and what the mail server took, compared; pure
    table       the account as a table
    campus      the installation: a Postgres, a RabbitMQ, workers, a mail server and a token endpoint of its own
    injecting   how each fault is done, and undone
    rounds      the course of one round

The mail server (`mail_server`, `mail_session`, `mail_moods`) runs in a process of its own (`mail_process`), is told how
to behave over its standard input (`mail_control`), and writes down what it did before it says so (`mail_events`).
"""
