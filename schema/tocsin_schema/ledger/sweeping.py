"""What the sweeper does to the ledger: every function is one named query of `sweeping.sql`, and bounded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg.rows import class_row

from tocsin_schema.ledger.mailboxes import HORIZON_SECONDS
from tocsin_schema.ledger.sending import finish_jobs
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.job_events import JobEvent

_QUERIES = named_queries("sweeping")

#: How many jobs a sweep ends, and looks at to finish them.
MOST_JOBS = 500


@dataclass(frozen=True, slots=True)
class ClosedJob:
    """A job that was ended because its time was over, with its recipients by state at that moment.

    Those in flight have a worker that is about to say what became of them.
    """

    number: int
    id: UUID
    is_incomplete: bool
    """Its last part had not come."""
    total: int
    sent: int
    in_flight: int
    failed: int
    unknown: int
    suppressed: int
    expired: int


@dataclass(frozen=True, slots=True)
class InDoubt:
    """How many recipients of a profile, and at least how many messages, were in flight when their workers died."""

    profile: str
    recipients: int
    messages: int


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What was taken back from dead workers: the jobs of the batches, one entry a batch, and who is in doubt."""

    jobs: Sequence[int] = ()
    in_doubt: Sequence[InDoubt] = ()


@dataclass(frozen=True, slots=True)
class SweptEvent:
    """A row of `job_events` without an actor. `details` is plain JSON."""

    job_number: int
    event: JobEvent
    details: Mapping[str, object]


async def try_lock_sweep(connection: Connection) -> bool:
    """Take the sweep for this transaction; False where another pod is at it."""
    row = await (await connection.execute(_QUERIES["try_lock_sweep"])).fetchone()
    return row is not None and bool(row[0])


async def make_partitions(connection: Connection) -> int:
    """Make the partitions of this month and the next two where they are missing; give how many were made."""
    row = await (await connection.execute(_QUERIES["make_partitions"])).fetchone()
    return 0 if row is None else int(row[0])


async def lapsed_workers(connection: Connection) -> list[UUID]:
    """Find workers without a sign of life for their own lease time."""
    cursor = await connection.execute(_QUERIES["lapsed_workers"])
    return [UUID(str(worker_id)) for (worker_id,) in await cursor.fetchall()]


async def ownerless_leases(connection: Connection) -> list[UUID]:
    """Find workers that have no row and still lease batches."""
    cursor = await connection.execute(_QUERIES["ownerless_leases"])
    return [UUID(str(worker_id)) for (worker_id,) in await cursor.fetchall()]


async def bury_workers(connection: Connection, worker_ids: Sequence[UUID]) -> Reclaimed:
    """Take everything back from dead workers."""
    dead = {"worker_ids": list(worker_ids)}
    locked = await (await connection.execute(_QUERIES["lock_leases"], dead)).fetchall()
    batches = {"job_numbers": [job for job, _ in locked], "numbers": [number for _, number in locked]}
    async with connection.cursor(row_factory=class_row(InDoubt)) as cursor:
        in_doubt = await (await cursor.execute(_QUERIES["note_in_doubt"], batches)).fetchall()
    await connection.execute(_QUERIES["hold_in_doubt"], batches)
    reclaimed = await (await connection.execute(_QUERIES["reclaim_batches"], batches)).fetchall()
    await connection.execute(_QUERIES["bury_workers"], dead)
    return Reclaimed([int(job_number) for (job_number,) in reclaimed], in_doubt)


async def free_orphaned_connections(connection: Connection) -> int:
    """Free the mailboxes' connections of workers that have no row; give how many."""
    return (await connection.execute(_QUERIES["free_orphaned_connections"])).rowcount


async def close_expired_jobs(connection: Connection) -> list[ClosedJob]:
    """End jobs whose time is over, a few hundred at a time; give what they had come to."""
    async with connection.cursor(row_factory=class_row(ClosedJob)) as cursor:
        await cursor.execute(_QUERIES["close_expired_jobs"], {"limit": MOST_JOBS})
        return await cursor.fetchall()


async def note_events(connection: Connection, events: Sequence[SweptEvent]) -> None:
    """Write down what happened to jobs, which nobody did."""
    await connection.execute(
        _QUERIES["note_events"],
        {
            "job_numbers": [event.job_number for event in events],
            "events": [event.event.value for event in events],
            "details": [json.dumps(event.details) for event in events],
        },
    )


async def close_batches_of_ended_jobs(connection: Connection) -> int:
    """Take batches of ended jobs out of the index of what is due, a few thousand at a time; give how many."""
    closed = (await connection.execute(_QUERIES["close_batches_of_ended_jobs"])).rowcount
    await connection.execute(_QUERIES["forget_ended_jobs"])
    return closed


async def finish_complete_jobs(connection: Connection) -> list[int]:
    """Finish jobs of which no batch is left; give their numbers. Of very many running jobs it looks at some."""
    cursor = await connection.execute(_QUERIES["lock_complete_jobs"], {"limit": MOST_JOBS})
    numbers = [int(number) for (number,) in await cursor.fetchall()]
    return await finish_jobs(connection, numbers)


async def note_swept(connection: Connection) -> None:
    """Note that the sweeper has come to its end, unless that was noted just now."""
    await connection.execute(_QUERIES["note_swept"])


async def profiles_to_wake(connection: Connection, *, patience_seconds: float) -> list[tuple[UUID, int]]:
    """Find (profile, rank) with work that could be sent now, room in the mailbox, and no wake-up under way."""
    cursor = await connection.execute(
        _QUERIES["profiles_to_wake"], {"patience_seconds": patience_seconds, "horizon_seconds": HORIZON_SECONDS}
    )
    return [(UUID(str(profile_id)), int(rank)) for profile_id, rank in await cursor.fetchall()]
