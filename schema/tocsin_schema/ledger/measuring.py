"""What the metrics read of the ledger beside its depths. Queries of `measuring.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

TOKEN_USED_WITHIN = timedelta(hours=1)
"""A token that no sender asked for in this time is not kept fresh, and tells nothing."""

_QUERIES = named_queries("measuring")


@dataclass(frozen=True, slots=True)
class ProfileGauges:
    """A sending profile with what its mailbox may use and has used, over the whole fleet; None: there is no limit.

    `connections_open` is None, too, where connections are not limited: nobody counts them then. `recipients_used` and
    `recipients_limit` are of the last 24 hours, of the mailbox or its tenant, whichever has less left.
    """

    name: str
    pause_cause: str | None
    is_resting: bool
    connections_open: int | None
    connections_limit: int | None
    wants_connection: bool
    messages_last_minute: int
    messages_limit: float | None
    recipients_used: int
    recipients_limit: int | None


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """When the access token of an OAuth profile was obtained, and when it ends; of several, the first to do so."""

    oauth_profile: str
    obtained_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Watch:
    """Whether all sending is halted, when the sweeper last came to its end, and how many dead letters are kept."""

    is_halted: bool
    swept_at: datetime | None
    dead_letters: int


async def limit_time(connection: Connection, *, seconds: float) -> None:
    """Have Postgres give up any statement of this transaction that takes longer."""
    await connection.execute(_QUERIES["limit_time"], {"milliseconds": round(seconds * 1000)})


async def read_profiles(connection: Connection) -> list[ProfileGauges]:
    """Give every sending profile, by name."""
    async with connection.cursor(row_factory=class_row(ProfileGauges)) as cursor:
        return await (await cursor.execute(_QUERIES["profiles"])).fetchall()


async def read_tokens(connection: Connection) -> list[TokenTimes]:
    """Give the OAuth profiles whose tokens were used lately, by name."""
    async with connection.cursor(row_factory=class_row(TokenTimes)) as cursor:
        return await (await cursor.execute(_QUERIES["tokens"], {"used_within": TOKEN_USED_WITHIN})).fetchall()


async def read_watch(connection: Connection) -> Watch:
    """Read what concerns the whole installation."""
    async with connection.cursor(row_factory=class_row(Watch)) as cursor:
        watch = await (await cursor.execute(_QUERIES["watch"])).fetchone()
    assert watch is not None, "it asks for no row that may be missing"
    return watch
