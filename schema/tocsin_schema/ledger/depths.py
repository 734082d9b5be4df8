"""How much lies in the ledger, for the metrics and `tocsin status`. Queries of `depths.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("depths")
_Counts = TypeVar("_Counts")


@dataclass(frozen=True, slots=True)
class LedgerDepths:
    """How much lies in the ledger: batches `due` now, `waiting` for their time, `leased`; and the rest."""

    due: int
    waiting: int
    leased: int
    dead_letters: int
    open_jobs: int


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """Jobs that are not ended, by the state that the ledger stores."""

    receiving: int
    running: int
    paused: int


@dataclass(frozen=True, slots=True)
class OpenRecipients:
    """Recipients of the jobs that are not ended, by state: sums over batches."""

    pending: int
    in_flight: int
    sent: int
    failed: int
    unknown: int
    suppressed: int


async def ledger_depths(connection: Connection) -> LedgerDepths:
    """Count batches, dead letters and open jobs."""
    return await _counts(connection, "ledger_depths", LedgerDepths)


async def open_jobs(connection: Connection) -> OpenJobs:
    """Count the jobs that are not ended."""
    return await _counts(connection, "open_jobs", OpenJobs)


async def open_recipients(connection: Connection) -> OpenRecipients:
    """Count the recipients of the jobs that are not ended: one row read a batch of theirs."""
    return await _counts(connection, "open_recipients", OpenRecipients)


async def _counts(connection: Connection, query: str, kind: type[_Counts]) -> _Counts:
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        counts = await (await cursor.execute(_QUERIES[query])).fetchone()
    assert counts is not None, "an aggregate gives a row"
    return counts
