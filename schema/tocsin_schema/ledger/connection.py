"""Connections to the ledger, and what their failures mean to a person."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from tocsin_schema.errors import LedgerError
from tocsin_schema.server_urls import HOW_TO_WRITE_PASSWORDS, is_plain_postgres_url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_log = logging.getLogger(__name__)

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]
Pool: TypeAlias = AsyncConnectionPool[Connection]

CONNECT_TIMEOUT_SECONDS = 5
CHECKED_AFTER_SECONDS = 1.0

#: What a session to Postgres may raise when Postgres is away, restarting, or cut us off: worth trying again.
AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    # A server that was just demoted, or that ended our transaction for us.
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    PoolTimeout,
)


def describe(error: psycopg.Error | PoolTimeout, url: str) -> LedgerError:  # noqa: PLR0911 - one answer a failure
    """Say in plain words why the ledger cannot be used, without the password that stands in its URL."""
    if not _is_readable(url):
        return _unreadable()
    where = _where(url)
    text = " ".join(str(error).split())
    if isinstance(error, errors.InvalidPassword) or "password authentication failed" in text:
        return LedgerError(
            f"Postgres at {where} refuses the user name or password.",
            fix="Correct TOCSIN_DATABASE_URL.",
        )
    if isinstance(error, errors.InvalidCatalogName) or ('database "' in text and "does not exist" in text):
        return LedgerError(
            f"Postgres at {where} has no such database.", fix="Create it, or correct TOCSIN_DATABASE_URL."
        )
    if isinstance(error, errors.UndefinedTable | errors.UndefinedFunction | errors.UndefinedColumn):
        return LedgerError(f"The ledger at {where} is not set up for this release.", fix="Run `tocsin migrate`.")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return LedgerError(
            f"Postgres at {where} is read-only at the moment.", fix="Point TOCSIN_DATABASE_URL at the primary server."
        )
    if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure):
        return LedgerError(f"Two changes met in the ledger at {where}, and this one was undone.", fix="Do it again.")
    if isinstance(error, errors.InsufficientPrivilege):
        return LedgerError(
            f"Postgres at {where} does not let this user do that: {text}.", fix="Grant it, or use another user."
        )
    return LedgerError(
        f"Postgres at {where} cannot be reached: {_first_reason(text)}.",
        fix="Check that it runs and that TOCSIN_DATABASE_URL is right.",
    )


def open_pool(url: str, *, size: int) -> Pool:
    """Make a pool that is not yet open: open it after the fork, in the loop that will use it.

    A connection that has lain idle is checked when it is taken, since a restarted Postgres leaves dead ones behind. No
    prepared statements: PgBouncer before 1.21 does not carry them in transaction mode.

    While there are no connections to be had that is logged once with its reason, and its end once: who waits for the
    pool learns only that it took too long.
    """
    return AsyncConnectionPool(
        url,
        min_size=1,
        max_size=size,
        connection_class=_telling(url),
        open=False,
        timeout=30,
        # Attempts come ever more rarely; given up after this time, they begin anew when somebody asks, as heartbeats
        # do: so work goes on soon after Postgres is back.
        reconnect_timeout=5,
        check=_CheckOfIdle(),
        kwargs={"connect_timeout": CONNECT_TIMEOUT_SECONDS, "prepare_threshold": None, "application_name": "tocsin"},
    )


def _telling(url: str) -> type[Connection]:
    """Make the class of a pool's connections, which log that the ledger is away and that it is back."""
    is_away = False

    class TellingConnection(psycopg.AsyncConnection[TupleRow]):
        @classmethod
        async def connect(cls, conninfo: str = "", **options: Any) -> Self:
            nonlocal is_away
            try:
                connection = await super().connect(conninfo, **options)
            except psycopg.Error as error:
                if not is_away:
                    _log.warning("%s", describe(error, url))
                is_away = True
                raise
            if is_away:
                _log.info("Postgres at %s answers again.", _where(url))
            is_away = False
            return connection

    return TellingConnection


class _CheckOfIdle:
    """Asks a connection for a sign of life unless it was taken a moment ago: that costs a round trip each time."""

    def __init__(self) -> None:
        self._taken_at: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()

    async def __call__(self, connection: Connection) -> None:
        now = monotonic()
        if now - self._taken_at.get(connection, float("-inf")) > CHECKED_AFTER_SECONDS:
            await AsyncConnectionPool.check_connection(connection)
        self._taken_at[connection] = now


@asynccontextmanager
async def connect(url: str) -> AsyncGenerator[Connection]:
    """Open one connection for a command, commit at the end, roll back at an exception.

    Raises LedgerError with a plain reason where Postgres is away, refuses us or has another schema.
    """
    if not _is_readable(url):
        raise _unreadable()
    try:
        async with await psycopg.AsyncConnection.connect(
            url, connect_timeout=CONNECT_TIMEOUT_SECONDS, prepare_threshold=None, application_name="tocsin"
        ) as connection:
            yield connection
    except (
        *AWAY,
        errors.UndefinedTable,
        errors.UndefinedFunction,
        errors.UndefinedColumn,
        errors.InsufficientPrivilege,
    ) as error:
        raise describe(error, url) from error


def _is_readable(url: str) -> bool:
    # libpq quotes the part that it cannot read, which may be the password: nothing of its error goes on.
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return False
    return is_plain_postgres_url(url)


def _unreadable() -> LedgerError:
    return LedgerError(
        "The address of Postgres cannot be read.", fix=f"Correct TOCSIN_DATABASE_URL; {HOW_TO_WRITE_PASSWORDS}."
    )


def _where(url: str) -> str:
    parts = conninfo_to_dict(url)
    return f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


def _first_reason(text: str) -> str:
    """Cut libpq's list of one line an address tried down to the first reason."""
    first = text.split(" Is the server running", maxsplit=1)[0].split(" Multiple connection", maxsplit=1)[0]
    return first.rpartition("failed: ")[2].rstrip(".")
