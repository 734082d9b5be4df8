"""What state a job is in, as people see it: decided from its row, its profile and its mailbox.

The ledger stores `receiving`, `running`, `paused`, `cancelled` and `finished`. That a job is scheduled, or waits
for something, follows from other rows and from the time, and is stored nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tocsin_schema.ledger.mailbox_walk import Limit

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.job_reading import Job


class JobState(StrEnum):
    """Every state that a job is shown in."""

    RECEIVING = "receiving"
    """Not all parts have come; those that have are being sent, once part 1 is among them."""
    SCHEDULED = "scheduled"
    """Its `send_after` has not come."""
    RUNNING = "running"
    WAITING = "waiting"
    """Nothing can be sent just now; the reason says why and until when."""
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FINISHED = "finished"

    @property
    def is_open(self) -> bool:
        """Whether something may still be sent."""
        return self not in (JobState.CANCELLED, JobState.FINISHED)


class Hold(StrEnum):
    """What keeps a job that is neither paused nor ended from being sent."""

    FIRST_PART = "first part"
    """Its part 1 has not come."""
    SEND_AFTER = "send_after"
    HALT = "halt"
    """Nothing is sent, of any job."""
    PROFILE = "profile"
    """Its sending profile is paused."""
    MAILBOX = "mailbox"
    """Its mailbox rests, or only urgent jobs may use what is left of its day."""
    RETRIES = "retries"
    """What is left is tried again later."""
    WORKER = "worker"
    """No worker that sends is alive."""


@dataclass(frozen=True, slots=True)
class ShownState:
    """A job's state, why it is in it, and until when, where that is known."""

    state: JobState
    reason: str | None = None
    until: datetime | None = None
    hold: Hold | None = None


def stored_states(shown: JobState) -> tuple[str, ...]:
    """Name the stored states among which the jobs that are shown as `shown` are found."""
    match shown:
        case JobState.SCHEDULED | JobState.WAITING:
            return ("receiving", "running")
        case _:
            return (shown.value,)


def shown_state(job: Job, now: datetime) -> ShownState:
    """Say what a job's row means now.

    What keeps mail from going out comes first: it is what people look for. A job that still receives parts is
    shown as waiting too, if nothing of it can be sent; its parts are shown beside it. Without its part 1 it has
    not begun, and nothing else about it matters yet.
    """
    stored = JobState(job.state)
    if stored in (JobState.PAUSED, JobState.CANCELLED, JobState.FINISHED):
        return ShownState(stored, job.state_reason)
    if job.lacks_first_part:
        return ShownState(JobState.RECEIVING, "waits for part 1", hold=Hold.FIRST_PART)
    if job.send_after is not None and job.send_after > now:
        return ShownState(JobState.SCHEDULED, "send_after has not come", job.send_after, Hold.SEND_AFTER)
    return _obstacle(job, now) or ShownState(stored, job.state_reason)


def standing_hold(job: Job) -> Limit | None:
    """Say what keeps an open job back until somebody ends it, so that no time can be told; the widest first."""
    if job.halted_reason is not None:
        return Limit.HALTED
    if job.profile_is_paused or JobState(job.state) is JobState.PAUSED:
        return Limit.PAUSED
    if job.lacks_first_part:
        return Limit.NOT_BEGUN
    return None if job.has_senders or job.is_worked_on else Limit.NO_WORKER


def _obstacle(job: Job, now: datetime) -> ShownState | None:
    """Find what keeps a job that may run from running, the widest reason first."""
    if job.unsettled == 0:
        return None
    return _wide_obstacle(job, now) or (None if job.is_worked_on else _own_obstacle(job, now))


def _wide_obstacle(job: Job, now: datetime) -> ShownState | None:
    """Find what holds up other jobs too."""
    if job.halted_reason is not None:
        return ShownState(JobState.WAITING, f"all sending is halted: {job.halted_reason}", hold=Hold.HALT)
    if job.profile_is_paused:
        reason = f"the sending profile is paused: {job.paused_reason}"
        return ShownState(JobState.WAITING, reason, hold=Hold.PROFILE)
    if job.parked_until is not None and job.parked_until > now:
        reason = job.parked_reason or "its provider asked us to slow down"
        what = "only urgent jobs are sent" if job.is_kept_for_urgent else "the mailbox rests"
        return ShownState(JobState.WAITING, f"{what}: {reason}", job.parked_until, Hold.MAILBOX)
    return None


def _own_obstacle(job: Job, now: datetime) -> ShownState | None:
    """Find why nobody works on the job."""
    if job.next_due_at is not None and job.next_due_at > now:
        return ShownState(JobState.WAITING, "what is left is tried again later", job.next_due_at, Hold.RETRIES)
    if not job.has_senders:
        reason = "waiting for a worker: none that sends is running; start `tocsin up` or `tocsin worker`"
        return ShownState(JobState.WAITING, reason, hold=Hold.WORKER)
    return None
