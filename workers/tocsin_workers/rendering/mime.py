"""A whole message as octets, ready for DATA but for the doubling of leading dots.

The same inputs give the same octets: the only thing that MIME would have made up, the boundary, is derived
from the Message-ID. An email copy's hash can therefore be checked by composing the message again.
"""

from __future__ import annotations

from email.utils import format_datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from tocsin_schema.contract.header_names import is_allowed_header
from tocsin_schema.errors import RenderingError
from tocsin_workers.rendering.bodies import EncodedBody, encode_base64, encode_text
from tocsin_workers.rendering.headers import (
    Mailbox,
    filename_parameter,
    mailbox_header,
    one_address,
    text_header,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tocsin_schema.contract.addresses import Address
    from tocsin_schema.contract.part import Attachment
    from tocsin_workers.rendering.message import RenderedMessage

AUTO_SUBMITTED = "Auto-Submitted"


class EncodedAttachment(Struct, frozen=True):
    """An attachment as a finished MIME part, without boundary: made once a job, used in every message."""

    octets: bytes


def encode_attachment(attachment: Attachment) -> EncodedAttachment:
    """Return the attachment as a MIME part: headers, empty line, base64."""
    headers = (
        f"Content-Type: {attachment.content_type}\r\n"
        f"Content-Transfer-Encoding: base64\r\n"
        f"Content-Disposition: attachment{filename_parameter(attachment.filename)}\r\n\r\n"
    )
    return EncodedAttachment(headers.encode() + (encode_base64(attachment.content) or b"\r\n"))


def shown_to(message: RenderedMessage, sender: Address) -> Mailbox:
    """Return what a shared message shows as To: the address that the job gives, else the sender's own.

    Raises RenderingError where the job's is not exactly one address.
    """
    return Mailbox(sender if message.visible_to is None else one_address("to", message.visible_to))


def compose(
    message: RenderedMessage,
    *,
    from_address: Address,
    to: Mailbox,
    message_id: str,
    date: datetime,
    attachments: Sequence[EncodedAttachment] = (),
) -> bytes:
    """Return the message as octets with CRLF line ends.

    `to` is the recipient in individual mode and `shown_to` in shared mode; `date` has a time zone.
    Raises RenderingError for headers that cannot be written and for a message without a body.
    """
    boundary = f"=_{sha256(message_id.encode()).hexdigest()[:40]}"
    entity = _entity(message, attachments, boundary)
    return b"".join((_headers(message, from_address, to, message_id, date), entity))


def _headers(message: RenderedMessage, from_address: Address, to: Mailbox, message_id: str, date: datetime) -> bytes:
    lines = [
        f"Date: {format_datetime(date)}\r\n".encode(),
        mailbox_header("From", Mailbox(from_address, message.from_name)),
        mailbox_header("To", to),
        text_header("Subject", message.subject or ""),
        f"Message-ID: {message_id}\r\n".encode(),
    ]
    if message.reply_to is not None:
        lines.append(mailbox_header("Reply-To", Mailbox(one_address("reply_to", message.reply_to))))
    given = {name.lower() for name in message.headers}
    if AUTO_SUBMITTED.lower() not in given:
        lines.append(b"Auto-Submitted: auto-generated\r\n")
    lines.extend(_caller_header(name, value) for name, value in message.headers.items())
    lines.append(b"MIME-Version: 1.0\r\n")
    return b"".join(lines)


def _caller_header(name: str, value: str) -> bytes:
    if not is_allowed_header(name):
        raise RenderingError(f"The header {name!r} cannot be set.", fix="List-*, X-* and Auto-Submitted can.")
    return text_header(name, value)


def _entity(message: RenderedMessage, attachments: Sequence[EncodedAttachment], boundary: str) -> bytes:
    """Return Content-* headers, the empty line and the body."""
    outer = f"{boundary}.m" if attachments else None
    body = _readable(message, boundary)
    if outer is None:
        return body
    return _multipart("mixed", outer, (body, *(attachment.octets for attachment in attachments)))


def _readable(message: RenderedMessage, boundary: str) -> bytes:
    match message.text, message.html:
        case None, None:
            raise RenderingError("The message has neither text nor html.", fix="Give one of them, or both.")
        case str(text), None:
            return _text_part("plain", encode_text(text, boundary=boundary))
        case None, str(html):
            return _text_part("html", encode_text(html, boundary=boundary))
        case text, html:
            return _multipart(
                "alternative",
                f"{boundary}.a",
                (
                    _text_part("plain", encode_text(text, boundary=boundary)),
                    _text_part("html", encode_text(html, boundary=boundary)),
                ),
            )


def _text_part(subtype: str, body: EncodedBody) -> bytes:
    headers = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {body.encoding}\r\n\r\n"
    return headers.encode() + body.octets


def _multipart(subtype: str, boundary: str, parts: Sequence[bytes]) -> bytes:
    """Return a multipart entity (RFC 2046 section 5.1.1).

    Each part brings its own headers and ends in CRLF. The CRLF before a delimiter belongs to the delimiter, so
    that each part keeps its own.
    """
    opening = f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n\r\n'
    delimiter = f"\r\n--{boundary}\r\n".encode()
    return b"".join((opening.encode(), delimiter[2:], delimiter.join(parts), f"\r\n--{boundary}--\r\n".encode()))
