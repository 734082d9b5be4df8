"""Claiming batches and giving them back: a lease in the ledger, and what became of it in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.ledger import sending, suppressions
from tocsin_schema.ledger.connection import AWAY
from tocsin_workers import metrics
from tocsin_workers.sender.screening import ScreenedBatch, screen
from tocsin_workers.sender.settling import settle_suppressed
from tocsin_workers.sender.tally import SUPPRESSED, SliceTally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.sending import ClaimedBatch, SenderProfile
    from tocsin_workers.sender.desk import SenderDesk

_log = structlog.get_logger(__name__)

RELEASE_RETRY_SECONDS = 0.5


@dataclass(slots=True)
class Claim:
    """Batches in hand, and what became of them so far.

    `generation` is that of the lease under which they were claimed: with another one they are not ours any more.
    """

    screened: list[ScreenedBatch]
    generation: int
    untouched: dict[tuple[int, int], int]
    """How many recipients of each batch (job, number) are due and not yet tried."""
    due_in_seconds: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])
    committed: list[tuple[tuple[int, int], asyncio.Future[None]]] = field(
        default_factory=list[tuple[tuple[int, int], asyncio.Future[None]]]
    )
    """What the recorder was given of each batch, and whether it is committed."""
    made_at: float = field(default_factory=monotonic)
    """By `monotonic`."""
    tally: SliceTally = field(default_factory=SliceTally)
    """What its slice got done so far."""

    def settle(self, key: tuple[int, int], recipients: int, due_in_seconds: Sequence[float]) -> None:
        """Note that so many recipients of a batch were tried, and when those are due that were deferred."""
        self.untouched[key] -= recipients
        for seconds in due_in_seconds:
            self.due_in_seconds[key] = min(seconds, self.due_in_seconds.get(key, seconds))

    def releases(self) -> list[sending.Release]:
        """Give leases back: due at once where somebody is left, else when the first deferred one is.

        A batch with an outcome that could not be recorded is kept: given back, it would be sent again.
        """
        kept = {key for key, future in self.committed if future.cancelled() or future.exception() is not None}
        return [
            sending.Release(
                one.batch.job_number,
                one.batch.number,
                one.batch.lease_epoch,
                0.0 if self.untouched[key_of(one.batch)] else self.due_in_seconds.get(key_of(one.batch), 0.0),
            )
            # In the order in which marks and outcomes are written too, so that nobody waits in a circle.
            for one in sorted(self.screened, key=lambda one: key_of(one.batch))
            if key_of(one.batch) not in kept
        ]


def key_of(batch: ClaimedBatch) -> tuple[int, int]:
    """Name a batch: its job and its number there."""
    return (batch.job_number, batch.number)


async def claim(desk: SenderDesk, profile: SenderProfile, limit: int, tally: SliceTally) -> Claim | None:
    """Lease due batches of the profile, leave out who is settled, settle who is suppressed; None: nothing is due."""
    generation = desk.lease.generation
    async with desk.pool.connection() as connection:
        leased = await sending.claim_batches(
            connection, profile_id=profile.id, worker_id=desk.lease.worker_id, limit=limit
        )
        # A crash of Postgres may forget a claim, and the next one is the same again: those are another slice's.
        batches = [one for one in leased if (one.job_number, one.number, one.lease_epoch) not in desk.in_hand]
        if not batches:
            return None
        recipients = await sending.read_claimed_recipients(connection, batches)
        exceptions = await sending.read_claimed_exceptions(connection, batches)
        suppressed = await suppressions.read_claimed_suppressions(connection, batches)
    screened = screen(batches, recipients, exceptions, suppressed)
    untouched = {key_of(one.batch): len(one.due) for one in screened}
    claimed = Claim(screened, generation, untouched, tally=tally)
    desk.in_hand.update((one.job_number, one.number, one.lease_epoch) for one in batches)
    for one in screened:
        if one.next_due_in_seconds is not None:
            claimed.due_in_seconds[key_of(one.batch)] = one.next_due_in_seconds
        if one.suppressed:
            claimed.committed.append((key_of(one.batch), desk.recorder.put(settle_suppressed(one))))
            claimed.tally.count(one.batch.job_number, SUPPRESSED, len(one.suppressed))
            metrics.RECIPIENTS.labels(profile.name, SUPPRESSED).inc(len(one.suppressed))
    return claimed


async def release(desk: SenderDesk, claimed: Claim) -> None:
    """Give the leases back once every outcome is committed, and finish the jobs that are done.

    Tried until the ledger takes it: a batch that is leased by somebody who lives is nobody else's.
    """
    with desk.recorder.awaited():
        await asyncio.gather(*(future for _, future in claimed.committed), return_exceptions=True)
    releases = claimed.releases()
    try:
        while True:
            try:
                await _release(desk, releases)
            except AWAY as error:
                _log.warning("leases wait for the ledger to be given back", error=type(error).__name__)
                await asyncio.sleep(RELEASE_RETRY_SECONDS)
            else:
                return
    finally:
        # Should it have failed: what is leased and not in hand is given back beside the heartbeat, after a lease time.
        desk.in_hand.difference_update((one.job_number, one.batch_number, one.lease_epoch) for one in releases)


async def _release(desk: SenderDesk, releases: Sequence[sending.Release]) -> None:
    async with desk.pool.connection() as connection:
        released = await sending.release_batches(connection, desk.lease.worker_id, releases)
    if done := sorted({job_number for job_number, state in released if state == "done"}):
        # In a transaction of its own: then the last of several workers sees the others' batches done.
        async with desk.pool.connection() as connection:
            finished = await sending.finish_jobs(connection, done)
        metrics.JOBS_FINISHED.inc(len(finished))
