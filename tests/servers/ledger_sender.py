"""A sender's moves in the ledger, and what a sweep does with one that died."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.servers.ledger_rows import age
from tocsin_schema.ledger import recording, sending, sweeping
from tocsin_schema.ledger.recording import RecordedException, Settlement, WantedMark
from tocsin_schema.ledger.sending import Release

if TYPE_CHECKING:
    from uuid import UUID

    from tests.servers.ledger_rows import Profile
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.sending import ClaimedBatch
    from tocsin_schema.ledger.sweeping import Reclaimed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some of a batch's recipients, by their indexes."""

    state: str
    indexes: tuple[int, ...]
    due_in_seconds: float | None = None


def accepted(*indexes: int) -> Outcome:
    """A 250 after the dot."""
    return Outcome("sent", indexes)


def refused(*indexes: int) -> Outcome:
    """A 550 at RCPT."""
    return Outcome("failed", indexes)


def deferred(*indexes: int, seconds: float) -> Outcome:
    """A 451 at RCPT."""
    return Outcome("pending", indexes, seconds)


def in_doubt(*indexes: int) -> Outcome:
    """No reply after the dot, under `hold`."""
    return Outcome("unknown", indexes)


async def claim(connection: Connection, profile: Profile, worker: UUID, limit: int = 100) -> list[ClaimedBatch]:
    """Claim due batches; give them in order."""
    claimed = await sending.claim_batches(connection, profile_id=profile.id, worker_id=worker, limit=limit)
    return sorted(claimed, key=lambda batch: (batch.job_number, batch.number))


async def claim_one(connection: Connection, profile: Profile, worker: UUID) -> ClaimedBatch:
    """Claim one batch, which must be there."""
    (batch,) = await claim(connection, profile, worker, 1)
    return batch


async def mark(connection: Connection, worker: UUID, batch: ClaimedBatch, mask: int) -> bool:
    """Mark recipients in flight; whether the batch was still the worker's."""
    wanted = WantedMark(batch.job_number, batch.number, batch.lease_epoch, batch.size, mask)
    written = await recording.write_batches(connection, worker, [], [wanted])
    return written.marked == {(batch.job_number, batch.number)}


async def release(connection: Connection, worker: UUID, batch: ClaimedBatch, due_in: float = 0.0) -> list[str]:
    """Give a batch back; give its new state, or nothing where it was not the worker's any more."""
    released = await sending.release_batches(
        connection, worker, [Release(batch.job_number, batch.number, batch.lease_epoch, due_in)]
    )
    return [state for _, state in released]


async def bury(connection: Connection, worker: UUID) -> Reclaimed:
    """Do what a sweep does with a worker that gave no sign of life for an hour."""
    await age(connection, worker)
    async with connection.transaction():
        assert worker in await sweeping.lapsed_workers(connection)
        return await sweeping.bury_workers(connection, [worker])


async def write(connection: Connection, batch: ClaimedBatch, *outcomes: Outcome, attempts: int = 1) -> None:
    """Record what became of recipients of a batch that was claimed, whoever owns it by now.

    `attempts` is how many tries those had who were not sent to, this one included.
    """
    sent = sum(1 << index for outcome in outcomes if outcome.state == "sent" for index in outcome.indexes)
    settled = sum(1 << index for outcome in outcomes for index in outcome.indexes)
    exceptions = [
        _exception(batch, outcome, index, attempts)
        for outcome in outcomes
        if outcome.state != "sent"
        for index in outcome.indexes
    ]
    settlement = Settlement(batch.job_number, batch.number, batch.lease_epoch, batch.size, sent=sent, settled=settled)
    async with connection.transaction():
        written = await recording.write_batches(connection, uuid4(), [settlement], [])
        to_count = written.to_count
        if exceptions:
            await recording.record_exceptions(connection, exceptions)
            to_count.add((batch.job_number, batch.number))
        if to_count:
            await recording.recount_exceptions(connection, to_count)


def _exception(batch: ClaimedBatch, outcome: Outcome, index: int, attempts: int) -> RecordedException:
    return RecordedException(
        job_number=batch.job_number,
        ordinal=batch.first_ordinal + index,
        batch_number=batch.number,
        lease_epoch=batch.lease_epoch,
        state=outcome.state,
        attempts=attempts,
        due_in_seconds=outcome.due_in_seconds,
        phase="rcpt",
        code=550 if outcome.state == "failed" else 451,
        enhanced_code=None,
        reply="said so",
        reason="the server said so",
    )
