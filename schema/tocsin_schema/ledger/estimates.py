"""What mailboxes may use, what lies before them, and when it will be through. Queries of `estimates.sql`.

The reckoning is `estimating`'s; here its figures are read. Reading changes nothing and locks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.day_quota import DayQuota, Used, room
from tocsin_schema.ledger.estimating import URGENT_RANK, Estimate, Work, estimate_backlog, estimate_job
from tocsin_schema.ledger.mailbox_walk import Budget, Limit, RollingDay, UsedMinute
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("estimates")


@dataclass(frozen=True, slots=True)
class MailboxBudget:
    """A mailbox's row of the view `mailbox_budgets`, with the names of the profiles that share it, at `read_at`.

    `connections` and `messages_per_minute` are in force, `…_set` what a person or a provider's default set;
    `…_lowered_at` and `…_reason` tell of a limit that was learned. `seen_per_minute` is its speed in the last minute,
    None where it sent nothing.
    """

    id: int
    host: str
    login: str
    profiles: list[str]
    connections: int | None
    connections_set: int | None
    connections_lowered_at: datetime | None
    connections_reason: str | None
    connections_open: int
    messages_per_minute: float | None
    per_minute_set: int | None
    per_minute_lowered_at: datetime | None
    per_minute_reason: str | None
    recipients_per_message: int | None
    recipients_per_day: int | None
    recipients_of_the_day: int
    urgent_of_the_day: int
    share_for_urgent: int | None
    frees_at: datetime | None
    tenant: str | None
    tenant_recipients_per_day: int | None
    tenant_recipients_of_the_day: int
    tenant_urgent_of_the_day: int
    tenant_share_for_urgent: int | None
    tenant_frees_at: datetime | None
    parked_until: datetime | None
    parked_reason: str | None
    kept_for_urgent_until: datetime | None
    kept_for_urgent_reason: str | None
    messages_last_minute: int
    recipients_last_minute: int
    seen_per_minute: float | None
    read_at: datetime

    @property
    def most_in_a_message(self) -> int | None:
        """How many recipients a shared message may have, as the senders cut it; None where only the batch size counts.

        Of a day only what is not kept for urgent jobs: a larger one would never fit.
        """
        caps = (
            self.recipients_per_message,
            _not_kept(self.recipients_per_day, self.share_for_urgent),
            _not_kept(self.tenant_recipients_per_day, self.tenant_share_for_urgent),
        )
        return min((cap for cap in caps if cap is not None), default=None)

    def left_of_the_day(self, *, is_urgent: bool) -> tuple[Limit, int, int] | None:
        """Give the tighter day, how many recipients are left of it, and its limit; None where none is set."""
        days = [
            (limit, room(DayQuota(most, kept or 0), Used(used, urgent), is_urgent=is_urgent), most)
            for limit, most, kept, used, urgent in (
                (
                    Limit.DAY, self.recipients_per_day, self.share_for_urgent,
                    self.recipients_of_the_day, self.urgent_of_the_day,
                ),
                (
                    Limit.TENANT, self.tenant_recipients_per_day, self.tenant_share_for_urgent,
                    self.tenant_recipients_of_the_day, self.tenant_urgent_of_the_day,
                ),
            )
            if most is not None
        ]  # fmt: skip
        return min(days, key=lambda day: day[1], default=None)


@dataclass(frozen=True, slots=True)
class Outlook:
    """A mailbox and what can be said of when its work, or a job of it, will be through; None: there is no work."""

    mailbox: MailboxBudget
    backlog: int
    """Recipients that are left of the mailbox's jobs; those of paused jobs and profiles are not among them."""
    estimate: Estimate | None
    is_urgent: bool = False
    """Whether it is the estimate of an urgent job: it may use what is kept of a day."""


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job that is yet to be published; `batch_size` is how many share a message, None in individual mode."""

    rank: int
    recipients: int
    batch_size: int | None
    begins_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _OpenWork:
    """What is left of a job."""

    mailbox_id: int
    job_number: int
    rank: int
    recipients: int
    messages: int
    begins_at: datetime | None
    deferred: int
    deferred_until: datetime | None

    @property
    def work(self) -> Work:
        return Work(self.rank, self.recipients, self.messages, self.begins_at, self.deferred, self.deferred_until)


async def read_outlooks(connection: Connection, *, hold: Limit | None) -> list[Outlook]:
    """Give every mailbox that a profile uses, and when its backlog will be through.

    `hold` keeps all of them back: all sending is halted, or no worker that sends is alive.
    """
    mailboxes = await _read_mailboxes(connection)
    works = await _read_works(connection, mailboxes, job_number=None)
    busy = [mailbox for mailbox in mailboxes if any(work.mailbox_id == mailbox.id for work in works)]
    budgets = await _read_budgets(connection, busy)
    found: list[Outlook] = []
    for mailbox in mailboxes:
        own = [work.work for work in works if work.mailbox_id == mailbox.id]
        estimate = estimate_backlog(own, budgets[mailbox.id], now=mailbox.read_at, hold=hold) if own else None
        found.append(Outlook(mailbox, sum(work.recipients for work in own), estimate))
    return found


async def read_job_outlook(connection: Connection, job_number: int, *, hold: Limit | None) -> Outlook | None:
    """Give a job's mailbox, and when the job will be through; None where its profile is removed or nothing is left.

    `hold` keeps the job back until a person ends it (`job_states.standing_hold`).
    """
    mailbox = await _read_mailbox(connection, job_number=job_number)
    if mailbox is None:
        return None
    works = await _read_works(connection, [mailbox], job_number=job_number)
    own = next((work for work in works if work.job_number == job_number), None)
    if own is None:
        return None
    others = [work.work for work in works if work is not own]
    budget = (await _read_budgets(connection, [mailbox]))[mailbox.id]
    last = await (await connection.execute(_QUERIES["last_retry"], {"job_number": job_number})).fetchone()
    last_retry = own.deferred_until if last is None or last[0] is None else last[0]
    estimate = estimate_job(
        replace(own.work, deferred_until=last_retry), others, budget, now=mailbox.read_at, hold=hold
    )
    return Outlook(mailbox, sum(work.recipients for work in works), estimate, is_urgent=own.rank == URGENT_RANK)


async def read_new_job_outlook(
    connection: Connection, profile_id: UUID, job: PlannedJob, *, hold: Limit | None
) -> tuple[int, Outlook] | None:
    """Give how many messages a new job comes to, and when it would be through if it were published now.

    None where there is no such profile.
    """
    mailbox = await _read_mailbox(connection, profile_id=profile_id)
    if mailbox is None:
        return None
    messages = messages_of(job.recipients, job.batch_size, mailbox.most_in_a_message)
    works = await _read_works(connection, [mailbox], job_number=None)
    backlog = sum(work.recipients for work in works)
    if not job.recipients:
        return messages, Outlook(mailbox, backlog, None)
    own = Work(job.rank, job.recipients, messages, job.begins_at)
    budget = (await _read_budgets(connection, [mailbox]))[mailbox.id]
    estimate = estimate_job(own, [work.work for work in works], budget, now=mailbox.read_at, hold=hold)
    return messages, Outlook(mailbox, backlog, estimate, is_urgent=job.rank == URGENT_RANK)


async def read_mailboxes(connection: Connection, *, profile_id: UUID | None = None) -> list[MailboxBudget]:
    """Give what every mailbox that a profile uses may use and has used, or only that of one profile."""
    return await _read_mailboxes(connection, profile_id=profile_id)


def messages_of(recipients: int, batch_size: int | None, most_in_a_message: int | None) -> int:
    """Count the messages of a new job: whole batches and a rest, each cut where a message holds fewer.

    >>> messages_of(120, 50, 30)
    5
    """
    if batch_size is None:
        return recipients
    batches, rest = divmod(recipients, batch_size)
    most = most_in_a_message or batch_size
    return batches * -(-batch_size // most) + -(-rest // most)


async def _read_mailboxes(
    connection: Connection, *, profile_id: UUID | None = None, job_number: int | None = None
) -> list[MailboxBudget]:
    async with connection.cursor(row_factory=class_row(MailboxBudget)) as cursor:
        await cursor.execute(_QUERIES["mailboxes"], {"profile_id": profile_id, "job_number": job_number})
        return await cursor.fetchall()


async def _read_mailbox(
    connection: Connection, *, profile_id: UUID | None = None, job_number: int | None = None
) -> MailboxBudget | None:
    found = await _read_mailboxes(connection, profile_id=profile_id, job_number=job_number)
    return found[0] if found else None


async def _read_works(
    connection: Connection, mailboxes: Sequence[MailboxBudget], *, job_number: int | None
) -> list[_OpenWork]:
    async with connection.cursor(row_factory=class_row(_OpenWork)) as cursor:
        await cursor.execute(
            _QUERIES["open_work"],
            {
                "mailbox_ids": [mailbox.id for mailbox in mailboxes],
                "most_in_a_message": [mailbox.most_in_a_message for mailbox in mailboxes],
                "job_number": job_number,
            },
        )
        return await cursor.fetchall()


async def _read_budgets(connection: Connection, mailboxes: Sequence[MailboxBudget]) -> dict[int, Budget]:
    """Read what the rolling 24 hours hold of these mailboxes, and give all that they may use."""
    limited = [mailbox.id for mailbox in mailboxes if mailbox.recipients_per_day is not None]
    of_tenants = [mailbox.id for mailbox in mailboxes if mailbox.tenant_recipients_per_day is not None]
    used = await _read_used(connection, "used_minutes", limited)
    used_of_tenants = await _read_used(connection, "used_minutes_of_tenants", of_tenants)
    parts = await _read_external_parts(connection, of_tenants)
    return {
        mailbox.id: budget_of(
            mailbox, used.get(mailbox.id, ()), used_of_tenants.get(mailbox.id, ()), parts.get(mailbox.id, 1.0)
        )
        for mailbox in mailboxes
    }


def budget_of(
    mailbox: MailboxBudget,
    used: Sequence[UsedMinute],
    used_of_tenant: Sequence[UsedMinute],
    external_part: float,
) -> Budget:
    """Put together what a mailbox may use."""
    days: list[RollingDay] = []
    if mailbox.recipients_per_day is not None:
        days.append(RollingDay(mailbox.recipients_per_day, mailbox.share_for_urgent or 0, used))
    if mailbox.tenant_recipients_per_day is not None:
        kept = mailbox.tenant_share_for_urgent or 0
        days.append(
            RollingDay(mailbox.tenant_recipients_per_day, kept, used_of_tenant, Limit.TENANT, part=external_part)
        )
    return Budget(
        messages_per_minute=mailbox.messages_per_minute,
        seen_per_minute=mailbox.seen_per_minute,
        days=days,
        parked_until=mailbox.parked_until,
        kept_for_urgent_until=mailbox.kept_for_urgent_until,
    )


def _not_kept(limit: int | None, share: int | None) -> int | None:
    return None if limit is None else max(1, limit - (share or 0))


async def _read_used(connection: Connection, query: str, mailbox_ids: Sequence[int]) -> dict[int, list[UsedMinute]]:
    found: dict[int, list[UsedMinute]] = {}
    if mailbox_ids:
        cursor = await connection.execute(_QUERIES[query], {"mailbox_ids": list(mailbox_ids)})
        for mailbox_id, *rest in await cursor.fetchall():
            found.setdefault(int(mailbox_id), []).append(UsedMinute(*rest))
    return found


async def _read_external_parts(connection: Connection, mailbox_ids: Sequence[int]) -> dict[int, float]:
    if not mailbox_ids:
        return {}
    cursor = await connection.execute(_QUERIES["external_parts"], {"mailbox_ids": list(mailbox_ids)})
    return {int(mailbox_id): float(part) for mailbox_id, part in await cursor.fetchall()}
