"""What a sender does with batches: every function is one named query of `sending.sql`.

Masks are Python integers here and bit strings in the ledger; bit i of a mask is the batch's recipient
`first_ordinal + i`, counted from the left of the bit string.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("sending")


@dataclass(frozen=True, slots=True)
class SenderProfile:
    """A sending profile with its mailbox's limits, as a slice reads it. No clear secret is in it."""

    id: UUID
    name: str
    host: str
    port: int
    tls: str
    auth: str
    from_address: str
    oauth_profile_id: UUID | None
    login: str
    sealed_password: bytes | None
    ca_pem: str | None
    allow_plaintext_auth: bool
    batch_size: int
    copies: str
    mailbox_id: int
    updated_at: datetime
    paused_reason: str | None
    connections: int | None
    messages_per_minute: int | None
    parked_until: datetime | None
    parked_reason: str | None


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch that this worker has leased; `lease_epoch` fences whoever had it before."""

    job_number: int
    number: int
    first_ordinal: int
    size: int
    lease_epoch: int
    sent: str

    def is_sent(self, index: int) -> bool:
        """Whether recipient `first_ordinal + index` was accepted before."""
        return self.sent[index] == "1"


@dataclass(frozen=True, slots=True)
class ClaimedRecipient:
    """A recipient of a claimed batch. `data` is what the caller sent of their own."""

    job_number: int
    batch_number: int
    ordinal: int
    address: str
    name: str | None
    data: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ClaimedException:
    """What is already known of a recipient whose way was not straight. A `pending` one has a due time."""

    job_number: int
    ordinal: int
    batch_number: int
    state: str
    attempts: int
    due_in_seconds: float | None
    alone: bool


@dataclass(frozen=True, slots=True)
class JobContent:
    """What all messages of a job share; never changes once the job is taken in."""

    number: int
    id: UUID
    mode: str
    on_unknown: str
    expires_at: datetime
    rank: int
    rendered: bool
    subject: str
    text_body: str | None
    html_body: str | None
    from_name: str | None
    reply_to: str | None
    visible_to: str | None
    headers: dict[str, str]
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredAttachment:
    """An attachment, stored once a job."""

    filename: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a batch row learns: which recipients were `sent`, and which are `settled` (no longer in flight).

    `lease_epoch` is that of the claim under which they were marked.
    """

    job_number: int
    batch_number: int
    lease_epoch: int
    size: int
    sent: int
    settled: int


@dataclass(frozen=True, slots=True)
class RecordedException:
    """A recipient that was deferred (`pending`, due in some seconds), failed, or is of unknown fate.

    `attempts` is how many tries there were so far.
    """

    job_number: int
    ordinal: int
    batch_number: int
    lease_epoch: int
    state: str
    attempts: int
    due_in_seconds: float | None
    phase: str | None
    code: int | None
    enhanced_code: str | None
    reply: str | None
    reason: str
    alone: bool = False


@dataclass(frozen=True, slots=True)
class CopyRow:
    """A row of `email_copies`: one message that the provider accepted."""

    job_number: int
    batch_number: int
    lease_epoch: int
    size_of_batch: int
    recipients: int
    profile: str
    from_address: str
    reply_to: str | None
    visible_to: str
    subject: str
    message_id: str
    provider_id: str | None
    dated_at: datetime
    accepted_at: datetime
    reply_code: int
    enhanced_code: str | None
    reply: str
    size: int
    sha256: bytes
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Release:
    """A lease given back; what is left of the batch is due again in some seconds."""

    job_number: int
    batch_number: int
    lease_epoch: int
    due_in_seconds: float


def bit_string(mask: int, size: int) -> str:
    """Write a mask as Postgres does: recipient 0 first.

    >>> bit_string(0b011, 4)
    '1100'
    """
    return f"{mask:0{size}b}"[::-1] if size else ""


def _lowest_bit(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


async def read_sender_profile(connection: Connection, profile_id: UUID) -> SenderProfile | None:
    """Read the profile with its mailbox, or None where it was removed."""
    async with connection.cursor(row_factory=class_row(SenderProfile)) as cursor:
        return await (await cursor.execute(_QUERIES["read_sender_profile"], {"profile_id": profile_id})).fetchone()


async def claim_batches(connection: Connection, *, profile_id: UUID, worker_id: UUID, limit: int) -> list[ClaimedBatch]:
    """Lease up to `limit` due batches of the profile, best rank first, jobs of one rank in turns."""
    async with connection.cursor(row_factory=class_row(ClaimedBatch)) as cursor:
        await cursor.execute(
            _QUERIES["claim_batches"], {"profile_id": profile_id, "worker_id": worker_id, "limit": limit}
        )
        return await cursor.fetchall()


async def read_claimed_recipients(connection: Connection, batches: Sequence[ClaimedBatch]) -> list[ClaimedRecipient]:
    """Read the recipients of claimed batches, in order."""
    async with connection.cursor(row_factory=class_row(ClaimedRecipient)) as cursor:
        await cursor.execute(
            _QUERIES["read_claimed_recipients"],
            {
                "job_numbers": [batch.job_number for batch in batches],
                "first_ordinals": [batch.first_ordinal for batch in batches],
                "sizes": [batch.size for batch in batches],
            },
        )
        return await cursor.fetchall()


async def read_claimed_exceptions(connection: Connection, batches: Sequence[ClaimedBatch]) -> list[ClaimedException]:
    """Read what is known of the recipients of claimed batches whose way was not straight."""
    async with connection.cursor(row_factory=class_row(ClaimedException)) as cursor:
        await cursor.execute(
            _QUERIES["read_claimed_exceptions"],
            {
                "job_numbers": [batch.job_number for batch in batches],
                "batch_numbers": [batch.number for batch in batches],
            },
        )
        return await cursor.fetchall()


async def read_job_content(connection: Connection, job_number: int) -> JobContent:
    """Read what all messages of a job share."""
    async with connection.cursor(row_factory=class_row(JobContent)) as cursor:
        content = await (await cursor.execute(_QUERIES["read_job_content"], {"job_number": job_number})).fetchone()
    if content is None:
        raise LookupError(job_number)
    return content


async def read_attachments(connection: Connection, job_number: int) -> list[StoredAttachment]:
    """Read a job's attachments, in the order in which they came."""
    async with connection.cursor(row_factory=class_row(StoredAttachment)) as cursor:
        await cursor.execute(_QUERIES["read_attachments"], {"job_number": job_number})
        return await cursor.fetchall()


async def mark_in_flight(
    connection: Connection, worker_id: UUID, marks: Sequence[tuple[ClaimedBatch, int]]
) -> set[tuple[int, int]]:
    """Mark recipients whose bodies are about to be written; give the batches (job, number) that are still ours."""
    cursor = await connection.execute(
        _QUERIES["mark_in_flight"],
        {
            "worker_id": worker_id,
            "job_numbers": [batch.job_number for batch, _ in marks],
            "numbers": [batch.number for batch, _ in marks],
            "epochs": [batch.lease_epoch for batch, _ in marks],
            "masks": [bit_string(mask, batch.size) for batch, mask in marks],
        },
    )
    return {(int(job_number), int(number)) for job_number, number in await cursor.fetchall()}


async def record_outcomes(connection: Connection, settlements: Sequence[Settlement]) -> set[tuple[int, int]]:
    """Write what became of recipients on their batch rows, one settlement a batch.

    Give the batches (job, number) that count exceptions, and have to be counted again.
    """
    cursor = await connection.execute(
        _QUERIES["record_outcomes"],
        {
            "job_numbers": [settlement.job_number for settlement in settlements],
            "numbers": [settlement.batch_number for settlement in settlements],
            "epochs": [settlement.lease_epoch for settlement in settlements],
            "sents": [bit_string(settlement.sent, settlement.size) for settlement in settlements],
            "settleds": [bit_string(settlement.settled, settlement.size) for settlement in settlements],
        },
    )
    return {(int(job_number), int(number)) for job_number, number, counted in await cursor.fetchall() if counted}


async def copy_email_copies(connection: Connection, copies: Iterable[CopyRow]) -> None:
    """Write the email copies of accepted messages."""
    async with connection.cursor() as cursor, cursor.copy(_QUERIES["copy_email_copies"]) as copy:
        for row in copies:
            await copy.write_row(
                (
                    row.job_number,
                    row.batch_number,
                    row.lease_epoch,
                    _lowest_bit(row.recipients),
                    bit_string(row.recipients, row.size_of_batch),
                    row.profile,
                    row.from_address,
                    row.reply_to,
                    row.visible_to,
                    row.subject,
                    row.message_id,
                    row.provider_id,
                    row.dated_at,
                    row.accepted_at,
                    row.reply_code,
                    row.enhanced_code,
                    row.reply,
                    row.size,
                    row.sha256,
                    row.content,
                )
            )


async def record_exceptions(connection: Connection, exceptions: Sequence[RecordedException]) -> None:
    """Write down deferred, failed and unknown recipients; their batches have to be counted again."""
    await connection.execute(
        _QUERIES["record_exceptions"],
        {
            "job_numbers": [row.job_number for row in exceptions],
            "ordinals": [row.ordinal for row in exceptions],
            "batch_numbers": [row.batch_number for row in exceptions],
            "states": [row.state for row in exceptions],
            "attempts": [row.attempts for row in exceptions],
            "due_in_seconds": [row.due_in_seconds for row in exceptions],
            "phases": [row.phase for row in exceptions],
            "codes": [row.code for row in exceptions],
            "enhanced_codes": [row.enhanced_code for row in exceptions],
            "replies": [row.reply for row in exceptions],
            "reasons": [row.reason for row in exceptions],
            "alones": [row.alone for row in exceptions],
            "epochs": [row.lease_epoch for row in exceptions],
        },
    )


async def recount_exceptions(connection: Connection, batches: Iterable[tuple[int, int]]) -> None:
    """Count the exceptions of batches (job, number) on their rows; who was sent to is none any more."""
    touched = sorted(batches)
    await connection.execute(
        _QUERIES["recount_exceptions"],
        {"job_numbers": [job for job, _ in touched], "numbers": [number for _, number in touched]},
    )


async def release_batches(
    connection: Connection, worker_id: UUID, releases: Sequence[Release]
) -> list[tuple[int, str]]:
    """Give leases back; give (job number, new state) of each batch that was still ours."""
    cursor = await connection.execute(
        _QUERIES["release_batches"],
        {
            "worker_id": worker_id,
            "job_numbers": [release.job_number for release in releases],
            "numbers": [release.batch_number for release in releases],
            "epochs": [release.lease_epoch for release in releases],
            "due_in_seconds": [release.due_in_seconds for release in releases],
        },
    )
    return [(int(job_number), str(state)) for job_number, state in await cursor.fetchall()]


async def finish_jobs(connection: Connection, job_numbers: Sequence[int]) -> list[int]:
    """Finish the jobs of which no batch is left; give their numbers."""
    cursor = await connection.execute(_QUERIES["finish_jobs"], {"job_numbers": list(job_numbers)})
    return [int(number) for (number,) in await cursor.fetchall()]


async def has_due_work(connection: Connection, profile_id: UUID) -> bool:
    """Whether the profile has a batch that is due now."""
    row = await (await connection.execute(_QUERIES["has_due_work"], {"profile_id": profile_id})).fetchone()
    return row is not None and bool(row[0])


async def read_recipient_of_copy(connection: Connection, copy_id: int) -> ClaimedRecipient:
    """Read the one recipient of an individual message."""
    async with connection.cursor(row_factory=class_row(ClaimedRecipient)) as cursor:
        recipient = await (await cursor.execute(_QUERIES["read_recipient_of_copy"], {"copy_id": copy_id})).fetchone()
    if recipient is None:
        raise LookupError(copy_id)
    return recipient
