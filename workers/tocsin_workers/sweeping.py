"""The sweeper: recovery without a person. Safe in every pod; one of them sweeps at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.ledger import sweeping
from tocsin_schema.ledger.expiring import ExpiringJob, holds, read_expiring_jobs
from tocsin_schema.ledger.job_events import JobEvent
from tocsin_schema.ledger.sweeping import ClosedJob, Reclaimed, SweptEvent
from tocsin_schema.ledger.wakeups import PATIENCE_SECONDS
from tocsin_workers import metrics
from tocsin_workers.halting import watch_origin
from tocsin_workers.outcomes import MessageVerdict, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection, Pool
    from tocsin_workers.waking import Waker

_log = structlog.get_logger(__name__)

SWEEP_EVERY_SECONDS = 1.0
PARTITIONS_EVERY_SECONDS = 3600.0
#: Jobs of which one sweep tells that they expire soon.
MOST_WARNINGS = 100
#: Jobs that a sweep names in the log one by one; the others are counted.
MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found and did."""

    workers_buried: int
    reclaimed: Reclaimed
    jobs_expiring: Sequence[ExpiringJob]
    jobs_expired: Sequence[ClosedJob]
    jobs_finished: int
    profiles_woken: int


async def sweep(pool: Pool, waker: Waker, *, may_bury: Callable[[], bool]) -> Sweep | None:
    """Sweep once; None where another pod is at it.

    `may_bury` says whether this process has seen the ledger without interruption for long enough to take silence for
    death: after an outage everybody has been silent.
    """
    async with pool.connection() as connection:
        # Committed by itself: what is told of it in the log shall not be undone by what comes after.
        async with connection.transaction():
            if await sweeping.try_lock_sweep(connection):
                await watch_origin(connection)
        if not await sweeping.try_lock_sweep(connection):
            return None
        lapsed: list[UUID] = []
        reclaimed = Reclaimed()
        # Asked only now: we may have waited for the connection for as long as the others were cut off.
        if may_bury():
            lapsed = await sweeping.lapsed_workers(connection) + await sweeping.ownerless_leases(connection)
            reclaimed = await sweeping.bury_workers(connection, lapsed) if lapsed else reclaimed
        await sweeping.free_orphaned_connections(connection)
        finished = await sweeping.finish_complete_jobs(connection)
        expiring = await warn_of_expiry(connection)
        expired = await close_expired_jobs(connection)
        await sweeping.close_batches_of_ended_jobs(connection)
        to_wake = await sweeping.profiles_to_wake(connection, patience_seconds=PATIENCE_SECONDS)
        await sweeping.note_swept(connection)
    result = Sweep(len(lapsed), reclaimed, expiring, expired, len(finished), len(to_wake))
    _report(result)
    for profile_id, rank in to_wake:
        await waker.wake_sender(profile_id, rank)
    return result


async def warn_of_expiry(connection: Connection) -> list[ExpiringJob]:
    """Write an event for each job that will soon be given up and of which that was not told yet."""
    expiring = await read_expiring_jobs(connection, only_untold=True, limit=MOST_WARNINGS)
    if expiring:
        await sweeping.note_events(connection, [_expires_soon(job) for job in expiring])
    return expiring


async def close_expired_jobs(connection: Connection) -> list[ClosedJob]:
    """End the jobs whose time is over, and write an event for each."""
    closed = await sweeping.close_expired_jobs(connection)
    if closed:
        await sweeping.note_events(connection, [_over(job) for job in closed])
    return closed


async def make_partitions(pool: Pool) -> None:
    """Make next months' partitions, apart from the sweep, which goes on where we are not allowed to."""
    async with pool.connection() as connection:
        made = await sweeping.make_partitions(connection)
    if made:
        _log.info("partitions made ahead", partitions=made)


def _expires_soon(job: ExpiringJob) -> SweptEvent:
    details = {"unsettled": job.unsettled, "expires_at": job.expires_at.isoformat(), "holds": holds(job)}
    return SweptEvent(job.number, JobEvent.EXPIRES_SOON, details)


def _over(job: ClosedJob) -> SweptEvent:
    counts = {
        "sent": job.sent,
        "in_flight": job.in_flight,
        "failed": job.failed,
        "unknown": job.unknown,
        "suppressed": job.suppressed,
        "expired": job.expired,
    }
    recipients = {state: count for state, count in counts.items() if count}
    event = JobEvent.INCOMPLETE if job.is_incomplete else JobEvent.EXPIRED
    return SweptEvent(job.number, event, {"total": job.total, "recipients": recipients})


def _report(result: Sweep) -> None:
    metrics.RECLAIMED.inc(len(result.reclaimed.jobs))
    for one in result.reclaimed.in_doubt:
        # Their worker counted nothing of them, unless it was killed between that and writing down what became of them.
        metrics.RECIPIENTS.labels(one.profile, Verdict.UNKNOWN).inc(one.recipients)
        metrics.MESSAGES.labels(one.profile, MessageVerdict.UNKNOWN).inc(one.messages)
    metrics.JOBS_FINISHED.inc(result.jobs_finished)
    metrics.WAKE_UPS_SWEPT.inc(result.profiles_woken)
    if result.workers_buried:
        _log.warning(
            "took work back from workers that gave no sign of life",
            workers=result.workers_buried,
            batches=len(result.reclaimed.jobs),
            recipients_in_doubt=sum(one.recipients for one in result.reclaimed.in_doubt),
        )
    for job in result.jobs_expiring[:MOST_NAMED]:
        _log.warning(
            "a job expires soon",
            job=str(job.id),
            expires_at=job.expires_at.isoformat(),
            unsettled=job.unsettled,
            holds=holds(job),
        )
    if more := len(result.jobs_expiring[MOST_NAMED:]):
        _log.warning("more jobs expire soon; see `tocsin status`", jobs=more)
    if result.jobs_expired:
        _log.warning(
            "jobs expired before everyone was sent to",
            jobs=len(result.jobs_expired),
            recipients=sum(job.expired for job in result.jobs_expired),
            first=[str(job.id) for job in result.jobs_expired[:MOST_NAMED]],
        )
