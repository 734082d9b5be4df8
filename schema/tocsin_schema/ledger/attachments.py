"""A job's attachments, stored once a job. Queries of `attachments.sql`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("attachments")


@dataclass(frozen=True, slots=True)
class StoredAttachment:
    """A file that goes with every message of a job."""

    filename: str
    content_type: str
    content: bytes = field(repr=False)


async def insert_attachments(connection: Connection, job_number: int, attachments: Sequence[StoredAttachment]) -> None:
    """Write a job's attachments, once."""
    for position, attachment in enumerate(attachments, start=1):
        await connection.execute(
            _QUERIES["insert_attachment"],
            {"job_number": job_number, "position": position, **asdict(attachment)},
        )


async def read_attachments(connection: Connection, job_number: int) -> list[StoredAttachment]:
    """Read a job's attachments, in the order in which they came."""
    async with connection.cursor(row_factory=class_row(StoredAttachment)) as cursor:
        await cursor.execute(_QUERIES["read_attachments"], {"job_number": job_number})
        return await cursor.fetchall()
