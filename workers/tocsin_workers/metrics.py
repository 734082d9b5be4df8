"""Every metric that Tocsin exposes, with its labels and their values. docs/metrics.md has the same as a table.

Labels are few and bounded: a profile's name, never an address, a login, a host or a job. Names follow Prometheus's
conventions (https://prometheus.io/docs/practices/naming/): base units, `_total` on counters.

Three kinds, by who counts:

    each worker process     what it did; the supervisor adds up its children, Prometheus the supervisors (`sum`)
    supervisors that sweep  what lies in the ledger and on the queues; each tells the same (`max`)
    each supervisor         itself: its release, its children

Series whose labels are known beforehand begin at 0 with the process, so that the first thing counted is seen to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tocsin_schema.contract.part import Mode, Priority
from tocsin_workers.smtp.phases import TimedPhase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


Family: TypeAlias = GaugeMetricFamily | CounterMetricFamily


class Kind(StrEnum):
    """What a metric does, in Prometheus's words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is to be known of a metric before it has a value. A histogram's series end in _bucket, _sum and _count."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...]

    def family(self, values: Iterable[tuple[Sequence[str], float]]) -> Family:
        """Give its samples, each by the values of the labels; for what is counted at a scrape."""
        make = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        family = make(self.name, self.meaning, labels=self.labels)
        for labels, value in values:
            family.add_metric(labels, value)
        return family


#: Every metric there is, in the order in which they stand here.
METRICS: list[Metric] = []


def _metric(kind: Kind, name: str, meaning: str, *labels: str) -> Metric:
    metric = Metric(name, kind, meaning, labels)
    METRICS.append(metric)
    return metric


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, _metric(Kind.COUNTER, name, meaning, *labels).meaning, labels)


def _histogram(name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    return Histogram(name, _metric(Kind.HISTOGRAM, name, meaning, *labels).meaning, labels, buckets=buckets)


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return _metric(Kind.GAUGE, name, meaning, *labels)


def _begin(counter: Counter, *values: Iterable[str]) -> None:
    """Let the series of these label values begin at 0."""
    for labels in product(*values):
        counter.labels(*labels)


# ---- What a worker process does

# Intake

#: result: taken (new), repeated (known already), refused (a dead letter).
PARTS = _counter("tocsin_intake_parts_total", "Parts taken from the queue.", "result")
_begin(PARTS, ("taken", "repeated", "refused"))

#: Counted with the first part that comes. mode: shared, individual; priority: urgent, normal, bulk.
JOBS = _counter("tocsin_jobs_total", "Jobs taken in.", "mode", "priority")
_begin(JOBS, Mode, Priority)

#: In good order, by a sender or the sweeper.
JOBS_FINISHED = _counter("tocsin_jobs_finished_total", "Jobs whose last recipient was settled.")

# Sending

#: A recipient that is tried again is counted again; how many there are tells tocsin_ledger_recipients.
#: outcome: sent, failed, deferred, unknown; suppressed for who was not tried at all.
RECIPIENTS = _counter("tocsin_recipients_total", "Tries of recipients by what they came to.", "profile", "outcome")

#: outcome: accepted (for at least one recipient), refused, unknown, cut (the session ended before the body).
MESSAGES = _counter("tocsin_messages_total", "Messages by what a try came to.", "profile", "outcome")

#: A second to days: an incident is told in seconds, a bulk job may take its mailbox's whole week.
_WAITS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 259_200)

#: From the publishing of the part of its job that came first, as its message tells (AMQP's timestamp), or from its
#: intake where it does not; for a job with `send_after` from that time. Retries count. priority: urgent, normal, bulk.
PUBLISH_TO_ACCEPT = _histogram(
    "tocsin_publish_to_accept_seconds",
    "Seconds from a job's publishing to a message's acceptance, of a sample of messages.",
    "priority",
    buckets=_WAITS,
)

#: From when the message's batch was due: taken in, or, after a try that failed for now, due again.
#: priority: urgent, normal, bulk.
DUE_TO_ACCEPT = _histogram(
    "tocsin_due_to_accept_seconds",
    "Seconds from when a batch was due to a message's acceptance, of a sample of messages.",
    "priority",
    buckets=_WAITS,
)

#: phase: connect (with greeting and EHLO), tls, auth, envelope, data, final.
SMTP_SECONDS = _histogram(
    "tocsin_smtp_seconds",
    "Seconds that SMTP took by phase, of a sample of messages.",
    "phase",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 600),
)

#: Those that decided something: of each message one (to MAIL, DATA or its final dot), of each recipient that was
#: refused one (to RCPT), and of each session that could not be opened one. class: 2xx, 4xx, 5xx.
SMTP_REPLIES = _counter("tocsin_smtp_replies_total", "Replies of mail servers that decided.", "profile", "class")

#: Open now, busy or idle.
CONNECTIONS = Gauge(
    "tocsin_smtp_connections",
    _gauge("tocsin_smtp_connections", "Open SMTP connections.", "profile").meaning,
    ["profile"],
    multiprocess_mode="livesum",
)

#: result: worked, idle (nothing due), no_room (all connections taken, or no time slot), held (paused or parked), failed
#: (no connection or no credentials), crowded (the process has no place for another slice of it).
SLICES = _counter("tocsin_slices_total", "Slices of sending by result.", "result")
_begin(SLICES, ("worked", "idle", "no_room", "held", "failed", "crowded"))

# Tokens

#: outcome: obtained, refused (for good), failed (for now).
TOKEN_REQUESTS = _counter("tocsin_token_requests_total", "Requests to token endpoints.", "outcome")
_TOKEN_OUTCOMES = ("obtained", "refused", "failed")
_begin(TOKEN_REQUESTS, _TOKEN_OUTCOMES)

#: outcome: as above.
TOKEN_REQUEST_SECONDS = _histogram(
    "tocsin_token_request_seconds",
    "Seconds that requests to token endpoints took.",
    "outcome",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30),
)

# Recovery

#: how: repeated_part (the same part came again), repeated_address (a second entry of an address in its part), fenced (a
#: message whose body was not begun, or not ended, since the worker's lease might have lapsed and others might send it).
DUPLICATES_AVOIDED = _counter("tocsin_duplicates_avoided_total", "What would have been sent or taken in twice.", "how")
_begin(DUPLICATES_AVOIDED, ("repeated_part", "repeated_address", "fenced"))

RECLAIMED = _counter("tocsin_batches_reclaimed_total", "Batches that the sweeper took back from dead workers.")

#: None was under way: it was lost, or the time of the work had come.
WAKE_UPS_SWEPT = _counter("tocsin_sweeper_wake_ups_total", "Wake-ups sent by the sweeper.")

# ---- What is counted in the ledger, by supervisors that sweep

LEDGER_UP = _gauge("tocsin_ledger_up", "Whether the ledger answers and could be counted.")

#: state: due (nothing keeps it from being sent now), waiting (for its time, or for a halt, a pause or a rest to end),
#: leased (a worker has it).
LEDGER_BATCHES = _gauge("tocsin_ledger_batches", "Batches of jobs that are not ended.", "state")

#: state: receiving, running, paused.
LEDGER_JOBS = _gauge("tocsin_ledger_jobs", "Jobs that are not ended.", "state")

#: state: pending, in_flight, sent, failed, unknown, suppressed. unknown has those of jobs that ended in the last 30
#: days too: they wait for a person.
LEDGER_RECIPIENTS = _gauge("tocsin_ledger_recipients", "Recipients of jobs that are not ended.", "state")

DEAD_LETTERS = _gauge("tocsin_ledger_dead_letters", "Dead letters kept for a person.")

SENDING_HALTED = _gauge("tocsin_sending_halted", "Whether all sending is halted: 0 or 1.")

#: reason: credentials (refused), operator (by hand), sender (the provider does not let it send). 1 for the reason in
#: force, else 0.
PROFILE_PAUSED = _gauge("tocsin_profile_paused", "Whether a profile is paused, and why: 0 or 1.", "profile", "reason")

#: For its own sake or its tenant's.
MAILBOX_RESTING = _gauge("tocsin_mailbox_resting", "Whether a profile's mailbox rests: 0 or 1.", "profile")

#: A budget is the mailbox's: profiles on the same one tell the same. No series where nothing is limited.
#: state: open (over the whole fleet), limit (set or learned), wanted (1: the profile found none free last).
BUDGET_CONNECTIONS = _gauge(
    "tocsin_budget_connections", "SMTP connections of a profile's mailbox, where they are limited.", "profile", "state"
)

#: state: used (accepted in the last minute), limit (set or learned; no series where there is none).
BUDGET_MESSAGES = _gauge(
    "tocsin_budget_messages_per_minute", "Messages a minute of a profile's mailbox.", "profile", "state"
)

#: state: used, limit; of the mailbox or its tenant, whichever has the smaller share left. No series where neither is
#: limited.
BUDGET_RECIPIENTS = _gauge(
    "tocsin_budget_recipients_per_day", "Recipients in 24 hours of a profile's mailbox.", "profile", "state"
)

#: Of the tokens of the last hour's senders; of several mailboxes' the one that ends first.
TOKEN_OBTAINED = _gauge(
    "tocsin_token_obtained_timestamp_seconds", "When an access token was obtained, since 1970.", "oauth_profile"
)
TOKEN_EXPIRY = _gauge(
    "tocsin_token_expiry_timestamp_seconds", "When an access token ends, since 1970.", "oauth_profile"
)

#: credential: client_secret, certificate, refresh_token (of several the first to end). Only ends that are known.
CREDENTIAL_EXPIRY = _gauge(
    "tocsin_credential_expiry_timestamp_seconds", "When a credential ends, since 1970.", "oauth_profile", "credential"
)

#: To a few seconds. No series before the first pass.
SWEEPER_LAST_PASS = _gauge(
    "tocsin_sweeper_last_pass_timestamp_seconds", "When the sweeper last came to its end, since 1970."
)

MESSAGE_BROKER_UP = _gauge("tocsin_message_broker_up", "Whether the message broker answers.")

#: queue: each of `tocsin_schema.message_broker.topology.QUEUES`.
QUEUE_MESSAGES = _gauge("tocsin_queue_messages", "Messages ready in a queue.", "queue")

# ---- What each supervisor tells of itself

#: version: the release.
BUILD_INFO = _gauge("tocsin_build_info", "The release that runs: always 1.", "version")

#: role: intake, sender, tokens, sweeper, all.
WORKER_PROCESSES = _gauge("tocsin_worker_processes", "Worker processes that run.", "role")

WORKER_RESTARTS = _metric(
    Kind.COUNTER, "tocsin_worker_restarts_total", "Worker processes that ended and were started again."
)


# ---- Observing

#: Of messages in quick succession a sample is observed: writing an observation down costs a tenth of a message's time.
SAMPLE_SECONDS = 0.01

_SMTP_SECONDS = {phase: SMTP_SECONDS.labels(phase) for phase in TimedPhase}
_smtp_observed_at = dict.fromkeys(TimedPhase, float("-inf"))
_ACCEPTANCES = {
    priority.rank: (PUBLISH_TO_ACCEPT.labels(priority), DUE_TO_ACCEPT.labels(priority)) for priority in Priority
}
_accepted_at = dict.fromkeys(_ACCEPTANCES, float("-inf"))
_TOKEN_SECONDS = {outcome: TOKEN_REQUEST_SECONDS.labels(outcome) for outcome in _TOKEN_OUTCOMES}
_CLASSES = {2: "2xx", 4: "4xx", 5: "5xx"}


def observe_smtp(phase: TimedPhase, seconds: float) -> None:
    """Observe the seconds of a phase, unless another one was observed just now."""
    now = monotonic()
    if now - _smtp_observed_at[phase] >= SAMPLE_SECONDS:
        _smtp_observed_at[phase] = now
        _SMTP_SECONDS[phase].observe(seconds)


def observe_acceptance(rank: int, *, since_published: float, since_due: float) -> None:
    """Observe how long a message took until it was accepted, unless another one of its rank was observed just now.

    What a clock that is ahead of ours has dated in our future has taken no time.
    """
    now = monotonic()
    if now - _accepted_at[rank] >= SAMPLE_SECONDS:
        _accepted_at[rank] = now
        published, due = _ACCEPTANCES[rank]
        published.observe(max(0.0, since_published))
        due.observe(max(0.0, since_due))


def observe_token_request(outcome: str, seconds: float) -> None:
    """Count a request to a token endpoint, and observe how long it took."""
    TOKEN_REQUESTS.labels(outcome).inc()
    _TOKEN_SECONDS[outcome].observe(seconds)


def count_replies(profile: str, codes: Mapping[int, int]) -> None:
    """Count replies of a profile's mail server, given how many there were of each code.

    One that stands for nothing that we know (a 354 to MAIL, say) has no class.
    """
    for code, count in codes.items():
        if (name := _CLASSES.get(code // 100)) is not None:
            SMTP_REPLIES.labels(profile, name).inc(count)
