"""The operator's dashboard: is mail going out, when is it through, who fails and why, what holds it up."""

from __future__ import annotations

from deploy.grafana.expressions import OF_JOB, OF_PROFILE, rate
from deploy.grafana.panels import Color, Dashboard, Kind, Panel, Query, Row, Step, Unit, Word, stat, time_series

_GOING_OUT = Row(
    "Is mail going out?",
    (
        stat(
            "Sending",
            "Whether all sending is halted: by `tocsin pause`, or because the ledger was restored from a backup.",
            Unit.NONE,
            Query(f"job:tocsin_sending_halted:max{{{OF_JOB}}}"),
            words=(Word(0, "on", Color.GOOD), Word(1, "HALTED", Color.BAD)),
            no_value="no sweeper tells",
        ),
        stat(
            "Accepted",
            "Messages that mail servers accepted, a minute.",
            Unit.PER_MINUTE,
            Query(f'60 * sum(job_profile_outcome:tocsin_messages:rate5m{{{OF_PROFILE}, outcome="accepted"}})'),
            base=Color.GOOD,
            no_value="none",
        ),
        stat(
            "Left to send",
            "Recipients of open jobs that are not settled, those among them that wait for their time, or for a paused "
            "profile.",
            Unit.COUNT,
            Query(f'sum(job_state:tocsin_ledger_recipients:max{{{OF_JOB}, state=~"pending|in_flight"}})'),
        ),
        stat(
            "Through in",
            "How long what is pending takes at the speed of the last quarter of an hour. `tocsin job show` reckons it "
            "for one job, with every limit.",
            Unit.SECONDS,
            Query(f"job:tocsin_backlog_seconds:estimate{{{OF_JOB}}}"),
            steps=(Step(4 * 3600, Color.WARN), Step(24 * 3600, Color.BAD)),
            no_value="nothing is sent",
        ),
        stat(
            "Urgent mail",
            "From publishing an urgent job to the acceptance of its messages: nineteen of twenty take no longer.",
            Unit.SECONDS,
            Query(f'job_priority:tocsin_publish_to_accept_seconds:p95_rate5m{{{OF_JOB}, priority="urgent"}}'),
            base=Color.GOOD,
            steps=(Step(30, Color.WARN), Step(120, Color.BAD)),
            no_value="none lately",
        ),
        stat(
            "Alerts",
            "Alerts that fire. Each has a runbook in the docs.",
            Unit.NONE,
            Query('count(ALERTS{job=~"$job|", alertname=~"Tocsin.+", alertstate="firing"}) or vector(0)'),
            base=Color.GOOD,
            steps=(Step(1, Color.BAD),),
        ),
        time_series(
            "Messages by outcome",
            "accepted; refused; unknown: no reply came; cut: the connection broke before the message was out.",
            Unit.PER_MINUTE,
            Query(
                "60 * " + rate("tocsin_messages_total", "outcome", of=OF_PROFILE),
                "{{outcome}}",
            ),
            width=12,
            stacked=True,
        ),
        time_series(
            "Messages accepted by profile",
            "Which profiles get their mail out.",
            Unit.PER_MINUTE,
            Query(
                "60 * " + rate("tocsin_messages_total", "profile", of=f'{OF_PROFILE}, outcome="accepted"'),
                "{{profile}}",
            ),
            width=12,
        ),
    ),
)

_HOW_LONG = Row(
    "How long will it take?",
    (
        time_series(
            "Recipients of open jobs",
            "Pending ones are left; the others are settled, or under way, in jobs that are not ended yet.",
            Unit.COUNT,
            Query(
                f'job_state:tocsin_ledger_recipients:max{{{OF_JOB}, state=~"pending|in_flight|failed|unknown"}}',
                "{{state}}",
            ),
        ),
        time_series(
            "Batches",
            "due: may be sent now; waiting: for their time, a retry, a paused profile or a resting mailbox; leased: a "
            "worker has them in hand.",
            Unit.COUNT,
            Query(f"job_state:tocsin_ledger_batches:max{{{OF_JOB}}}", "{{state}}"),
            stacked=True,
        ),
        time_series(
            "Through in",
            "How long what is pending takes at the speed of the last quarter of an hour.",
            Unit.SECONDS,
            Query(f"job:tocsin_backlog_seconds:estimate{{{OF_JOB}}}", "estimate"),
        ),
        time_series(
            "From publishing to acceptance",
            "Half of the messages take no longer than p50, nineteen of twenty no longer than p95.",
            Unit.SECONDS,
            Query(f"job_priority:tocsin_publish_to_accept_seconds:p50_rate5m{{{OF_JOB}}}", "{{priority}} p50"),
            Query(f"job_priority:tocsin_publish_to_accept_seconds:p95_rate5m{{{OF_JOB}}}", "{{priority}} p95"),
            width=12,
        ),
        time_series(
            "From due to acceptance",
            "The same from when a message might have been sent: what Tocsin and the mail server take, without what a "
            "job was made to wait. p95.",
            Unit.SECONDS,
            Query(f"job_priority:tocsin_due_to_accept_seconds:p95_rate5m{{{OF_JOB}}}", "{{priority}} p95"),
            width=12,
        ),
    ),
)

_WHO_FAILS = Row(
    "Who fails, and why?",
    (
        Panel(
            "Paused profiles",
            "credentials: their provider refuses them; operator: by hand. `tocsin status` says why and which command "
            "mends it.",
            Kind.TABLE,
            Unit.NONE,
            (Query(f"max by (profile, reason) (tocsin_profile_paused{{{OF_PROFILE}}}) == 1"),),
            width=6,
            no_value="none",
            hidden_columns=("Value",),
        ),
        Panel(
            "Resting mailboxes",
            "A mailbox rests when its provider asks for it, its day is used up, or its server cannot be reached. It "
            "goes on by itself; `tocsin status` says when.",
            Kind.TABLE,
            Unit.NONE,
            (Query(f"max by (profile) (tocsin_mailbox_resting{{{OF_PROFILE}}}) == 1"),),
            width=6,
            no_value="none",
            hidden_columns=("Value",),
        ),
        Panel(
            "Refused recipients in the last hour",
            "Of those that were settled, how many mail servers refused. More than a few percent: old addresses, or the "
            "provider holds the mail for spam.",
            Kind.BAR_GAUGE,
            Unit.RATIO,
            (
                Query(
                    f'sum by (profile) (increase(tocsin_recipients_total{{{OF_PROFILE}, outcome="failed"}}[1h]))'
                    " / sum by (profile)"
                    f' (increase(tocsin_recipients_total{{{OF_PROFILE}, outcome=~"sent|failed"}}[1h]))',
                    "{{profile}}",
                ),
            ),
            width=6,
            base=Color.GOOD,
            steps=(Step(0.02, Color.WARN), Step(0.1, Color.BAD)),
            maximum=1,
            no_value="none",
        ),
        Panel(
            "Waiting for a person",
            "Recipients of open jobs of whom nobody knows whether they got their mail, and parts of jobs that were "
            "refused.",
            Kind.STAT,
            Unit.COUNT,
            (
                Query(f'job_state:tocsin_ledger_recipients:max{{{OF_JOB}, state="unknown"}}', "unknown outcomes"),
                Query(f"max(tocsin_ledger_dead_letters{{{OF_JOB}}})", "dead letters"),
            ),
            width=6,
            base=Color.GOOD,
            steps=(Step(1, Color.WARN),),
        ),
        time_series(
            "Tries that came to nothing",
            "failed: refused for good; deferred: to be tried again; unknown: no reply came; suppressed: not tried, "
            "since the address was refused before.",
            Unit.PER_MINUTE,
            Query(
                "60 * " + rate("tocsin_recipients_total", "profile, outcome", of=f'{OF_PROFILE}, outcome!="sent"'),
                "{{profile}} {{outcome}}",
            ),
            width=12,
        ),
        time_series(
            "Replies of mail servers",
            "4xx: later; 5xx: no.",
            Unit.PER_MINUTE,
            Query(
                "60 * " + rate("tocsin_smtp_replies_total", "profile, class", of=f'{OF_PROFILE}, class!="2xx"'),
                "{{profile}} {{class}}",
            ),
            width=12,
        ),
    ),
)

_LIMITS = Row(
    "What limits it?",
    (
        Panel(
            "Recipients in 24 hours",
            "How much of what the provider allows is used. From 72 % on an alert tells; from 80 % on "
            "(UrgentSharePercent) only urgent mail goes on; at the end the mailbox rests.",
            Kind.BAR_GAUGE,
            Unit.RATIO,
            (Query(f"job_profile:tocsin_budget_recipients_per_day:used_ratio{{{OF_PROFILE}}}", "{{profile}}"),),
            width=8,
            base=Color.GOOD,
            steps=(Step(0.72, Color.WARN), Step(0.8, Color.BAD)),
            maximum=1,
            no_value="no limit",
        ),
        time_series(
            "Messages in the last minute",
            "What the mailbox sends beside what it may. At its limit: more mail goes out only with a higher limit, or "
            "another mailbox.",
            Unit.PER_MINUTE,
            Query(
                f"max by (profile, state) (tocsin_budget_messages_per_minute{{{OF_PROFILE}}})",
                "{{profile}} {{state}}",
            ),
        ),
        time_series(
            "Connections",
            "open ones beside the limit; wanted: somebody waits for one.",
            Unit.COUNT,
            Query(f"max by (profile, state) (tocsin_budget_connections{{{OF_PROFILE}}})", "{{profile}} {{state}}"),
        ),
        Panel(
            "Credentials end in",
            "From then on the provider refuses them. Two weeks ahead an alert tells.",
            Kind.BAR_GAUGE,
            Unit.SECONDS,
            (
                Query(
                    f"job_oauth_profile_credential:tocsin_credential_left_seconds:min{{{OF_JOB}}}",
                    "{{oauth_profile}} {{credential}}",
                ),
            ),
            width=24,
            height=5,
            base=Color.BAD,
            steps=(Step(3 * 86400, Color.WARN), Step(14 * 86400, Color.GOOD)),
            no_value="no end is known",
        ),
    ),
)

OPERATOR = Dashboard(
    "tocsin-operator",
    "Tocsin: mail",
    "Is mail going out, how long will it take, who fails and why, and what limits it.",
    (_GOING_OUT, _HOW_LONG, _WHO_FAILS, _LIMITS),
)
