"""What the fleet sends to a mailbox's server, by the five seconds. Queries of `traffic.sql`.

Every process tells now and then what it has counted, in rows of its own, so that no row is hot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("traffic")

BUCKET_SECONDS = 5.0
"""How long a row counts."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a process has counted for a mailbox since it last told: what was accepted, and what is open.

    `busy_seconds` is how long it was at it.
    """

    mailbox_id: int
    messages: int
    recipients: int
    connections: int
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """What the fleet sent in five seconds, which began so long ago. `busy_seconds` is that of the busiest process."""

    age_seconds: float
    messages: int
    busy_seconds: float


async def note_traffic(connection: Connection, worker_id: UUID, counted: Sequence[Counted]) -> None:
    """Write down what a process has counted."""
    # In one order for everybody, so that nobody waits for each other in a circle.
    ordered = sorted(counted, key=lambda one: one.mailbox_id)
    await connection.execute(
        _QUERIES["note_traffic"],
        {
            "worker_id": worker_id,
            "mailbox_ids": [one.mailbox_id for one in ordered],
            "messages": [one.messages for one in ordered],
            "recipients": [one.recipients for one in ordered],
            "connections": [one.connections for one in ordered],
            "busy_seconds": [one.busy_seconds for one in ordered],
        },
    )


async def forget_old_traffic(connection: Connection) -> None:
    """Remove what nobody looks at any more: a quarter of an hour is kept."""
    await connection.execute(_QUERIES["forget_old_traffic"])


async def recent_traffic(connection: Connection, mailbox_id: int) -> list[Bucket]:
    """Read what the fleet sent to a mailbox's server in the last minute and a half, the oldest first."""
    async with connection.cursor(row_factory=class_row(Bucket)) as cursor:
        await cursor.execute(_QUERIES["recent_traffic"], {"mailbox_id": mailbox_id})
        return await cursor.fetchall()
