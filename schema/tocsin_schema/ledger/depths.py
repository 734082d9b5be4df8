"""How much lies in the ledger, for the metrics and `tocsin status`. Queries of `depths.sql`.

What is due, and what waits, is said in one place: the view `profile_backlogs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("depths")

UNKNOWN_DAYS = 30
"""Ended jobs older than this many days are not searched for recipients whose fate is unknown."""


@dataclass(frozen=True, slots=True)
class LedgerDepths:
    """How much lies in the ledger: batches of open jobs `due` now, `waiting` and `leased`; and the rest."""

    due: int
    waiting: int
    leased: int
    dead_letters: int
    open_jobs: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The jobs that are not ended, with their batches and recipients by state.

    A batch is due that may be sent now; it waits where its own time has not come, or where a halt, a pause, a resting
    mailbox or a later time of its job holds it up. Jobs are counted by the state that the ledger stores.
    """

    due_batches: int
    waiting_batches: int
    leased_batches: int
    receiving_jobs: int
    running_jobs: int
    paused_jobs: int
    pending: int
    in_flight: int
    sent: int
    failed: int
    unknown: int
    suppressed: int


async def ledger_depths(connection: Connection) -> LedgerDepths:
    """Count batches, dead letters and open jobs."""
    async with connection.cursor(row_factory=class_row(LedgerDepths)) as cursor:
        counts = await (await cursor.execute(_QUERIES["ledger_depths"])).fetchone()
    assert counts is not None, "an aggregate gives a row"
    return counts


async def read_backlog(connection: Connection) -> Backlog:
    """Count the jobs that are not ended: one row read a batch of theirs."""
    async with connection.cursor(row_factory=class_row(Backlog)) as cursor:
        counts = await (await cursor.execute(_QUERIES["backlog"])).fetchone()
    assert counts is not None, "an aggregate gives a row"
    return counts


async def count_unknown_of_ended_jobs(connection: Connection) -> int:
    """Count the recipients of jobs that ended in the last `UNKNOWN_DAYS` who wait for a person to settle their fate."""
    row = await (await connection.execute(_QUERIES["unknown_of_ended_jobs"], {"days": UNKNOWN_DAYS})).fetchone()
    assert row is not None, "an aggregate gives a row"
    return int(row[0])
