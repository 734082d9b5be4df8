"""The platform engineer's dashboard: pods and processes, queues, the ledger, senders, tokens."""

from __future__ import annotations

from deploy.grafana.panels import Color, Dashboard, Kind, Panel, Query, Row, Step, Unit, Word

_JOB = 'job="$job"'
_PROFILE = f'{_JOB}, profile=~"$profile"'
_UP = (Word(0, "AWAY", Color.BAD), Word(1, "up", Color.GOOD))


def _rate(metric: str, by: str, *, of: str = _JOB) -> str:
    """Give the rate of a counter over all processes, by a label."""
    return f"sum by ({by}) (rate({metric}{{{of}}}[$__rate_interval]))"


def _p95(histogram: str, by: str) -> str:
    """Give what nineteen of twenty observations do not exceed, by a label."""
    return f"histogram_quantile(0.95, sum by ({by}, le) (rate({histogram}_bucket{{{_JOB}}}[$__rate_interval])))"


_WORKERS = Row(
    "Workers",
    (
        Panel(
            "Ledger",
            "Whether Postgres answers the supervisors that ask.",
            Kind.STAT,
            Unit.NONE,
            (Query(f"job:tocsin_ledger_up:max{{{_JOB}}}"),),
            width=4,
            height=4,
            words=_UP,
            no_value="nobody tells",
        ),
        Panel(
            "Message broker",
            "Whether RabbitMQ, or the queues in Postgres, answer.",
            Kind.STAT,
            Unit.NONE,
            (Query(f"job:tocsin_message_broker_up:max{{{_JOB}}}"),),
            width=4,
            height=4,
            words=_UP,
            no_value="nobody tells",
        ),
        Panel(
            "Last sweep",
            "How long ago the sweeper looked last. It looks once a second, in one pod at a time.",
            Kind.STAT,
            Unit.SECONDS,
            (Query(f"time() - max(tocsin_sweeper_last_pass_timestamp_seconds{{{_JOB}}})"),),
            width=4,
            height=4,
            base=Color.GOOD,
            steps=(Step(15, Color.WARN), Step(60, Color.BAD)),
            no_value="nobody tells",
        ),
        Panel(
            "Pods that do not answer",
            "Supervisors, one a pod, that Prometheus cannot scrape.",
            Kind.STAT,
            Unit.COUNT,
            (Query(f"count(up{{{_JOB}}} == 0) or vector(0)"),),
            width=4,
            height=4,
            base=Color.GOOD,
            steps=(Step(1, Color.BAD),),
        ),
        Panel(
            "Releases",
            "How many pods run which release; two while one is rolled out.",
            Kind.STAT,
            Unit.COUNT,
            (Query(f"count by (version) (tocsin_build_info{{{_JOB}}})", "{{version}}"),),
            width=8,
            height=4,
        ),
        Panel(
            "Worker processes",
            "Processes that run, by role.",
            Kind.TIME_SERIES,
            Unit.COUNT,
            (Query(f"sum by (role) (tocsin_worker_processes{{{_JOB}}})", "{{role}}"),),
            width=8,
        ),
        Panel(
            "Restarts in 15 minutes",
            "Processes that died and were started again. More than three in one pod: an alert.",
            Kind.TIME_SERIES,
            Unit.COUNT,
            (Query(f"sum by (instance) (increase(tocsin_worker_restarts_total{{{_JOB}}}[15m]))", "{{instance}}"),),
            width=8,
        ),
        Panel(
            "Seconds of a scrape",
            "What answering Prometheus takes a pod. Those with the sweeper's role also count the ledger.",
            Kind.TIME_SERIES,
            Unit.SECONDS,
            (Query(f"scrape_duration_seconds{{{_JOB}}}", "{{instance}}"),),
            width=8,
        ),
    ),
)

_QUEUES = Row(
    "Intake and queues",
    (
        Panel(
            "Messages on the queues",
            "tocsin.intake.*: parts of jobs, the only copy; they fall to nothing where intake keeps up. "
            "tocsin.intake.dead: parts that killed their consumers. The others carry wake-ups, which may be lost.",
            Kind.TIME_SERIES,
            Unit.COUNT,
            (Query(f"job_queue:tocsin_queue_messages:max{{{_JOB}}}", "{{queue}}"),),
            width=8,
        ),
        Panel(
            "Parts taken in",
            "taken: new; repeated: known already; refused: a dead letter.",
            Kind.TIME_SERIES,
            Unit.PER_SECOND,
            (Query(_rate("tocsin_intake_parts_total", "result"), "{{result}}"),),
            width=8,
        ),
        Panel(
            "Jobs",
            "Jobs taken in by priority, and finished ones.",
            Kind.TIME_SERIES,
            Unit.PER_SECOND,
            (
                Query(_rate("tocsin_jobs_total", "priority"), "{{priority}}"),
                Query(f"sum(rate(tocsin_jobs_finished_total{{{_JOB}}}[$__rate_interval]))", "finished"),
            ),
            width=8,
        ),
    ),
)

_LEDGER = Row(
    "Ledger",
    (
        Panel(
            "Batches",
            "due: may be sent now, what senders are scaled on; waiting: for a provider, a pause or their time; leased: "
            "in hand.",
            Kind.TIME_SERIES,
            Unit.COUNT,
            (Query(f"job_state:tocsin_ledger_batches:max{{{_JOB}}}", "{{state}}"),),
            width=8,
        ),
        Panel(
            "Open jobs",
            "receiving: their last part has not come.",
            Kind.TIME_SERIES,
            Unit.COUNT,
            (Query(f"max by (state) (tocsin_ledger_jobs{{{_JOB}}})", "{{state}}"),),
            width=8,
        ),
        Panel(
            "Sweeping",
            "Batches taken back from dead workers, and wake-ups that were lost or whose time had come.",
            Kind.TIME_SERIES,
            Unit.PER_SECOND,
            (
                Query(f"sum(rate(tocsin_batches_reclaimed_total{{{_JOB}}}[$__rate_interval]))", "batches taken back"),
                Query(f"sum(rate(tocsin_sweeper_wake_ups_total{{{_JOB}}}[$__rate_interval]))", "wake-ups"),
            ),
            width=8,
        ),
    ),
)

_SENDERS = Row(
    "Senders",
    (
        Panel(
            "Slices",
            "A slice is about a second of one profile's work over one connection. idle: nothing was due; no_room: all "
            "connections taken; held: paused or resting; failed: no connection or no credentials; crowded: the process "
            "had no place for it.",
            Kind.TIME_SERIES,
            Unit.PER_SECOND,
            (Query(_rate("tocsin_slices_total", "result"), "{{result}}"),),
            width=8,
        ),
        Panel(
            "Open connections",
            "SMTP connections of all processes.",
            Kind.TIME_SERIES,
            Unit.COUNT,
            (Query(f"sum by (profile) (tocsin_smtp_connections{{{_PROFILE}}})", "{{profile}}"),),
            width=8,
        ),
        Panel(
            "Messages by outcome",
            "accepted; refused; unknown: no reply came; cut: the connection broke before the message was out.",
            Kind.TIME_SERIES,
            Unit.PER_SECOND,
            (Query(_rate("tocsin_messages_total", "outcome", of=_PROFILE), "{{outcome}}"),),
            width=8,
        ),
        Panel(
            "SMTP seconds, p95",
            "connect with greeting and EHLO; tls; auth; envelope: MAIL, RCPT, DATA; data: writing the body; final: "
            "waiting for the reply to it. Of a sample of messages.",
            Kind.TIME_SERIES,
            Unit.SECONDS,
            (Query(_p95("tocsin_smtp_seconds", "phase"), "{{phase}}"),),
            width=8,
        ),
        Panel(
            "Replies of mail servers",
            "By class: 4xx is later, 5xx no.",
            Kind.TIME_SERIES,
            Unit.PER_SECOND,
            (Query(_rate("tocsin_smtp_replies_total", "class", of=_PROFILE), "{{class}}"),),
            width=8,
        ),
        Panel(
            "Duplicates avoided",
            "repeated_part: published twice; repeated_address: an address twice in a job; fenced: a worker that was "
            "taken for dead sent no more.",
            Kind.TIME_SERIES,
            Unit.PER_SECOND,
            (Query(_rate("tocsin_duplicates_avoided_total", "how"), "{{how}}"),),
            width=8,
        ),
        Panel(
            "From due to acceptance, p95",
            "What Tocsin and the mail server take, by priority.",
            Kind.TIME_SERIES,
            Unit.SECONDS,
            (Query(_p95("tocsin_due_to_accept_seconds", "priority"), "{{priority}}"),),
            width=8,
        ),
    ),
)

_TOKENS = Row(
    "Tokens",
    (
        Panel(
            "Requests to token endpoints",
            "One in the life of a token and an OAuth profile; refused ones need a person, failed ones are tried again.",
            Kind.TIME_SERIES,
            Unit.PER_MINUTE,
            (Query(f"60 * {_rate('tocsin_token_requests_total', 'outcome')}", "{{outcome}}"),),
            width=8,
        ),
        Panel(
            "Seconds of a request, p95",
            "How long token endpoints take.",
            Kind.TIME_SERIES,
            Unit.SECONDS,
            (Query(_p95("tocsin_token_request_seconds", "outcome"), "{{outcome}}"),),
            width=8,
        ),
        Panel(
            "Age of tokens",
            "A token is replaced after about four fifths of its life, if it is used.",
            Kind.TIME_SERIES,
            Unit.SECONDS,
            (
                Query(
                    f"time() - max by (oauth_profile) (tocsin_token_obtained_timestamp_seconds{{{_JOB}}})",
                    "{{oauth_profile}}",
                ),
            ),
            width=8,
        ),
        Panel(
            "Tokens end in",
            "Tokens that nobody uses end and are not replaced.",
            Kind.TIME_SERIES,
            Unit.SECONDS,
            (
                Query(
                    f"max by (oauth_profile) (tocsin_token_expiry_timestamp_seconds{{{_JOB}}}) - time()",
                    "{{oauth_profile}}",
                ),
            ),
            width=8,
        ),
    ),
)

PLATFORM = Dashboard(
    "tocsin-platform",
    "Tocsin: platform",
    "Pods and processes, queues, the ledger, senders and tokens.",
    (_WORKERS, _QUEUES, _LEDGER, _SENDERS, _TOKENS),
)
