"""Taking a part in: from its bytes to committed rows. Taking the same part in twice changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from psycopg import Rollback

from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.digest import job_digest, part_digest
from tocsin_schema.contract.identity import job_id
from tocsin_schema.contract.part import Priority
from tocsin_schema.contract.validation import decode_part
from tocsin_schema.errors import ContractError
from tocsin_schema.ledger import intake
from tocsin_schema.ledger.attachments import StoredAttachment, insert_attachments
from tocsin_schema.ledger.installation_settings import read_in_force
from tocsin_workers.intake.content import content_of
from tocsin_workers.intake.planning import plan_rows

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.contract.part import JobPart
    from tocsin_schema.contract.recipient_list import ValidPart
    from tocsin_schema.ledger.connection import Connection, Pool
    from tocsin_schema.ledger.installation_settings import InstallationSettings


class Result(StrEnum):
    """What became of a part."""

    TAKEN = "taken"
    REPEATED = "repeated"
    """It was taken in before: nothing has changed."""


@dataclass(frozen=True, slots=True)
class TakenPart:
    """A part that is in the ledger, and whose senders are to be woken."""

    result: Result
    job_id: UUID
    job_number: int
    is_new_job: bool
    mode: str
    profile_id: UUID
    rank: int
    recipients: int
    rejected: int
    duplicates: int


async def take_in(pool: Pool, body: bytes, *, published_at: datetime | None = None) -> TakenPart:
    """Validate a part and write it down in one transaction. `published_at` is when it was published, where it is known.

    Raises ContractError where it is refused, and psycopg's errors where the ledger is away; then nothing is written.
    """
    valid = decode_part(body)
    async with pool.connection() as connection:
        number, is_new = await _open_job(connection, valid, published_at)
        job = await _look_at_job(connection, number, valid.part)
        _refuse_beyond_the_last(valid.part, job)
        rows = plan_rows(valid, job.batch_size)
        result = await _note_part(connection, number, valid, len(rows.recipients))
        if result is Result.TAKEN:
            # A time that the caller has set is kept: mail that comes after it is stale.
            goes_on = job.is_over and valid.part.expires_at is None
            if goes_on:
                hours = expiry_hours(valid.part.priority, await read_in_force(connection))
                await intake.reopen_job(connection, number, expiry_hours=hours)
            await insert_attachments(connection, number, _attachments(valid.part))
            due = valid.part.part.number == 1 or await intake.has_first_part(connection, number)
            await intake.copy_recipients(connection, number, rows.recipients)
            await intake.copy_unusable_recipients(connection, number, rows.unusable)
            await intake.copy_batches(connection, number, rows.batches, due=due, closed=job.has_ended and not goes_on)
            await _note_position(connection, number, valid.part)
    return TakenPart(
        result=result,
        job_id=job_id(valid.part),
        job_number=number,
        is_new_job=is_new,
        mode=valid.part.mode,
        profile_id=job.profile_id,
        rank=job.rank,
        recipients=len(rows.recipients),
        rejected=len(rows.unusable),
        duplicates=valid.duplicates,
    )


async def _open_job(connection: Connection, valid: ValidPart, published_at: datetime | None) -> tuple[int, bool]:
    """Give the job's number, and whether this part is the first that came of it."""
    part = valid.part
    digest = job_digest(part)
    number = await intake.claim_job_id(connection, job_id(part), digest)
    if number is None:
        known = await intake.read_job_id(connection, job_id(part))
        if known is None or not known.is_kept:
            # Its job is just being removed for its age.
            await intake.forget_job_id(connection, job_id(part))
            return await _open_job(connection, valid, published_at)
        if known.digest != digest:
            raise ContractError(
                ContractCode.OTHER_CONTENT,
                f"Job {job_id(part)} is known already, with other content.",
                field="id",
                fix="Give a new notification a new id or key.",
            )
        return known.job_number, False
    await _insert_job(connection, number, valid, published_at)
    return number, True


async def _look_at_job(connection: Connection, number: int, part: JobPart) -> intake.JobForPart:
    """Read the job, and lock it to the end of the transaction.

    Parts in the middle of a job are written side by side. The first one, which makes due what came before it, and those
    that may be the last to come have to see all others: they are written alone.
    """
    if part.part.number != 1 and not part.part.last:
        async with connection.transaction() as looking:
            await intake.lock_job(connection, number, alone=False)
            job = await intake.read_job_for_part(connection, number)
            if job.last_part is None and not job.is_over:
                return job
            # A lock cannot be made stronger without a deadlock: two may try.
            raise Rollback(looking)
    await intake.lock_job(connection, number, alone=True)
    return await intake.read_job_for_part(connection, number)


async def _insert_job(connection: Connection, number: int, valid: ValidPart, published_at: datetime | None) -> None:
    part = valid.part
    profile = await intake.read_sending_profile(connection, part.profile)
    if profile is None:
        raise ContractError(
            ContractCode.UNKNOWN_PROFILE,
            f"There is no sending profile {part.profile!r}.",
            field="profile",
            fix="Make it with `tocsin profile add`, then put the dead letter back.",
        )
    template = None if part.template is None else await intake.read_template(connection, part.template)
    if part.template is not None and template is None:
        raise ContractError(
            ContractCode.UNKNOWN_TEMPLATE,
            f"There is no template {part.template!r}.",
            field="template",
            fix="Make it with `tocsin template add`, then put the dead letter back.",
        )
    job = intake.NewJob(
        number=number,
        id=job_id(part),
        source=part.source,
        key=part.key,
        event=part.event,
        correlation_id=part.correlation_id,
        profile_id=profile.id,
        template_id=None if template is None else template.id,
        template_version=None if template is None else template.version,
        mode=part.mode,
        rank=part.priority.rank,
        on_unknown=part.on_unknown,
        send_after=part.send_after,
        published_at=published_at,
        expires_at=part.expires_at,
        expiry_hours=expiry_hours(part.priority, await read_in_force(connection)),
    )
    await intake.insert_job(connection, job, content_of(valid, template, profile.from_address))


def expiry_hours(priority: Priority, settings: InstallationSettings) -> int:
    """Give the hours after which a job without `expires_at` is given up."""
    match priority:
        case Priority.URGENT:
            return settings.urgent_expiry_hours
        case Priority.NORMAL:
            return settings.normal_expiry_hours
        case Priority.BULK:
            return settings.bulk_expiry_hours


async def _note_part(connection: Connection, number: int, valid: ValidPart, recipients: int) -> Result:
    digest = part_digest(valid.part)
    position = valid.part.part
    is_new = await intake.insert_part(
        connection, number, position.number, digest=digest, recipients=recipients, duplicates=valid.duplicates
    )
    if is_new:
        return Result.TAKEN
    if await intake.read_part_digest(connection, number, position.number) != digest:
        raise ContractError(
            ContractCode.OTHER_CONTENT,
            f"Part {position.number} of job {job_id(valid.part)} is known already, with other content.",
            field="part",
            fix="Give each part of a job a number of its own.",
        )
    return Result.REPEATED


async def _note_position(connection: Connection, number: int, part: JobPart) -> None:
    if part.part.number == 1:
        await intake.release_early_batches(connection, number)
    if part.part.last:
        await intake.note_last_part(connection, number, part.part.number)
    await intake.end_receiving(connection, number)


def _refuse_beyond_the_last(part: JobPart, job: intake.JobForPart) -> None:
    """Refuse a part after the last one: nobody would have waited for it, so one of the two is wrong."""
    position = part.part
    last = position.number if position.last else job.last_part
    highest = max(position.number, job.highest_part or 0)
    if (last is not None and highest > last) or (position.last and job.last_part not in (None, position.number)):
        raise ContractError(
            ContractCode.OTHER_CONTENT,
            f"Part {position.number} does not fit: part {job.last_part or last} is the last, part {highest} exists.",
            field="part",
            fix="Mark only the part with the highest number as last.",
        )


def _attachments(part: JobPart) -> list[StoredAttachment]:
    return [StoredAttachment(one.filename, one.content_type, one.content) for one in part.attachments]
