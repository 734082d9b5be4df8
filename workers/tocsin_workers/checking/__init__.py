"""`tocsin profile check`: a profile tried step by step, and every failure told with its cause and its fix.

steps         the closed set of steps, and what came of each
checker       the main flow: it does what a sender does, and no mail is sent unless a person says to whom
signing_in    what to sign in with
budget        the check's share of the mailbox's budget
mailing       the test message, for which a person says to whom
describing    short texts
"""
