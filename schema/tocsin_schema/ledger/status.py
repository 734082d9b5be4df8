"""The installation at a glance: who works, and what holds up which profile. Queries of `status.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.depths import UNKNOWN_DAYS
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

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
    """A sending profile, its mail in the ledger (recipients not settled yet) and what holds it up.

    `due_recipients` are those that may be sent to now or are in work; all others wait, as the metrics count it too.
    `paused_recipients` are those of `paused_jobs`, and are among those that wait. A pause without `paused_by` is none
    by a person. Until `kept_for_urgent_until` only urgent jobs are sent. `connections` and `messages_per_minute` are
    those in force.
    """

    name: str
    from_address: str
    auth: str
    paused_at: datetime | None
    paused_reason: str | None
    paused_by: str | None
    probe_at: datetime | None
    parked_until: datetime | None
    parked_reason: str | None
    kept_for_urgent_until: datetime | None
    kept_for_urgent_reason: str | None
    open_jobs: int
    due_recipients: int
    waiting_recipients: int
    paused_recipients: int
    paused_jobs: int
    connections_open: int
    connections: int | None
    messages_per_minute: float | None
    token_failure: str | None

    @property
    def recipients_in_a_pause(self) -> int:
        """Those who wait until a pause has ended: the profile's, or that of their job."""
        return self.paused_recipients if self.paused_reason is None else self.waiting_recipients


@dataclass(frozen=True, slots=True)
class HeldJobs:
    """How many open jobs are paused, and how many have a `send_after` that is to come, the first of them when."""

    paused: int
    scheduled: int
    first_begins_at: datetime | None


@dataclass(frozen=True, slots=True)
class PausedJob:
    """A job that a person has paused: who, since when, why, and for how many recipients nothing is decided."""

    number: int
    id: UUID
    profile: str | None
    actor: str | None
    since: datetime | None
    reason: str | None
    unsettled: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UnknownFates:
    """Recipients who wait for a person to say what became of them; `id` is the newest of their jobs."""

    id: UUID
    unknown: int
    """Of that job."""
    jobs: int
    recipients: int
    """Of all these jobs."""


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


async def read_held_jobs(connection: Connection) -> HeldJobs:
    """Count the open jobs that are paused or not begun."""
    async with connection.cursor(row_factory=class_row(HeldJobs)) as cursor:
        await cursor.execute(_QUERIES["held_jobs"])
        held = await cursor.fetchone()
        assert held is not None, "a count has a row"
        return held


async def read_paused_jobs(connection: Connection, *, limit: int) -> list[PausedJob]:
    """Give the paused jobs, newest first."""
    async with connection.cursor(row_factory=class_row(PausedJob)) as cursor:
        await cursor.execute(_QUERIES["paused_jobs"], {"limit": limit})
        return await cursor.fetchall()


async def read_unknown_fates(connection: Connection) -> UnknownFates | None:
    """Give the recipients of the last `UNKNOWN_DAYS` whose fate a person has to settle; None where there are none."""
    async with connection.cursor(row_factory=class_row(UnknownFates)) as cursor:
        await cursor.execute(_QUERIES["jobs_with_unknown"], {"days": UNKNOWN_DAYS})
        return await cursor.fetchone()
