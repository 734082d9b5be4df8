"""The exact bytes of a message that was sent, kept or made again."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from tocsin_schema.contract.part import Mode
from tocsin_schema.errors import RenderingError, Scope
from tocsin_schema.ledger import sending
from tocsin_schema.ledger.attachments import read_attachments
from tocsin_schema.ledger.copies_reading import read_copy, read_kept_content
from tocsin_workers.sender.preparing import JobMessages, render_octets
from tocsin_workers.sender.screening import DueRecipient

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection


async def remake(connection: Connection, copy_id: int) -> bytes:
    """Give the bytes of a message as they were sent, checked by the stored SHA-256.

    Raises UsageError where there is no such copy, RenderingError where they cannot be made again or differ.
    """
    copy = await read_copy(connection, copy_id)
    octets = await read_kept_content(connection, copy_id)
    if octets is None:
        content = await sending.read_job_content(connection, copy.job_number)
        attachments = await read_attachments(connection, copy.job_number)
        messages = JobMessages.of(content, copy.from_address, attachments)
        person = None
        if content.mode == Mode.INDIVIDUAL:
            recipient = await sending.read_recipient_of_copy(connection, copy_id)
            person = DueRecipient(0, recipient, attempts=0)
        octets = render_octets(messages, copy.batch_number, person, copy.dated_at).composed.octets
    if sha256(octets).digest() != copy.sha256:
        raise RenderingError(
            f"The bytes made again for email copy {copy_id} are not those that were sent.",
            fix="The release that sent it made messages otherwise; use that one, or keep bytes with --copies full.",
            scope=Scope.MESSAGE,
        )
    return octets
