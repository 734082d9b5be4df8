"""A mailbox's budget over the fleet: every function is one named query of `mailboxes.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("mailboxes")


@dataclass(frozen=True, slots=True)
class TimeSlots:
    """Reserved time slots: the first in so many seconds (may be negative: it has come), then evenly spaced."""

    first_in_seconds: float
    spacing_seconds: float


@dataclass(frozen=True, slots=True)
class DayRoom:
    """How many messages fit into the mailbox's 24 hours, and in how many seconds there is more room."""

    messages: int
    frees_in_seconds: float


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


async def count_recipients(connection: Connection, mailbox_id: int, messages: Sequence[int]) -> DayRoom | None:
    """Count messages, given by how many recipients each has, against the mailbox's rolling 24 hours.

    As many as there is room for are counted, in their order. None where the mailbox has no such limit.
    """
    row = await (await connection.execute(_QUERIES["lock_mailbox"], {"mailbox_id": mailbox_id})).fetchone()
    if row is None or row[0] is None:
        return None
    used = await (await connection.execute(_QUERIES["recipients_of_a_day"], {"mailbox_id": mailbox_id})).fetchone()
    assert used is not None
    room = fitting(messages, int(row[0]) - int(used[0]))
    counted = sum(messages[:room])
    if counted:
        await connection.execute(_QUERIES["count_recipients"], {"mailbox_id": mailbox_id, "count": counted})
        await connection.execute(_QUERIES["forget_old_usage"], {"mailbox_id": mailbox_id})
    return DayRoom(room, max(60.0, float(used[1])))


def fitting(messages: Sequence[int], room: int) -> int:
    """Give how many messages, from the first on, fit into the room for recipients.

    >>> fitting([50, 50, 50], 120)
    2
    """
    return sum(total <= room for total in accumulate(messages))


async def give_back_recipients(connection: Connection, mailbox_id: int, count: int) -> None:
    """Take back recipients that were counted and not tried after all."""
    await connection.execute(_QUERIES["give_back_recipients"], {"mailbox_id": mailbox_id, "count": count})


async def park_mailbox(connection: Connection, mailbox_id: int, *, seconds: float, reason: str) -> None:
    """Let a mailbox rest for some seconds, with a reason for a person."""
    await connection.execute(_QUERIES["park_mailbox"], {"mailbox_id": mailbox_id, "seconds": seconds, "reason": reason})
