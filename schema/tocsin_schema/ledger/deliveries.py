"""What the ledger says was delivered, to be compared with what a mail server received. Queries of `deliveries.sql`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("deliveries")


class Delivery(NamedTuple):
    """One message to one recipient: the bytes are named by their SHA-256 in hexadecimal."""

    message_id: str
    sha256: str
    address: str


async def read_deliveries(connection: Connection, job_numbers: Sequence[int]) -> list[Delivery]:
    """Give every (message, recipient) of some jobs' email copies."""
    cursor = await connection.execute(_QUERIES["deliveries"], {"job_numbers": list(job_numbers)})
    return [Delivery(*row) for row in await cursor.fetchall()]


async def read_sent_recipients(connection: Connection, job_numbers: Sequence[int]) -> list[tuple[int, str]]:
    """Give (job number, address) of every recipient of some jobs whose state is sent."""
    cursor = await connection.execute(_QUERIES["sent_recipients"], {"job_numbers": list(job_numbers)})
    return [(int(number), str(address)) for number, address in await cursor.fetchall()]


async def has_jobs(connection: Connection) -> bool:
    """Whether the ledger has ever had a job."""
    row = await (await connection.execute(_QUERIES["has_jobs"])).fetchone()
    return row is not None and bool(row[0])
