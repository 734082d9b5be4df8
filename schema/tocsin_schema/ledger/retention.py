"""Removing the months that are older than RetentionDays: what is to be done next, and the statements that do it.

A month is removed in steps, each of which may be the last one of a process that dies; what is there tells how far
it came. First its `jobs` are detached: from then on nobody finds its jobs, and whoever was changing one is done. If
one of them is unfinished all the same, everything is attached again. Else the other tables follow, then the
callers' ids, and last the tables are dropped, all at once. Queries of `retention.sql`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("retention")

#: What is detached first and attached last: a job whose row is away is away.
JOBS = "jobs"
#: Ids that are deleted in one transaction.
IDS_AT_A_TIME = 10_000

_LAST_MONTH_OF_A_YEAR = 12


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A month in UTC."""

    year: int
    month: int

    @property
    def first(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        if self.month == _LAST_MONTH_OF_A_YEAR:
            return datetime(self.year + 1, 1, 1, tzinfo=UTC)
        return datetime(self.year, self.month + 1, 1, tzinfo=UTC)

    @property
    def suffix(self) -> str:
        """How the names of its tables end."""
        return f"{self.year:04}{self.month:02}"


class TableState(StrEnum):
    """How a month's table belongs to its parent."""

    ATTACHED = "attached"
    PENDING = "pending"
    """Its detachment was begun, and not ended."""
    DETACHED = "detached"


Tables: TypeAlias = "Mapping[str, TableState]"
"""A month's tables by the names of their parents."""


@dataclass(frozen=True, slots=True)
class Finalize:
    """End an interrupted detachment."""

    parent: str


@dataclass(frozen=True, slots=True)
class Attach:
    """Take a table back: its month is kept after all."""

    parent: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Take a table out of its parent."""

    parent: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete the callers' ids, and then these tables."""

    parents: tuple[str, ...]


Step: TypeAlias = Finalize | Attach | Detach | Drop


def months_due(months: Iterable[Month], *, now: datetime, retention_days: int) -> list[Month]:
    """Give the months all of which is older than so many days, the oldest first; 0 days: none."""
    if retention_days == 0:
        return []
    return sorted(month for month in months if month.end <= now - timedelta(days=retention_days))


def next_step(tables: Tables, *, is_to_go: bool) -> Step | None:
    """Decide what to do next with a month; None where nothing is left to do.

    `is_to_go`: it is due, and nothing in it is unfinished.
    """
    in_order = sorted(tables, key=lambda parent: (parent != JOBS, parent))
    for parent in in_order:
        if tables[parent] is TableState.PENDING:
            return Finalize(parent)
    if not is_to_go:
        away = [parent for parent in in_order if tables[parent] is TableState.DETACHED]
        return Attach(away[-1]) if away else None
    for parent in in_order:
        if tables[parent] is TableState.ATTACHED:
            return Detach(parent)
    return Drop(tuple(in_order)) if in_order else None


async def read_now(connection: Connection) -> datetime:
    """Give the ledger's time."""
    row = await (await connection.execute(_QUERIES["now"])).fetchone()
    assert row is not None
    return row[0]


async def read_month_tables(connection: Connection) -> dict[Month, dict[str, TableState]]:
    """Read which months there are, and how their tables belong to their parents."""
    months: dict[Month, dict[str, TableState]] = {}
    for parent, suffix, state in await (await connection.execute(_QUERIES["read_month_tables"])).fetchall():
        year, month = int(suffix[:4]), int(suffix[4:])
        if year >= 1 and 1 <= month <= _LAST_MONTH_OF_A_YEAR:
            months.setdefault(Month(year, month), {})[parent] = TableState(state)
    return months


async def is_held(connection: Connection, month: Month) -> bool:
    """Whether a job of the month is unfinished, or ended less than a day ago."""
    held = await _made(connection, "held_statement", {"month": month.suffix})
    row = await (await connection.execute(held)).fetchone()
    return row is not None and bool(row[0])


async def detach(connection: Connection, month: Month, parent: str) -> None:
    """Take a table out of its parent. The connection is in autocommit: this cannot be part of a transaction."""
    names = {"month": month.suffix, "parent": parent}
    await connection.execute(await _made(connection, "detach_statement", names))


async def try_lock_step(connection: Connection) -> bool:
    """Take the step for this transaction, in which no lock is waited for long; False where another pod is at one."""
    await connection.execute(_QUERIES["limit_waiting"])
    row = await (await connection.execute(_QUERIES["try_lock_retiring"])).fetchone()
    return row is not None and bool(row[0])


async def finalize(connection: Connection, month: Month, parent: str) -> None:
    """End an interrupted detachment."""
    names = {"month": month.suffix, "parent": parent}
    await connection.execute(await _made(connection, "finalize_statement", names))


async def attach(connection: Connection, month: Month, parent: str) -> None:
    """Take a table back."""
    parameters = {"month": month.suffix, "parent": parent, "first": month.first, "end": month.end}
    await connection.execute(await _made(connection, "attach_statement", parameters))


async def drop(connection: Connection, month: Month, parents: Iterable[str]) -> None:
    """Delete detached tables, with all that is in them."""
    parameters = {"month": month.suffix, "parents": list(parents)}
    await connection.execute(await _made(connection, "drop_statement", parameters))


async def forget_job_ids(connection: Connection, month: Month) -> int:
    """Delete a portion of the month's callers' ids; give how many."""
    parameters = {"first": month.first, "end": month.end, "limit": IDS_AT_A_TIME}
    return (await connection.execute(_QUERIES["forget_job_ids"], parameters)).rowcount


async def has_job_ids(connection: Connection, month: Month) -> bool:
    """Whether ids of the month's jobs are left."""
    cursor = await connection.execute(_QUERIES["has_job_ids"], {"first": month.first, "end": month.end})
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def _made(connection: Connection, query: str, parameters: Mapping[str, object]) -> bytes:
    """Let Postgres put names into a statement, which no parameter can be."""
    row = await (await connection.execute(_QUERIES[query], parameters)).fetchone()
    assert row is not None
    return str(row[0]).encode()
