"""Every metric that a worker process exposes, with its labels and their values.

Labels are few and bounded: a profile's name, never an address or a job. Names follow Prometheus's conventions
(https://prometheus.io/docs/practices/naming/): base units, `_total` on counters. Counters of all child processes
are summed by the supervisor, which also counts what lies in the ledger (`tocsin_workers.supervising.exposition`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from tocsin_schema.ledger.sweeping import LedgerDepths

#: Parts taken from the queue. result: taken (new), repeated (known already), refused (a dead letter).
PARTS = Counter("tocsin_intake_parts_total", "Parts taken from the queue.", ["result"])

#: Jobs whose first part was taken in. mode: shared, individual; priority: urgent, normal, bulk.
JOBS = Counter("tocsin_jobs_total", "Jobs taken in.", ["mode", "priority"])

#: Jobs that ended in good order in a sender or by the sweeper.
JOBS_FINISHED = Counter("tocsin_jobs_finished_total", "Jobs whose last recipient was settled.")

#: Recipients by what a try came to. outcome: sent, failed, deferred, unknown.
RECIPIENTS = Counter("tocsin_recipients_total", "Recipients by what a try came to.", ["profile", "outcome"])

#: Messages transmitted. outcome: accepted (for at least one recipient), refused, unknown, cut.
MESSAGES = Counter("tocsin_messages_total", "Messages by what a try came to.", ["profile", "outcome"])

#: Seconds that SMTP took. phase: connect, greeting, ehlo, tls, auth, envelope, data, final.
SMTP_SECONDS = Histogram(
    "tocsin_smtp_seconds",
    "Seconds that SMTP took by phase.",
    ["phase"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 600),
)

#: Slices worked. result: worked, idle (nothing due), no_room (all connections taken, or no time slot), held (paused or
#: parked), failed (no connection or no credentials).
SLICES = Counter("tocsin_slices_total", "Slices of sending by result.", ["result"])

#: Requests to token endpoints. outcome: obtained, refused (for good), failed (for now).
TOKEN_REQUESTS = Counter("tocsin_token_requests_total", "Requests to token endpoints.", ["outcome"])

#: Open SMTP connections now.
CONNECTIONS = Gauge("tocsin_smtp_connections", "Open SMTP connections.", ["profile"], multiprocess_mode="livesum")

#: Batches that the sweeper took back from workers that died.
RECLAIMED = Counter("tocsin_batches_reclaimed_total", "Batches taken back from dead workers.")

#: Wake-ups that the sweeper sent because none was under way: lost ones, and work whose time had come.
WAKE_UPS_SWEPT = Counter("tocsin_sweeper_wake_ups_total", "Wake-ups sent by the sweeper.")


def ledger_families(depths: LedgerDepths | None) -> list[GaugeMetricFamily]:
    """Turn a count of the ledger into metrics; None says that the ledger did not answer."""
    up = GaugeMetricFamily("tocsin_ledger_up", "Whether the ledger answers.", value=float(depths is not None))
    if depths is None:
        return [up]
    #: state: due (may be sent now), waiting (for their time), leased.
    batches = GaugeMetricFamily("tocsin_ledger_batches", "Batches in the ledger.", labels=["state"])
    batches.add_metric(["due"], depths.due)
    batches.add_metric(["waiting"], depths.waiting)
    batches.add_metric(["leased"], depths.leased)
    return [
        up,
        batches,
        GaugeMetricFamily("tocsin_ledger_dead_letters", "Dead letters kept.", value=depths.dead_letters),
        GaugeMetricFamily("tocsin_ledger_open_jobs", "Jobs that are not ended.", value=depths.open_jobs),
    ]
