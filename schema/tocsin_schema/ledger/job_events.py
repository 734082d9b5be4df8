"""What was done to jobs, by whom and when, and what they could not do. Queries of `job_events.sql`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tocsin_schema.ledger.actors import Actor
    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("job_events")


class JobEvent(StrEnum):
    """Everything that is written down about a job as a whole."""

    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    """Failed recipients, or those of an expired job, are tried again."""
    SETTLED = "settled"
    """A person said what became of recipients whose fate was unknown."""
    EXPIRES_SOON = "expires_soon"
    EXPIRED = "expired"
    INCOMPLETE = "incomplete"
    """Closed, because its last part did not come in time."""
    REOPENED = "reopened"
    """A late part came after its time was over."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A row of `job_events`. Without an actor, Tocsin itself acted."""

    id: int
    event: str
    at: datetime
    actor_kind: str | None
    actor: str | None
    details: dict[str, Any]


async def record_event(
    connection: Connection, job_number: int, event: JobEvent, *, actor: Actor | None, details: Mapping[str, object]
) -> int:
    """Write down an event in the transaction that makes it true; give its id. `details` must be fit for JSON."""
    cursor = await connection.execute(
        _QUERIES["record_event"],
        {
            "job_number": job_number,
            "event": event.value,
            "actor_kind": None if actor is None else actor.kind.value,
            "actor": None if actor is None else actor.name,
            "details": json.dumps(dict(details)),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def change_details(connection: Connection, job_number: int, event_id: int, details: Mapping[str, object]) -> None:
    """Say anew how far something has come that takes several transactions."""
    await connection.execute(
        _QUERIES["change_details"],
        {"job_number": job_number, "id": event_id, "details": json.dumps(dict(details))},
    )


async def read_events(connection: Connection, job_number: int, *, limit: int) -> list[RecordedEvent]:
    """Read a job's newest events, newest first."""
    async with connection.cursor(row_factory=class_row(RecordedEvent)) as cursor:
        await cursor.execute(_QUERIES["newest_events"], {"job_number": job_number, "limit": limit})
        return await cursor.fetchall()
