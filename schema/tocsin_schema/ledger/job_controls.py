"""Cancelling, pausing and resuming jobs, by whom and when. Queries of `job_controls.sql`.

One row says it, however many recipients the job has: senders look at it before every mark. What is under way then
finishes, and nothing new begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.intake import wait_for_turn
from tocsin_schema.ledger.job_events import JobEvent, record_event
from tocsin_schema.ledger.job_reading import no_such_job
from tocsin_schema.ledger.job_states import JobState
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.actors import Actor
    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("job_controls")


@dataclass(frozen=True, slots=True)
class LockedJob:
    """A job's row, which nobody else changes before the transaction ends. `state` is the stored one."""

    number: int
    id: UUID
    state: str
    state_reason: str | None
    expires_at: datetime
    read_at: datetime

    @property
    def time_is_over(self) -> bool:
        """Whether it has expired, be it that the sweeper has not yet closed it."""
        return self.expires_at <= self.read_at


@dataclass(frozen=True, slots=True)
class RecipientCounts:
    """How many of a job's recipients are in which state; the `unsettled` of an ended job will never be sent to."""

    sent: int
    in_flight: int
    failed: int
    unknown: int
    unsettled: int


@dataclass(frozen=True, slots=True)
class Controlled:
    """A job as a control left it. `changed` is False where it was so already."""

    job: LockedJob
    changed: bool
    counts: RecipientCounts


async def cancel_job(connection: Connection, number: int, *, actor: Actor, reason: str | None) -> Controlled:
    """Send nothing more of a job, for good. Raises UsageError where it is finished.

    The counts are those of the moment: who is `unsettled` will not be sent to, who is in flight may still be.
    """
    async with connection.transaction():
        job = await lock_job(connection, number)
        counts = await count_recipients(connection, number)
        changed = may_cancel(job)
        if changed:
            await _change(connection, "cancel_job", job, reason=told(JobState.CANCELLED, actor, reason))
            details = _details(reason, sent=counts.sent, in_flight=counts.in_flight, not_sent=counts.unsettled)
            await record_event(connection, number, JobEvent.CANCELLED, actor=actor, details=details)
        return Controlled(await lock_job(connection, number), changed, counts)


async def pause_job(connection: Connection, number: int, *, actor: Actor, reason: str | None) -> Controlled:
    """Begin nothing new of a job until it is resumed. Raises UsageError where it has ended.

    Parts still come in; and its time goes on, so that it may expire while it is paused.
    """
    async with connection.transaction():
        job = await lock_job(connection, number)
        changed = may_pause(job)
        if changed:
            await _change(connection, "pause_job", job, reason=told(JobState.PAUSED, actor, reason))
            await record_event(connection, number, JobEvent.PAUSED, actor=actor, details=_details(reason))
        return Controlled(await lock_job(connection, number), changed, await count_recipients(connection, number))


async def resume_job(connection: Connection, number: int, *, actor: Actor, reason: str | None = None) -> Controlled:
    """Let a paused job go on where it was. Raises UsageError where it has ended."""
    async with connection.transaction():
        job = await lock_job(connection, number)
        changed = may_resume(job)
        if changed:
            await _change(connection, "resume_job", job)
            await record_event(connection, number, JobEvent.RESUMED, actor=actor, details=_details(reason))
        return Controlled(await lock_job(connection, number), changed, await count_recipients(connection, number))


def may_cancel(job: LockedJob) -> bool:
    """Whether there is something to cancel; False where it was cancelled before. Raises UsageError."""
    if job.state == JobState.FINISHED:
        raise UsageError(
            f"Job {job.id} is finished: there is nothing left to cancel.",
            fix=f"See `tocsin job show {job.id}`.",
            scope=Scope.JOB,
        )
    return job.state != JobState.CANCELLED


def may_pause(job: LockedJob) -> bool:
    """Whether the job can be paused; False where it is. Raises UsageError."""
    if job.state == JobState.PAUSED:
        return False
    _refuse_ended(job, "paused")
    return True


def may_resume(job: LockedJob) -> bool:
    """Whether the job can be resumed; False where it is not paused. Raises UsageError."""
    _refuse_ended(job, "resumed")
    return job.state == JobState.PAUSED


def told(state: JobState, actor: Actor, reason: str | None) -> str:
    """Say who brought a job into a state, and why, as people are shown it."""
    return f"{state.value} by {actor.name}" + (f": {reason}" if reason else "")


async def lock_job(connection: Connection, number: int) -> LockedJob:
    """Read a job and lock it to the end of the transaction. Raises UsageError where there is none."""
    await wait_for_turn(connection, number, alone=True)
    async with connection.cursor(row_factory=class_row(LockedJob)) as cursor:
        job = await (await cursor.execute(_QUERIES["lock_job"], {"job_number": number})).fetchone()
    if job is None:
        raise no_such_job(str(number))
    return job


async def count_recipients(connection: Connection, number: int) -> RecipientCounts:
    """Count a job's recipients."""
    async with connection.cursor(row_factory=class_row(RecipientCounts)) as cursor:
        counts = await (await cursor.execute(_QUERIES["count_recipients"], {"job_number": number})).fetchone()
    assert counts is not None
    return counts


async def open_again(connection: Connection, job: LockedJob) -> bool:
    """Let a finished job go on, whose time is not over; False where it is not finished."""
    return await _update(connection, "open_again", job) == 1


async def set_expiry(connection: Connection, job: LockedJob, expires_at: datetime) -> None:
    """Give a job another end of its time."""
    await _change(connection, "set_expiry", job, expires_at=expires_at)


def _refuse_ended(job: LockedJob, done: str) -> None:
    ended = job.state in (JobState.FINISHED, JobState.CANCELLED)
    if ended or job.time_is_over:
        what = f"is {job.state}" if ended else "has expired"
        raise UsageError(
            f"Job {job.id} {what}, and cannot be {done}.", fix=f"See `tocsin job show {job.id}`.", scope=Scope.JOB
        )


def _details(reason: str | None, **counts: int) -> Mapping[str, object]:
    return {**({"reason": reason} if reason else {}), **counts}


async def _change(connection: Connection, query: str, job: LockedJob, **parameters: object) -> None:
    """Change the row that we have locked and looked at: anything but one row changed is a defect of ours."""
    if await _update(connection, query, job, **parameters) != 1:
        raise AssertionError(f"{query}: job {job.number} is {job.state}")


async def _update(connection: Connection, query: str, job: LockedJob, **parameters: object) -> int:
    return (await connection.execute(_QUERIES[query], {"job_number": job.number, **parameters})).rowcount
