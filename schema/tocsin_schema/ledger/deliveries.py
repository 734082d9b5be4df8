"""What the ledger says was delivered, to be compared with what a mail server received. Queries of `deliveries.sql`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("deliveries")


class Delivery(NamedTuple):
    """One message to one recipient: the bytes are named by their SHA-256 in hexadecimal."""

    message_id: str
    sha256: str
    address: str


async def read_deliveries(connection: Connection) -> list[Delivery]:
    """Give every (message, recipient) of the email copies."""
    cursor = await connection.execute(_QUERIES["deliveries"])
    return [Delivery(*row) for row in await cursor.fetchall()]


async def read_sent_recipients(connection: Connection) -> list[tuple[int, str]]:
    """Give (job number, address) of every recipient whose state is sent."""
    cursor = await connection.execute(_QUERIES["sent_recipients"])
    return [(int(number), str(address)) for number, address in await cursor.fetchall()]
