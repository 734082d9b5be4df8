"""Every metric that a worker process exposes, with its labels and their values.

Labels are few and bounded: a profile's name, never an address or a job. Names follow Prometheus's conventions
(https://prometheus.io/docs/practices/naming/): base units, `_total` on counters. Counters of all child processes
are summed by the supervisor, which also counts what lies in the ledger and on the queues
(`tocsin_workers.supervising.exposition`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import monotonic
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

from tocsin_workers.smtp.phases import TimedPhase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tocsin_schema.ledger.credential_expiry import CredentialEnd
    from tocsin_schema.ledger.depths import LedgerDepths, OpenJobs, OpenRecipients

#: Parts taken from the queue. result: taken (new), repeated (known already), refused (a dead letter).
PARTS = Counter("tocsin_intake_parts_total", "Parts taken from the queue.", ["result"])

#: Jobs whose first part was taken in. mode: shared, individual; priority: urgent, normal, bulk.
JOBS = Counter("tocsin_jobs_total", "Jobs taken in.", ["mode", "priority"])

#: Jobs that ended in good order in a sender or by the sweeper.
JOBS_FINISHED = Counter("tocsin_jobs_finished_total", "Jobs whose last recipient was settled.")

#: A recipient that is tried again is counted again; how many there are tells tocsin_ledger_recipients.
#: outcome: sent, failed, deferred, unknown; suppressed for who was not tried at all.
RECIPIENTS = Counter("tocsin_recipients_total", "Tries of recipients by what they came to.", ["profile", "outcome"])

#: Messages transmitted. outcome: accepted (for at least one recipient), refused, unknown, cut.
MESSAGES = Counter("tocsin_messages_total", "Messages by what a try came to.", ["profile", "outcome"])

#: Seconds that SMTP took. phase: connect, greeting, ehlo, tls, auth, envelope, data, final.
SMTP_SECONDS = Histogram(
    "tocsin_smtp_seconds",
    "Seconds that SMTP took by phase, of a sample of messages.",
    ["phase"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 600),
)
#: Of messages in quick succession a sample is observed: writing an observation down costs a tenth of a message's time.
SMTP_SAMPLE_SECONDS = 0.01

#: Slices worked. result: worked, idle (nothing due), no_room (all connections taken, or no time slot), held (paused or
#: parked), failed (no connection or no credentials), crowded (the process has no place for another slice of it).
SLICES = Counter("tocsin_slices_total", "Slices of sending by result.", ["result"])

#: Requests to token endpoints. outcome: obtained, refused (for good), failed (for now).
TOKEN_REQUESTS = Counter("tocsin_token_requests_total", "Requests to token endpoints.", ["outcome"])

#: Open SMTP connections now.
CONNECTIONS = Gauge("tocsin_smtp_connections", "Open SMTP connections.", ["profile"], multiprocess_mode="livesum")

#: Batches that the sweeper took back from workers that died.
RECLAIMED = Counter("tocsin_batches_reclaimed_total", "Batches taken back from dead workers.")

#: Wake-ups that the sweeper sent because none was under way: lost ones, and work whose time had come.
WAKE_UPS_SWEPT = Counter("tocsin_sweeper_wake_ups_total", "Wake-ups sent by the sweeper.")


_SMTP_SECONDS = {phase: SMTP_SECONDS.labels(phase) for phase in TimedPhase}
_smtp_observed_at = dict.fromkeys(TimedPhase, float("-inf"))


def observe_smtp(phase: TimedPhase, seconds: float) -> None:
    """Observe the seconds of a phase, unless another one was observed just now."""
    now = monotonic()
    if now - _smtp_observed_at[phase] >= SMTP_SAMPLE_SECONDS:
        _smtp_observed_at[phase] = now
        _SMTP_SECONDS[phase].observe(seconds)


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """All that is counted in the ledger."""

    depths: LedgerDepths
    jobs: OpenJobs
    recipients: OpenRecipients
    credential_ends: Sequence[CredentialEnd]


def ledger_families(counted: LedgerCounts | None) -> list[GaugeMetricFamily]:
    """Turn a count of the ledger into metrics; None says that the ledger did not answer."""
    up = GaugeMetricFamily("tocsin_ledger_up", "Whether the ledger answers.", value=float(counted is not None))
    if counted is None:
        return [up]
    depths = counted.depths
    #: state: due (may be sent now), waiting (for their time), leased.
    batches = {"due": depths.due, "waiting": depths.waiting, "leased": depths.leased}
    return [
        up,
        _by_label("tocsin_ledger_batches", "Batches in the ledger.", "state", batches),
        #: state: receiving, running, paused.
        _by_label("tocsin_ledger_jobs", "Jobs that are not ended.", "state", asdict(counted.jobs)),
        #: state: pending, in_flight, sent, failed, unknown, suppressed.
        _by_label(
            "tocsin_ledger_recipients", "Recipients of jobs that are not ended.", "state", asdict(counted.recipients)
        ),
        GaugeMetricFamily("tocsin_ledger_dead_letters", "Dead letters kept.", value=depths.dead_letters),
        _credential_ends(counted.credential_ends),
    ]


def _credential_ends(ends: Sequence[CredentialEnd]) -> GaugeMetricFamily:
    """Tell the end of each credential; of several refresh tokens of a profile, the first to end."""
    family = GaugeMetricFamily(
        "tocsin_credential_expiry_timestamp_seconds",
        "When a credential ends, in seconds since 1970, where it is known.",
        #: credential: client_secret, certificate, refresh_token.
        labels=["oauth_profile", "credential"],
    )
    first: dict[tuple[str, str], float] = {}
    for end in ends:
        key = (end.oauth_profile, end.credential)
        first[key] = min(first.get(key, float("inf")), end.expires_at.timestamp())
    for (oauth_profile, credential), timestamp in first.items():
        family.add_metric([oauth_profile, credential], timestamp)
    return family


def queue_families(messages: Mapping[str, int] | None) -> list[GaugeMetricFamily]:
    """Turn a count of the queues into metrics; None says that the message broker did not answer."""
    up = GaugeMetricFamily(
        "tocsin_message_broker_up", "Whether the message broker answers.", value=float(messages is not None)
    )
    if messages is None:
        return [up]
    #: queue: each of `tocsin_schema.message_broker.topology.QUEUES`.
    return [up, _by_label("tocsin_queue_messages", "Messages ready in a queue.", "queue", messages)]


def _by_label(name: str, meaning: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
