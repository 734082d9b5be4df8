"""The installation at a glance: who works, and what holds up which profile. Queries of `status.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("status")


@dataclass(frozen=True, slots=True)
class WorkersOfHost:
    """Worker processes of one role on one host that gave a sign of life within 30 seconds."""

    host: str
    role: str
    processes: int
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class ProfileStatus:
    """A sending profile, its mail in the ledger (recipients not settled yet) and what holds it up."""

    name: str
    from_address: str
    auth: str
    paused_reason: str | None
    probe_at: datetime | None
    parked_until: datetime | None
    parked_reason: str | None
    open_jobs: int
    due_recipients: int
    waiting_recipients: int
    connections_open: int
    connections: int | None
    messages_per_minute: int | None
    token_failure: str | None


async def read_workers(connection: Connection) -> list[WorkersOfHost]:
    """Give the worker processes that are alive."""
    async with connection.cursor(row_factory=class_row(WorkersOfHost)) as cursor:
        await cursor.execute(_QUERIES["workers"])
        return await cursor.fetchall()


async def read_profiles(connection: Connection) -> list[ProfileStatus]:
    """Give every sending profile with its backlog."""
    async with connection.cursor(row_factory=class_row(ProfileStatus)) as cursor:
        await cursor.execute(_QUERIES["profiles"])
        return await cursor.fetchall()
