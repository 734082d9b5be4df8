"""What a job comes to on its mailbox, and when it would be through if it were published now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from tocsin_console.reading.estimate_words import clock, estimate_as_json, estimate_line, paused_profile
from tocsin_schema.contract.part import Mode
from tocsin_schema.ledger.estimates import Outlook, PlannedJob, read_new_job_outlook
from tocsin_schema.ledger.installation_settings import read_in_force
from tocsin_schema.ledger.mailbox_walk import Limit
from tocsin_schema.ledger.sending_halt import read_halt
from tocsin_schema.ledger.sending_profiles import read_profile
from tocsin_schema.ledger.status import read_workers
from tocsin_workers.intake.taking import expiry_hours

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_console.sending.plan import JobPlan
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.intake import ProfileForIntake


@dataclass(frozen=True, slots=True)
class Forecast:
    """A job's messages, when it would be through, and when it is given up."""

    messages: int
    outlook: Outlook
    expires_at: datetime
    profile: str

    @property
    def line(self) -> str | None:
        """When it would be through, for people; None where there is nobody to send to."""
        return estimate_line(self.outlook, expires_at=self.expires_at, paused=paused_profile(self.profile))

    @property
    def warning(self) -> str | None:
        """What to tell where it would not be through in time; None where it would, or nobody can know."""
        estimate = self.outlook.estimate
        if estimate is None or not estimate.is_after(self.expires_at):
            return None
        return (
            f"Warning: as things stand the job will be through {self._when}. It expires at"
            f" {clock(self.expires_at, self.outlook.mailbox.read_at)}, and whoever was not sent to by then is given up."
            " Give a later --expires-at, or send to fewer."
        )

    @property
    def _when(self) -> str | None:
        return estimate_line(self.outlook, paused=paused_profile(self.profile))

    def as_json(self) -> dict[str, object]:
        """Give it for programs."""
        paused = paused_profile(self.profile)
        estimate = estimate_as_json(self.outlook, expires_at=self.expires_at, paused=paused)
        return {"messages": self.messages, "estimate": estimate}


async def foresee(connection: Connection, plan: JobPlan, profile: ProfileForIntake) -> Forecast | None:
    """Reckon what the ledger's budget and backlog mean for a job; None where the profile was just removed."""
    part = plan.first.part
    job = PlannedJob(
        rank=part.priority.rank,
        recipients=plan.recipients - plan.invalid,
        batch_size=profile.batch_size if part.mode is Mode.SHARED else None,
        begins_at=part.send_after,
    )
    found = await read_new_job_outlook(connection, profile.id, job, hold=await _hold(connection, profile))
    if found is None:
        return None
    messages, outlook = found
    now = outlook.mailbox.read_at
    lasts = timedelta(hours=expiry_hours(part.priority, await read_in_force(connection)))
    return Forecast(messages, outlook, part.expires_at or max(now, part.send_after or now) + lasts, profile.name)


async def _hold(connection: Connection, profile: ProfileForIntake) -> Limit | None:
    """Say what would keep the job back until somebody ends it."""
    if await read_halt(connection) is not None:
        return Limit.HALTED
    if (await read_profile(connection, profile.name)).paused_at is not None:
        return Limit.PAUSED
    has_senders = any(one.role in {"sender", "all"} for one in await read_workers(connection))
    return None if has_senders else Limit.NO_WORKER
