"""What a sender does with batches: every function is one named query of `sending.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from psycopg.rows import args_row, class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("sending")


@dataclass(frozen=True, slots=True)
class SenderProfile:
    """A sending profile with its mailbox's limits, as a slice reads it at `read_at`. No clear secret is in it.

    `probe_is_due` says that it is paused for refused credentials and that it is time to try them; `probes` is how
    often in a row they were refused, `resumed_at` when it was last let go on. `connections`, messages a minute and
    recipients of a day are the limits in force, set or learned; `urgent_share` and `tenant_urgent_share` are the parts
    of the days that are kept for urgent jobs. What is learned of recipients a message and of pipelining is a day old at
    most. `wanted_by_other` is the rank at which another profile on the mailbox waits for a connection;
    `is_wanting` that this one does; `connections_open` how many the fleet had open at `read_at`, 0 where they are
    unlimited; `next_slot_in_seconds` when the next message may go out, where a minute is limited.
    """

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
    probe_is_due: bool
    probes: int
    resumed_at: datetime | None
    read_at: datetime
    provider: str
    connections: int | None
    messages_per_minute: float | None
    recipients_per_day: int | None
    parked_until: datetime | None
    parked_reason: str | None
    pipelining: str = "envelope"
    learned_pipelining: str | None = None
    recipients_per_message: int | None = None
    urgent_share: int | None = None
    tenant_id: int | None = None
    tenant_per_day: int | None = None
    tenant_urgent_share: int | None = None
    wanted_by_other: int | None = None
    is_wanting: bool = False
    connections_open: int = 0
    next_slot_in_seconds: float = float("-inf")


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch that this worker has leased; `lease_epoch` fences whoever had it before.

    `since_published` and `since_due` are the seconds that it had waited when it was claimed: since its job was
    published, and since it was due.
    """

    job_number: int
    number: int
    first_ordinal: int
    size: int
    lease_epoch: int
    sent: str
    rank: int = 1
    since_published: float = 0.0
    since_due: float = 0.0

    def is_sent(self, index: int) -> bool:
        """Whether recipient `first_ordinal + index` was accepted before."""
        return self.sent[index] == "1"


class ClaimedRecipient(Struct, frozen=True):
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
class Release:
    """A lease given back; what is left of the batch is due again in some seconds."""

    job_number: int
    batch_number: int
    lease_epoch: int
    due_in_seconds: float


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
    async with connection.cursor(row_factory=args_row(ClaimedRecipient)) as cursor:
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
