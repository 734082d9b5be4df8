"""Jobs that will soon be given up, and what holds them up. Queries of `expiring.sql`.

A job "expires soon" when less of its life is left than a tenth of it, or an hour, whichever is more; but a short life
is warned of at its half, and no life more than a day ahead. So with the usual expiry: urgent (6 h) an hour before,
normal (3 d) 7.2 hours, bulk (7 d) 16.8 hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("expiring")


@dataclass(frozen=True, slots=True)
class ExpiringJob:
    """An open job whose time is nearly over, with what could hold it up, as read at `read_at`.

    `unsettled` counts the recipients of whom nothing is decided; those in flight are among them. Of urgent jobs
    `kept_for_urgent_until` is never set.
    """

    number: int
    id: UUID
    profile: str | None
    state: str
    state_reason: str | None
    expires_at: datetime
    unsettled: int
    next_due_at: datetime | None
    is_worked_on: bool
    paused_reason: str | None
    parked_until: datetime | None
    parked_reason: str | None
    kept_for_urgent_until: datetime | None
    kept_for_urgent_reason: str | None
    halted_reason: str | None
    read_at: datetime


async def read_expiring_jobs(connection: Connection, *, only_untold: bool, limit: int) -> list[ExpiringJob]:
    """Read jobs that expire soon, the first to expire first; `only_untold`: those without an event that says so."""
    async with connection.cursor(row_factory=class_row(ExpiringJob)) as cursor:
        await cursor.execute(_QUERIES["expiring_jobs"], {"only_untold": only_untold, "limit": limit})
        return await cursor.fetchall()


def holds(job: ExpiringJob) -> list[str]:
    """Say what keeps a job from being done in time, the widest reason first; never nothing."""
    found: list[str] = []
    if job.halted_reason is not None:
        found.append(f"all sending is halted: {job.halted_reason}")
    if job.paused_reason is not None:
        found.append(f"the sending profile is paused: {job.paused_reason}")
    if job.parked_until is not None:
        why = job.parked_reason or "its provider asked us to slow down"
        found.append(f"the mailbox rests until {_moment(job.parked_until)}: {why}")
    if job.kept_for_urgent_until is not None and not _ends_by(job.kept_for_urgent_until, job.parked_until):
        why = job.kept_for_urgent_reason or "the rest of its day is kept for them"
        found.append(f"the mailbox is for urgent jobs only until {_moment(job.kept_for_urgent_until)}: {why}")
    if job.state == "paused":
        found.append("the job is paused" if job.state_reason is None else f"the job is paused: {job.state_reason}")
    if job.state == "receiving":
        found.append("its last part has not come")
    if not found and not job.is_worked_on and job.next_due_at is not None and job.next_due_at > job.read_at:
        found.append(f"what is left is tried again at {_moment(job.next_due_at)}")
    return found or ["more is to be sent than gets through in time"]


def _ends_by(moment: datetime, other: datetime | None) -> bool:
    return other is not None and moment <= other


def _moment(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")
