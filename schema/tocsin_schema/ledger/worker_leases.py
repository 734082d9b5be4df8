"""A worker process's row: while its heartbeat is fresh, its leases hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.ledger.migration_steps import newest_version
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("workers")


async def register_worker(
    connection: Connection,
    worker_id: UUID,
    *,
    host: str,
    pid: int,
    role: str,
    lease_seconds: float,
    key_ids: Sequence[str] = (),
) -> None:
    """Make the worker's row, or give it a fresh heartbeat.

    `lease_seconds` is how long its leases outlive the last one; `key_ids` are the master keys that it has open, the
    one that it seals with first.
    """
    await connection.execute(
        _QUERIES["register_worker"],
        {
            "id": worker_id,
            "host": host,
            "pid": pid,
            "role": role,
            "lease_seconds": lease_seconds,
            "key_ids": list(key_ids),
            "schema_version": newest_version(),
        },
    )


async def beat(connection: Connection, worker_id: UUID, *, key_ids: Sequence[str] = ()) -> bool:
    """Give a sign of life, and tell which master keys are open.

    False where the sweeper has taken this worker for dead and its leases are gone.
    """
    beaten = await connection.execute(_QUERIES["beat"], {"id": worker_id, "key_ids": list(key_ids)})
    return await beaten.fetchone() is not None


async def release_forgotten_batches(
    connection: Connection, worker_id: UUID, known: Sequence[tuple[int, int, int]], *, older_than_seconds: float
) -> int:
    """Give back batches that we lease and do not have among the `known` (job, number, epoch); give how many."""
    cursor = await connection.execute(
        _QUERIES["release_forgotten_batches"],
        {
            "id": worker_id,
            "older_than_seconds": older_than_seconds,
            "job_numbers": [job_number for job_number, _, _ in known],
            "numbers": [number for _, number, _ in known],
            "epochs": [epoch for _, _, epoch in known],
        },
    )
    return cursor.rowcount


async def retire_worker(connection: Connection, worker_id: UUID) -> None:
    """End in good order: give back all batches and the mailboxes' connections, and remove the row."""
    await connection.execute(_QUERIES["retire_worker"], {"id": worker_id})
