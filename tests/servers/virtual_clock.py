"""A ledger in which time passes only when a test says so.

Every `now()` of the product's SQL is looked up by name when a function, view or default is made, and when a query is
planned. In this database another `now()` stands before Postgres' own: the migrations and queries stay as they are, and
due times, leases, parked mailboxes and expiries all move by the same seconds. Job numbers and token times are taken
from `clock_timestamp()`, which stays the server's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from tocsin_schema.ledger.migrate import migrate

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection

#: Ahead of the server's clock, so that the server was started long ago and nothing was changed in the future.
_AHEAD: Final = "1 hour"

_VIRTUAL_NOW: Final = (
    "CREATE TABLE public.virtual_clock (began_at timestamptz NOT NULL, passed interval NOT NULL)",
    f"INSERT INTO public.virtual_clock VALUES (pg_catalog.now() + interval '{_AHEAD}', '0')",
    """
    CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
    AS 'SELECT began_at + passed FROM public.virtual_clock'
    """,
)


def make_ledger(empty_database_url: str) -> None:
    """Migrate a database in which time stands still."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        name = sql.Identifier(urlsplit(empty_database_url).path.removeprefix("/"))
        connection.execute(sql.SQL("ALTER DATABASE {} SET search_path = public, pg_catalog").format(name))
        for statement in _VIRTUAL_NOW:
            connection.execute(statement.encode())
    asyncio.run(migrate(empty_database_url))


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers go by virtual seconds too."""

    def __init__(self) -> None:
        self.seconds = 0.0
        super().__init__()

    def time(self) -> float:
        """Give the seconds that have passed."""
        return self.seconds


@dataclass(slots=True)
class VirtualClock:
    """The time of one ledger, and of the processes that a test plays in one event loop: the same seconds for both."""

    connection: Connection
    loop: VirtualTimeLoop

    def read(self) -> float:
        """Give the seconds that have passed: for whoever asks a monotonic clock."""
        return self.loop.seconds

    async def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        await self._set(self.loop.seconds + seconds)

    async def begin_anew(self) -> None:
        """Go back to where it all began."""
        await self._set(0.0)

    async def _set(self, seconds: float) -> None:
        self.loop.seconds = seconds
        await self.connection.execute("UPDATE virtual_clock SET passed = make_interval(secs => %s)", [seconds])
