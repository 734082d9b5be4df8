"""A mailbox's budget over the fleet, but for its days: every function is one named query of `mailboxes.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("mailboxes")

HORIZON_SECONDS = 5.0
"""How far ahead a time slot may lie for a sender to wait for it."""


@dataclass(frozen=True, slots=True)
class TimeSlots:
    """Reserved time slots: the first in so many seconds (may be negative: it has come), then evenly spaced."""

    first_in_seconds: float
    spacing_seconds: float


async def take_connection(connection: Connection, mailbox_id: int, worker_id: UUID) -> int | None:
    """Take one of the mailbox's connections; None where all seem taken."""
    await connection.execute(_QUERIES["lock_mailbox"], {"mailbox_id": mailbox_id})
    cursor = await connection.execute(_QUERIES["take_connection"], {"mailbox_id": mailbox_id, "worker_id": worker_id})
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def give_back_connection(connection: Connection, mailbox_id: int, slot: int, worker_id: UUID) -> None:
    """Give a connection back once it is closed."""
    await connection.execute(
        _QUERIES["give_back_connection"], {"mailbox_id": mailbox_id, "slot": slot, "worker_id": worker_id}
    )


async def want_connection(connection: Connection, mailbox_id: int, profile_id: UUID, rank: int) -> None:
    """Note that a profile found no free connection, so that one is closed that lies idle or is another profile's."""
    await connection.execute(
        _QUERIES["want_connection"], {"mailbox_id": mailbox_id, "profile_id": profile_id, "rank": rank}
    )


async def stop_wanting_connection(connection: Connection, mailbox_id: int, profile_id: UUID) -> None:
    """Note that a profile has a connection now."""
    await connection.execute(_QUERIES["stop_wanting_connection"], {"mailbox_id": mailbox_id, "profile_id": profile_id})


async def grant_connection(connection: Connection, mailbox_id: int, profile_id: UUID) -> bool:
    """Note that a profile closes a connection for another one; False where somebody else has done so before."""
    cursor = await connection.execute(
        _QUERIES["grant_connection"], {"mailbox_id": mailbox_id, "profile_id": profile_id}
    )
    return await cursor.fetchone() is not None


async def grant_idle_connections(connection: Connection, mailbox_ids: Sequence[int]) -> list[int]:
    """Note that an idle connection is closed for whoever waits for one; give the mailboxes where somebody does."""
    cursor = await connection.execute(_QUERIES["grant_idle_connections"], {"mailbox_ids": list(mailbox_ids)})
    return [int(mailbox_id) for (mailbox_id,) in await cursor.fetchall()]


async def reserve_messages(
    connection: Connection, mailbox_id: int, count: int, *, horizon_seconds: float
) -> TimeSlots | None:
    """Reserve time slots for `count` messages; None where the next free one is beyond the horizon, or it rests."""
    cursor = await connection.execute(
        _QUERIES["reserve_messages"],
        {"mailbox_id": mailbox_id, "count": count, "horizon_seconds": horizon_seconds},
    )
    row = await cursor.fetchone()
    return None if row is None else TimeSlots(float(row[0]), float(row[1]))


async def park_mailbox(connection: Connection, mailbox_id: int, *, seconds: float, reason: str) -> None:
    """Let a mailbox rest for some seconds, with a reason for a person."""
    await connection.execute(_QUERIES["park_mailbox"], {"mailbox_id": mailbox_id, "seconds": seconds, "reason": reason})


async def keep_mailbox_for_urgent(connection: Connection, mailbox_id: int, *, seconds: float, reason: str) -> None:
    """Let only urgent jobs use a mailbox for some seconds, with a reason for a person."""
    await connection.execute(
        _QUERIES["keep_mailbox_for_urgent"], {"mailbox_id": mailbox_id, "seconds": seconds, "reason": reason}
    )


async def park_tenant(connection: Connection, tenant_id: int, *, seconds: float, reason: str) -> None:
    """Let all mailboxes of a tenant rest for some seconds, with a reason for a person."""
    await connection.execute(_QUERIES["park_tenant"], {"tenant_id": tenant_id, "seconds": seconds, "reason": reason})


async def keep_tenant_for_urgent(connection: Connection, tenant_id: int, *, seconds: float, reason: str) -> None:
    """Let only urgent jobs use a tenant's mailboxes for some seconds, with a reason for a person."""
    await connection.execute(
        _QUERIES["keep_tenant_for_urgent"], {"tenant_id": tenant_id, "seconds": seconds, "reason": reason}
    )
