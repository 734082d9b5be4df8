"""A mailbox's budget over the fleet: every function is one named query of `mailboxes.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("mailboxes")


@dataclass(frozen=True, slots=True)
class TimeSlots:
    """Reserved time slots: the first in so many seconds (may be negative: it has come), then evenly spaced."""

    first_in_seconds: float
    spacing_seconds: float


async def take_connection(connection: Connection, mailbox_id: int, worker_id: UUID) -> int | None:
    """Take one of the mailbox's connections; None where all seem taken."""
    cursor = await connection.execute(_QUERIES["take_connection"], {"mailbox_id": mailbox_id, "worker_id": worker_id})
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def give_back_connection(connection: Connection, mailbox_id: int, slot: int, worker_id: UUID) -> None:
    """Give a connection back once it is closed."""
    await connection.execute(
        _QUERIES["give_back_connection"], {"mailbox_id": mailbox_id, "slot": slot, "worker_id": worker_id}
    )


async def reserve_messages(
    connection: Connection, mailbox_id: int, count: int, *, horizon_seconds: float
) -> TimeSlots | None:
    """Reserve time slots for `count` messages; None where the next free one is beyond the horizon."""
    cursor = await connection.execute(
        _QUERIES["reserve_messages"],
        {"mailbox_id": mailbox_id, "count": count, "horizon_seconds": horizon_seconds},
    )
    row = await cursor.fetchone()
    return None if row is None else TimeSlots(float(row[0]), float(row[1]))


async def count_recipients(connection: Connection, mailbox_id: int, count: int) -> float | None:
    """Count recipients against the mailbox's rolling 24 hours, in the transaction of `connection`.

    None where there was room for them. Else nothing is counted: give the seconds until some room comes.
    """
    row = await (await connection.execute(_QUERIES["lock_mailbox"], {"mailbox_id": mailbox_id})).fetchone()
    if row is None or row[0] is None:
        return None
    used = await (await connection.execute(_QUERIES["recipients_of_a_day"], {"mailbox_id": mailbox_id})).fetchone()
    assert used is not None
    recipients, frees_in_seconds = int(used[0]), float(used[1])
    if recipients + count > int(row[0]):
        return max(60.0, frees_in_seconds)
    await connection.execute(_QUERIES["count_recipients"], {"mailbox_id": mailbox_id, "count": count})
    await connection.execute(_QUERIES["forget_old_usage"], {"mailbox_id": mailbox_id})
    return None


async def park_mailbox(connection: Connection, mailbox_id: int, *, seconds: float, reason: str) -> None:
    """Let a mailbox rest for some seconds, with a reason for a person."""
    await connection.execute(_QUERIES["park_mailbox"], {"mailbox_id": mailbox_id, "seconds": seconds, "reason": reason})
