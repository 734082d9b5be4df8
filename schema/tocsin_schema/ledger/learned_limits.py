"""What the fleet has learned of a mailbox from its server's replies. Queries of `learned_limits.sql`.

What is to be learned is decided elsewhere, by pure functions, between `lock_learned` and the writing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("learned_limits")


class CountedBy(StrEnum):
    """By what a provider counts a rate."""

    MINUTE = "minute"
    SECOND = "second"


@dataclass(frozen=True, slots=True)
class Rate:
    """A learned rate in messages a minute; None where there is none, and then all else means nothing.

    `before` is the rate that was in force before it was lowered, None where there was none; `steps` how often it was
    raised since; `needed_at` when it was last more than a little used.
    """

    per_minute: float | None = None
    lowered_at: datetime | None = None
    raised_at: datetime | None = None
    steps: int = 0
    counted_by: CountedBy | None = None
    needed_at: datetime | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Connections:
    """A learned number of connections; None where there is none.

    `failures` is how often one more was refused since it began to be learned.
    """

    connections: int | None = None
    lowered_at: datetime | None = None
    raised_at: datetime | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """What is set and what is learned for a mailbox, as it stands at `read_at`, by the ledger's clock."""

    connections_set: int | None
    connections: Connections
    per_minute_set: int | None
    rate: Rate
    read_at: datetime


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    connections: int | None
    learned_connections: int | None
    connections_lowered_at: datetime | None
    connections_raised_at: datetime | None
    connections_failures: int
    messages_per_minute: int | None
    learned_per_minute: float | None
    per_minute_before: float | None
    per_minute_lowered_at: datetime | None
    per_minute_raised_at: datetime | None
    per_minute_steps: int
    per_minute_counted_by: str | None
    per_minute_needed_at: datetime | None
    read_at: datetime


async def lock_learned(connection: Connection, mailbox_id: int) -> Learned | None:
    """Read what is known of a mailbox, and keep others from learning until the transaction ends. None: it is gone."""
    async with connection.cursor(row_factory=class_row(_Row)) as cursor:
        row = await (await cursor.execute(_QUERIES["lock_learned"], {"mailbox_id": mailbox_id})).fetchone()
    if row is None:
        return None
    return Learned(
        row.connections,
        Connections(
            row.learned_connections, row.connections_lowered_at, row.connections_raised_at, row.connections_failures
        ),
        row.messages_per_minute,
        Rate(
            row.learned_per_minute,
            row.per_minute_lowered_at,
            row.per_minute_raised_at,
            row.per_minute_steps,
            None if row.per_minute_counted_by is None else CountedBy(row.per_minute_counted_by),
            row.per_minute_needed_at,
            row.per_minute_before,
        ),
        row.read_at,
    )


async def list_learned(connection: Connection) -> list[int]:
    """Give the mailboxes of which a rate or a number of connections was learned."""
    return [int(mailbox_id) for (mailbox_id,) in await (await connection.execute(_QUERIES["list_learned"])).fetchall()]


async def open_connections(connection: Connection, mailbox_id: int) -> int:
    """Say how many connections the fleet has open to a mailbox's server, as far as the ledger knows."""
    row = await (await connection.execute(_QUERIES["open_connections"], {"mailbox_id": mailbox_id})).fetchone()
    assert row is not None
    return int(row[0])


async def write_rate(connection: Connection, mailbox_id: int, rate: Rate, *, reason: str | None = None) -> None:
    """Write a learned rate, or that there is none any more. Without a reason the one before stays."""
    await connection.execute(
        _QUERIES["write_rate"],
        {
            "mailbox_id": mailbox_id,
            "per_minute": rate.per_minute,
            "before": rate.before,
            "lowered_at": rate.lowered_at,
            "raised_at": rate.raised_at,
            "steps": rate.steps,
            "counted_by": None if rate.counted_by is None else rate.counted_by.value,
            "needed_at": rate.needed_at,
            "reason": reason,
        },
    )


async def write_connections(
    connection: Connection, mailbox_id: int, learned: Connections, *, reason: str | None = None
) -> None:
    """Write a learned number of connections, or that there is none any more. Without a reason the one before stays."""
    await connection.execute(
        _QUERIES["write_connections"],
        {
            "mailbox_id": mailbox_id,
            "connections": learned.connections,
            "lowered_at": learned.lowered_at,
            "raised_at": learned.raised_at,
            "failures": learned.failures,
            "reason": reason,
        },
    )


async def learn_recipients(connection: Connection, mailbox_id: int, recipients: int) -> None:
    """Remember for a day how many recipients a server takes in one transaction, if it is fewer than known."""
    await connection.execute(_QUERIES["learn_recipients"], {"mailbox_id": mailbox_id, "recipients": recipients})


async def learn_pipelining(connection: Connection, mailbox_id: int, pipelining: str) -> None:
    """Remember for a day what a server did not break on: `envelope` or `off`."""
    await connection.execute(_QUERIES["learn_pipelining"], {"mailbox_id": mailbox_id, "pipelining": pipelining})
