"""Reading email copies: the record of every message that a provider accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("copies_reading")

COPIES_AT_A_TIME = 500
"""Rows that travel from the ledger at once."""

_HIGHEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EmailCopy:
    """One message that a provider accepted, without its content. `size` is in octets.

    `is_full` says whether its bytes are kept as they are; otherwise they are made again from their sources.
    """

    id: int
    job_number: int
    job_id: UUID
    batch_number: int
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
    is_full: bool
    recipients: list[str]


async def read_copies(
    connection: Connection, *, job_number: int | None, profile: str | None, limit: int | None
) -> AsyncGenerator[EmailCopy]:
    """Read the copies of a job batch by batch, or of a profile with its newest job first; in flat memory.

    It holds a cursor in the ledger: read to the end, or close it, before the connection is used otherwise.
    """
    query = "copies_of_profile" if job_number is None else "copies"
    async with (
        connection.transaction(),
        connection.cursor("copies", row_factory=class_row(EmailCopy)) as cursor,
    ):
        await cursor.execute(_QUERIES[query], {"job_number": job_number, "profile": profile, "limit": limit})
        while chunk := await cursor.fetchmany(COPIES_AT_A_TIME):
            for copy in chunk:
                yield copy


async def read_copy(connection: Connection, copy_id: int) -> EmailCopy:
    """Read one copy. Raises UsageError where there is none."""
    async with connection.cursor(row_factory=class_row(EmailCopy)) as cursor:
        await cursor.execute(_QUERIES["read_copy"], {"id": min(copy_id, _HIGHEST_ID)})
        copy = await cursor.fetchone()
    if copy is None:
        raise UsageError(
            f"There is no email copy {copy_id}.", fix="See `tocsin copy list --job ID`.", scope=Scope.MESSAGE
        )
    return copy


async def read_kept_content(connection: Connection, copy_id: int) -> bytes | None:
    """Read the bytes of a copy that keeps every one, else None."""
    row = await (await connection.execute(_QUERIES["read_copy_content"], {"id": copy_id})).fetchone()
    return None if row is None or row[0] is None else bytes(row[0])
