"""What the sweeper does to the ledger: every function is one named query of `sweeping.sql`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("sweeping")


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


async def bury_workers(connection: Connection, worker_ids: Sequence[UUID]) -> list[int]:
    """Take everything back from dead workers; give the jobs whose batches were reclaimed, one entry a batch."""
    dead = {"worker_ids": list(worker_ids)}
    locked = await (await connection.execute(_QUERIES["lock_leases"], dead)).fetchall()
    batches = {"job_numbers": [job for job, _ in locked], "numbers": [number for _, number in locked]}
    await connection.execute(_QUERIES["note_in_doubt"], batches)
    await connection.execute(_QUERIES["hold_in_doubt"], batches)
    reclaimed = await (await connection.execute(_QUERIES["reclaim_batches"], batches)).fetchall()
    await connection.execute(_QUERIES["bury_workers"], dead)
    return [int(job_number) for (job_number,) in reclaimed]


async def free_orphaned_connections(connection: Connection) -> int:
    """Free the mailboxes' connections of workers that have no row; give how many."""
    return (await connection.execute(_QUERIES["free_orphaned_connections"])).rowcount


async def close_expired_jobs(connection: Connection) -> list[int]:
    """End the jobs whose time is over; give their numbers."""
    cursor = await connection.execute(_QUERIES["close_expired_jobs"])
    return [int(number) for (number,) in await cursor.fetchall()]


async def close_batches_of_ended_jobs(connection: Connection) -> int:
    """Take batches of ended jobs out of the index of what is due, a few thousand at a time; give how many."""
    return (await connection.execute(_QUERIES["close_batches_of_ended_jobs"])).rowcount


async def finish_complete_jobs(connection: Connection) -> list[int]:
    """Finish jobs of which no batch is left; give their numbers."""
    cursor = await connection.execute(_QUERIES["finish_complete_jobs"])
    return [int(number) for (number,) in await cursor.fetchall()]


async def profiles_to_wake(connection: Connection, *, patience_seconds: float) -> list[tuple[UUID, int]]:
    """Find (profile, rank) with work that could be sent now and no wake-up under way."""
    cursor = await connection.execute(_QUERIES["profiles_to_wake"], {"patience_seconds": patience_seconds})
    return [(UUID(str(profile_id)), int(rank)) for profile_id, rank in await cursor.fetchall()]
