"""Writing a job's parts into the ledger: every function is one named query of `intake.sql`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.rows import class_row

from tocsin_schema.ledger.job_events import JobEvent, record_event
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("intake")


@dataclass(frozen=True, slots=True)
class ProfileForIntake:
    """What intake has to know of a sending profile."""

    id: UUID
    name: str
    from_address: str
    batch_size: int


@dataclass(frozen=True, slots=True)
class TemplateForIntake:
    """The newest version of a template."""

    id: UUID
    version: int
    subject: str
    text_body: str | None
    html_body: str | None
    from_name: str | None
    reply_to_address: str | None


@dataclass(frozen=True, slots=True)
class KnownJobId:
    """The number and the digest of the job that an id stands for. Not `is_kept`: it is being removed for its age."""

    job_number: int
    digest: bytes
    is_kept: bool


@dataclass(frozen=True, slots=True)
class NewJob:
    """A row of `jobs`. `expiry_hours` counts from the later of now and `send_after` where no `expires_at` is given.

    `published_at` is what its message told; a time that is still to come is not believed.
    """

    number: int
    id: UUID
    source: str | None
    key: str | None
    event: str | None
    correlation_id: str | None
    profile_id: UUID
    template_id: UUID | None
    template_version: int | None
    mode: str
    rank: int
    on_unknown: str
    send_after: datetime | None
    published_at: datetime | None
    expires_at: datetime | None
    expiry_hours: int


@dataclass(frozen=True, slots=True)
class MessageContent:
    """A row of `message_contents`: `rendered` for shared jobs, else the sources with their tags."""

    rendered: bool
    subject: str
    text_body: str | None
    html_body: str | None
    from_name: str | None
    reply_to: str | None
    visible_to: str | None
    headers: Mapping[str, str]
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobForPart:
    """What a further part has to know of its job."""

    is_over: bool
    """Finished, or its time is over."""
    has_ended: bool
    """Finished or cancelled."""
    last_part: int | None
    rank: int
    profile_id: UUID
    batch_size: int
    highest_part: int | None


class RecipientRow(NamedTuple):
    """A row of `recipients`; `data` is JSON text."""

    ordinal: int
    batch_number: int
    address: str
    name: str | None
    data: str | None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A row of `batches` as intake writes it: nothing sent, nothing in flight."""

    number: int
    first_ordinal: int
    size: int
    failed: int

    @property
    def state(self) -> str:
        """A batch of nothing but unusable addresses has nothing to do."""
        return "done" if self.failed == self.size else "due"


@dataclass(frozen=True, slots=True)
class UnusableRecipient:
    """A row of `recipient_exceptions` for an address that cannot be written to."""

    ordinal: int
    batch_number: int
    reason: str


async def claim_job_id(connection: Connection, job_id: UUID, digest: bytes) -> int | None:
    """Make the job's number if this id is new, else None."""
    cursor = await connection.execute(_QUERIES["claim_job_id"], {"id": job_id, "digest": digest})
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def read_job_id(connection: Connection, job_id: UUID) -> KnownJobId | None:
    """Give what a job's id is known for, and lock it to the end of the transaction; None where it is not known."""
    async with connection.cursor(row_factory=class_row(KnownJobId)) as cursor:
        return await (await cursor.execute(_QUERIES["read_job_id"], {"id": job_id})).fetchone()


async def forget_job_id(connection: Connection, job_id: UUID) -> None:
    """Let an id be used again."""
    await connection.execute(_QUERIES["forget_job_id"], {"id": job_id})


async def read_sending_profile(connection: Connection, name: str) -> ProfileForIntake | None:
    """Find a sending profile by name."""
    async with connection.cursor(row_factory=class_row(ProfileForIntake)) as cursor:
        return await (await cursor.execute(_QUERIES["read_sending_profile"], {"name": name})).fetchone()


async def read_template(connection: Connection, name: str) -> TemplateForIntake | None:
    """Find the newest version of a template by name."""
    async with connection.cursor(row_factory=class_row(TemplateForIntake)) as cursor:
        return await (await cursor.execute(_QUERIES["read_template"], {"name": name})).fetchone()


async def insert_job(connection: Connection, job: NewJob, content: MessageContent) -> None:
    """Write the job with what all its messages share."""
    await connection.execute(_QUERIES["insert_job"], asdict(job))
    await connection.execute(
        _QUERIES["insert_message_content"],
        {
            **asdict(content),
            "job_number": job.number,
            "headers": json.dumps(dict(content.headers)),
            "data": json.dumps(dict(content.data)),
        },
    )


async def lock_job(connection: Connection, job_number: int, *, alone: bool) -> None:
    """Keep a job from being closed to the end of the transaction; `alone`: and other parts from being written."""
    await wait_for_turn(connection, job_number, alone=alone)
    await connection.execute(_QUERIES["lock_job_alone" if alone else "lock_job_shared"], {"job_number": job_number})


async def wait_for_turn(connection: Connection, job_number: int, *, alone: bool) -> None:
    """Queue up for a job's row, which parts of it share: to the end of the transaction, or of the savepoint."""
    await connection.execute(
        _QUERIES["wait_for_turn_alone" if alone else "wait_for_turn_shared"], {"job_number": job_number}
    )


async def read_job_for_part(connection: Connection, job_number: int) -> JobForPart:
    """Read what a further part needs of its job."""
    async with connection.cursor(row_factory=class_row(JobForPart)) as cursor:
        job = await (await cursor.execute(_QUERIES["read_job_for_part"], {"job_number": job_number})).fetchone()
    if job is None:
        raise LookupError(job_number)
    return job


async def insert_part(
    connection: Connection, job_number: int, number: int, *, digest: bytes, recipients: int, duplicates: int
) -> bool:
    """Note a part; False where it was taken in before."""
    cursor = await connection.execute(
        _QUERIES["insert_part"],
        {
            "job_number": job_number,
            "number": number,
            "digest": digest,
            "recipients": recipients,
            "duplicates": duplicates,
        },
    )
    return await cursor.fetchone() is not None


async def read_part_digest(connection: Connection, job_number: int, number: int) -> bytes:
    """Give the digest of a part that was taken in before."""
    cursor = await connection.execute(_QUERIES["read_part_digest"], {"job_number": job_number, "number": number})
    row = await cursor.fetchone()
    if row is None:
        raise LookupError((job_number, number))
    return bytes(row[0])


async def copy_recipients(connection: Connection, job_number: int, recipients: Iterable[RecipientRow]) -> None:
    """Write the recipients of a part, once and for ever."""
    async with connection.cursor() as cursor, cursor.copy(_QUERIES["copy_recipients"]) as copy:
        for row in recipients:
            await copy.write_row((job_number, *row))


async def copy_batches(
    connection: Connection, job_number: int, batches: Iterable[BatchRow], *, due: bool, closed: bool
) -> None:
    """Write the batches of a part: due at once, or when the job's part 1 has come; `closed` where it stays ended."""
    due_at = "now" if due else "infinity"
    async with connection.cursor() as cursor, cursor.copy(_QUERIES["copy_batches"]) as copy:
        for row in batches:
            nothing = "0" * row.size
            await copy.write_row(
                (
                    job_number,
                    row.number,
                    row.first_ordinal,
                    row.size,
                    "done" if closed else row.state,
                    due_at,
                    nothing,
                    nothing,
                    row.failed,
                )
            )


async def copy_unusable_recipients(
    connection: Connection, job_number: int, unusable: Sequence[UnusableRecipient]
) -> None:
    """Write down why some recipients of a part have failed before they began."""
    if not unusable:
        return
    async with connection.cursor() as cursor, cursor.copy(_QUERIES["copy_recipient_exceptions"]) as copy:
        for row in unusable:
            await copy.write_row((job_number, row.ordinal, row.batch_number, "failed", 0, row.reason))


async def note_last_part(connection: Connection, job_number: int, last_part: int) -> None:
    """Write down which part is the job's last."""
    await connection.execute(_QUERIES["note_last_part"], {"job_number": job_number, "last_part": last_part})


async def end_receiving(connection: Connection, job_number: int) -> None:
    """Let the job run, if all its parts are here."""
    await connection.execute(_QUERIES["end_receiving"], {"job_number": job_number})


async def reopen_job(connection: Connection, job_number: int, *, expiry_hours: int) -> None:
    """Let a job go on that was closed before all its parts had come, with everybody who was not sent to yet.

    One that a person has paused stays so.
    """
    reopened = await connection.execute(
        _QUERIES["reopen_job"], {"job_number": job_number, "expiry_hours": expiry_hours}
    )
    if (row := await reopened.fetchone()) is None:
        return
    await connection.execute(_QUERIES["reopen_batches"], {"job_number": job_number})
    details = {"expires_at": row[0].isoformat()}
    await record_event(connection, job_number, JobEvent.REOPENED, actor=None, details=details)


async def release_early_batches(connection: Connection, job_number: int) -> None:
    """Make due what came before part 1."""
    await connection.execute(_QUERIES["release_early_batches"], {"job_number": job_number})


async def has_first_part(connection: Connection, job_number: int) -> bool:
    """Whether part 1, and with it the attachments, has been taken in."""
    row = await (await connection.execute(_QUERIES["has_first_part"], {"job_number": job_number})).fetchone()
    return row is not None and bool(row[0])
