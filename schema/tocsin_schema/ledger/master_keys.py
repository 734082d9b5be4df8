"""Which master keys there are and were, and which of them the workers have open. Queries of `master_keys.sql`.

The keys themselves lie outside the database: here are their ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("master_keys")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A master key as the ledger knows it: since when it opens, seals, and is no longer of use."""

    id: str
    opened_at: datetime
    promoted_at: datetime | None
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker process whose heartbeat is fresh, with the keys that it reports, the one that it seals with first."""

    host: str
    key_ids: list[str]


async def lock_rotation(connection: Connection) -> bool:
    """Take the right to change keys, for as long as this transaction lasts; False where somebody else has it."""
    row = await (await connection.execute(_QUERIES["lock_rotation"])).fetchone()
    await connection.execute(_QUERIES["stay_in_rotation"])
    return row is not None and bool(row[0])


async def hold_rotation(connection: Connection) -> None:
    """See to it that the transaction that holds the lock still lives: a psycopg.Error says that it does not."""
    await connection.execute(_QUERIES["stay_in_rotation"])


async def note_keys(connection: Connection, key_ids: Sequence[str], *, in_use: Collection[str]) -> None:
    """Note which keys a key file holds, the primary first: all are open, and the first is promoted.

    So is, or was, each that something is sealed with (`in_use`).
    """
    await connection.execute(_QUERIES["note_keys"], {"key_ids": list(key_ids)})
    await connection.execute(_QUERIES["note_keys_in_use"], {"key_ids": sorted(in_use)})


async def retire_keys(connection: Connection, key_ids: Collection[str]) -> None:
    """Note that nothing is sealed with these keys any more, and that nobody may seal with them again."""
    await connection.execute(_QUERIES["retire_keys"], {"key_ids": sorted(key_ids)})


async def list_keys(connection: Connection) -> list[KnownKey]:
    """Give all keys that were ever noted."""
    async with connection.cursor(row_factory=class_row(KnownKey)) as cursor:
        await cursor.execute(_QUERIES["list_keys"])
        return await cursor.fetchall()


async def list_live_workers(connection: Connection) -> list[LiveWorker]:
    """Give the worker processes whose leases hold; not the checks, which register for a mailbox's connection only."""
    async with connection.cursor(row_factory=class_row(LiveWorker)) as cursor:
        await cursor.execute(_QUERIES["list_live_workers"])
        return await cursor.fetchall()
