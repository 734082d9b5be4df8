"""The platform engineer's dashboard: pods and processes, queues, the ledger, senders, tokens."""

from __future__ import annotations

from deploy.grafana.expressions import OF_JOB, OF_PROFILE, p95, rate
from deploy.grafana.panels import Color, Dashboard, Query, Row, Step, Unit, Word, stat, time_series

_UP = (Word(0, "AWAY", Color.BAD), Word(1, "up", Color.GOOD))

_WORKERS = Row(
    "Workers",
    (
        stat(
            "Ledger",
            "Whether Postgres answers the supervisors that ask.",
            Unit.NONE,
            Query(f"job:tocsin_ledger_up:max{{{OF_JOB}}}"),
            words=_UP,
            no_value="nobody tells",
        ),
        stat(
            "Message broker",
            "Whether RabbitMQ, or the queues in Postgres, answer.",
            Unit.NONE,
            Query(f"job:tocsin_message_broker_up:max{{{OF_JOB}}}"),
            words=_UP,
            no_value="nobody tells",
        ),
        stat(
            "Last sweep",
            "How long ago the sweeper looked last, to half a minute. It looks once a second, in one pod at a time.",
            Unit.SECONDS,
            Query(f"time() - max(tocsin_sweeper_last_pass_timestamp_seconds{{{OF_JOB}}})"),
            base=Color.GOOD,
            steps=(Step(30, Color.WARN), Step(60, Color.BAD)),
            no_value="nobody tells",
        ),
        stat(
            "Pods that do not answer",
            "Supervisors, one a pod, that Prometheus cannot scrape.",
            Unit.COUNT,
            Query(f"count(up{{{OF_JOB}}} == 0) or 0 * count(up{{{OF_JOB}}})"),
            base=Color.GOOD,
            steps=(Step(1, Color.BAD),),
            no_value="there is none",
        ),
        stat(
            "Releases",
            "How many pods run which release; two while one is rolled out.",
            Unit.COUNT,
            Query(f"count by (version) (tocsin_build_info{{{OF_JOB}}})", "{{version}}"),
            width=8,
        ),
        time_series(
            "Worker processes",
            "Processes that run, by role.",
            Unit.COUNT,
            Query(f"sum by (role) (tocsin_worker_processes{{{OF_JOB}}})", "{{role}}"),
        ),
        time_series(
            "Restarts in 15 minutes",
            "Processes that died and were started again. More than three in one pod: an alert.",
            Unit.COUNT,
            Query(f"sum by (instance) (increase(tocsin_worker_restarts_total{{{OF_JOB}}}[15m]))", "{{instance}}"),
        ),
        time_series(
            "Seconds of a scrape",
            "What answering Prometheus takes a pod. Those with the sweeper's role also count the ledger.",
            Unit.SECONDS,
            Query(f"scrape_duration_seconds{{{OF_JOB}}}", "{{instance}}"),
        ),
    ),
)

_QUEUES = Row(
    "Intake and queues",
    (
        time_series(
            "Messages on the queues",
            "tocsin.intake.*: parts of jobs, the only copy; they fall to nothing where intake keeps up. "
            "tocsin.intake.dead: parts that killed their consumers. The others carry wake-ups, which may be lost.",
            Unit.COUNT,
            Query(f"job_queue:tocsin_queue_messages:max{{{OF_JOB}}}", "{{queue}}"),
        ),
        time_series(
            "Parts taken in",
            "taken: new; repeated: known already; refused: a dead letter.",
            Unit.PER_SECOND,
            Query(rate("tocsin_intake_parts_total", "result"), "{{result}}"),
        ),
        time_series(
            "Jobs",
            "Jobs taken in by priority, and finished ones.",
            Unit.PER_SECOND,
            Query(rate("tocsin_jobs_total", "priority"), "{{priority}}"),
            Query(f"sum(rate(tocsin_jobs_finished_total{{{OF_JOB}}}[$__rate_interval]))", "finished"),
        ),
    ),
)

_LEDGER = Row(
    "Ledger",
    (
        time_series(
            "Batches",
            "due: may be sent now, what senders are scaled on; waiting: for a provider, a pause or their time; leased: "
            "in hand.",
            Unit.COUNT,
            Query(f"job_state:tocsin_ledger_batches:max{{{OF_JOB}}}", "{{state}}"),
        ),
        time_series(
            "Open jobs",
            "receiving: their last part has not come.",
            Unit.COUNT,
            Query(f"max by (state) (tocsin_ledger_jobs{{{OF_JOB}}})", "{{state}}"),
        ),
        time_series(
            "Sweeping",
            "Batches taken back from dead workers, and wake-ups that were lost or whose time had come.",
            Unit.PER_SECOND,
            Query(f"sum(rate(tocsin_batches_reclaimed_total{{{OF_JOB}}}[$__rate_interval]))", "batches taken back"),
            Query(f"sum(rate(tocsin_sweeper_wake_ups_total{{{OF_JOB}}}[$__rate_interval]))", "wake-ups"),
        ),
    ),
)

_SENDERS = Row(
    "Senders",
    (
        time_series(
            "Slices",
            "A slice is about a second of one profile's work over one connection. idle: nothing was due; no_room: all "
            "connections taken; held: paused or resting; failed: no connection or no credentials; crowded: the process "
            "had no place for it.",
            Unit.PER_SECOND,
            Query(rate("tocsin_slices_total", "result"), "{{result}}"),
        ),
        time_series(
            "Open connections",
            "SMTP connections of all processes.",
            Unit.COUNT,
            Query(f"sum by (profile) (tocsin_smtp_connections{{{OF_PROFILE}}})", "{{profile}}"),
        ),
        time_series(
            "Messages by outcome",
            "accepted; refused; unknown: no reply came; cut: the connection broke before the message was out.",
            Unit.PER_SECOND,
            Query(rate("tocsin_messages_total", "outcome", of=OF_PROFILE), "{{outcome}}"),
        ),
        time_series(
            "SMTP seconds, p95",
            "connect with greeting and EHLO; tls; auth; envelope: MAIL, RCPT, DATA; data: writing the body; final: "
            "waiting for the reply to it. Of a sample of messages.",
            Unit.SECONDS,
            Query(p95("tocsin_smtp_seconds", "phase"), "{{phase}}"),
        ),
        time_series(
            "Replies of mail servers",
            "By class: 4xx is later, 5xx no.",
            Unit.PER_SECOND,
            Query(rate("tocsin_smtp_replies_total", "class", of=OF_PROFILE), "{{class}}"),
        ),
        time_series(
            "Duplicates avoided",
            "repeated_part: published twice; repeated_address: an address twice in a job; fenced: a worker that was "
            "taken for dead sent no more.",
            Unit.PER_SECOND,
            Query(rate("tocsin_duplicates_avoided_total", "how"), "{{how}}"),
        ),
        time_series(
            "From due to acceptance, p95",
            "What Tocsin and the mail server take, by priority.",
            Unit.SECONDS,
            Query(p95("tocsin_due_to_accept_seconds", "priority"), "{{priority}}"),
        ),
    ),
)

_TOKENS = Row(
    "Tokens",
    (
        time_series(
            "Requests to token endpoints",
            "One in the life of a token and an OAuth profile; refused ones need a person, failed ones are tried again.",
            Unit.PER_MINUTE,
            Query("60 * " + rate("tocsin_token_requests_total", "outcome"), "{{outcome}}"),
        ),
        time_series(
            "Seconds of a request, p95",
            "How long token endpoints take.",
            Unit.SECONDS,
            Query(p95("tocsin_token_request_seconds", "outcome"), "{{outcome}}"),
        ),
        time_series(
            "Age of tokens",
            "A token is replaced after about four fifths of its life, if it is used.",
            Unit.SECONDS,
            Query(
                f"time() - max by (oauth_profile) (tocsin_token_obtained_timestamp_seconds{{{OF_JOB}}})",
                "{{oauth_profile}}",
            ),
        ),
        time_series(
            "Tokens end in",
            "Tokens that nobody uses end and are not replaced.",
            Unit.SECONDS,
            Query(
                f"max by (oauth_profile) (tocsin_token_expiry_timestamp_seconds{{{OF_JOB}}}) - time()",
                "{{oauth_profile}}",
            ),
        ),
    ),
)

PLATFORM = Dashboard(
    "tocsin-platform",
    "Tocsin: platform",
    "Pods and processes, queues, the ledger, senders and tokens.",
    (_WORKERS, _QUEUES, _LEDGER, _SENDERS, _TOKENS),
)
