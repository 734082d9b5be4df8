"""Coalescing wake-ups: a profile and rank that has one under way needs no second one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("wakeups")

#: How long a wake-up may lie on the queue, or wait for a place in a process, before it is taken for lost.
PATIENCE_SECONDS = 5.0
#: Wake-ups of one profile and rank on the queue at a time. A few make work fan out; more would stand in the way of
#: other profiles, whose wake-ups come behind them.
MOST_UNDER_WAY = 2


async def note_wakeup(connection: Connection, profile_id: UUID, rank: int) -> bool:
    """Note that a wake-up is about to be sent; False where enough of them are under way already."""
    cursor = await connection.execute(
        _QUERIES["note_wakeup"],
        {
            "profile_id": profile_id,
            "rank": rank,
            "most": MOST_UNDER_WAY,
            "patience_seconds": PATIENCE_SECONDS,
        },
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def take_wakeups(connection: Connection, profile_id: UUID, rank: int, taken: int = 1) -> None:
    """Note that so many wake-ups were taken, so that the next ones may be sent."""
    await connection.execute(_QUERIES["take_wakeups"], {"profile_id": profile_id, "rank": rank, "taken": taken})
