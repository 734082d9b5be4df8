"""The sweeper: recovery without a person. Safe in every pod; one of them sweeps at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.ledger import sweeping
from tocsin_schema.ledger.wakeups import PATIENCE_SECONDS
from tocsin_workers import metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tocsin_schema.ledger.connection import Pool
    from tocsin_workers.waking import Waker

_log = structlog.get_logger(__name__)

SWEEP_EVERY_SECONDS = 1.0
PARTITIONS_EVERY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found and did."""

    workers_buried: int = 0
    batches_reclaimed: int = 0
    jobs_expired: int = 0
    jobs_finished: int = 0
    profiles_woken: int = 0


async def sweep(pool: Pool, waker: Waker, *, may_bury: Callable[[], bool]) -> Sweep | None:
    """Sweep once; None where another pod is at it.

    `may_bury` says whether this process has seen the ledger without interruption for long enough to take silence for
    death: after an outage everybody has been silent.
    """
    async with pool.connection() as connection:
        if not await sweeping.try_lock_sweep(connection):
            return None
        lapsed: list[UUID] = []
        reclaimed: list[int] = []
        # Asked only now: we may have waited for the connection for as long as the others were cut off.
        if may_bury():
            lapsed = await sweeping.lapsed_workers(connection) + await sweeping.ownerless_leases(connection)
            reclaimed = await sweeping.bury_workers(connection, lapsed) if lapsed else []
        await sweeping.free_orphaned_connections(connection)
        expired = await sweeping.close_expired_jobs(connection)
        await sweeping.close_batches_of_ended_jobs(connection)
        finished = await sweeping.finish_complete_jobs(connection)
        to_wake = await sweeping.profiles_to_wake(connection, patience_seconds=PATIENCE_SECONDS)
    for profile_id, rank in to_wake:
        await waker.wake_sender(profile_id, rank)
    result = Sweep(len(lapsed), len(reclaimed), len(expired), len(finished), len(to_wake))
    _report(result)
    return result


async def make_partitions(pool: Pool) -> None:
    """Make next months' partitions, apart from the sweep, which goes on where we are not allowed to."""
    async with pool.connection() as connection:
        made = await sweeping.make_partitions(connection)
    if made:
        _log.info("partitions made ahead", partitions=made)


def _report(result: Sweep) -> None:
    metrics.RECLAIMED.inc(result.batches_reclaimed)
    metrics.JOBS_FINISHED.inc(result.jobs_finished)
    metrics.WAKE_UPS_SWEPT.inc(result.profiles_woken)
    if result.workers_buried:
        _log.warning(
            "took work back from workers that gave no sign of life",
            workers=result.workers_buried,
            batches=result.batches_reclaimed,
        )
    if result.jobs_expired:
        _log.warning("jobs expired before everyone was sent to", jobs=result.jobs_expired)
