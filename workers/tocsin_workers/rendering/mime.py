"""A whole message as octets, ready for DATA but for the doubling of leading dots.

The same inputs give the same octets: the only thing that MIME would have made up, the boundary, is derived
from the Message-ID. An email copy's hash can therefore be checked by composing the message again.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import format_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from tocsin_schema.contract.header_names import is_allowed_header
from tocsin_schema.errors import RenderingError
from tocsin_workers.rendering.bodies import BOUNDARY_MARK, encode_base64
from tocsin_workers.rendering.headers import (
    Mailbox,
    filename_parameter,
    mailbox_header,
    one_address,
    text_header,
)
from tocsin_workers.rendering.message import filled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from tocsin_schema.contract.addresses import Address
    from tocsin_schema.contract.part import Attachment
    from tocsin_workers.rendering.bodies import EncodedBody
    from tocsin_workers.rendering.message import FilledMessage, RenderedMessage

AUTO_SUBMITTED = "Auto-Submitted"

K = TypeVar("K")


class EncodedAttachment(Struct, frozen=True):
    """An attachment as a finished MIME part, without boundary: made once a job, used in every message."""

    octets: bytes


def encode_attachment(attachment: Attachment) -> EncodedAttachment:
    """Return the attachment as a MIME part: headers, empty line, base64. No line of it begins with a dot."""
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


class ComposedMessage(Struct, frozen=True, gc=False):
    """A message as octets with CRLF line ends, and whether a line of it begins with a dot."""

    octets: bytes
    has_leading_dot: bool


class Composer:
    """Writes messages of one sender with the same attachments, such as those of a job.

    Most header lines are the same from one message to the next, so each is remembered as it was written last.
    """

    def __init__(self, from_address: Address, attachments: Sequence[EncodedAttachment] = ()) -> None:
        self._attachments = attachments
        self._date_line = _Remembered(_date_line)
        self._from_line = _Remembered[str | None](lambda name: mailbox_header("From", Mailbox(from_address, name)))
        self._subject_line = _Remembered(_subject_line)
        self._other_lines = _Remembered(_other_lines)

    def compose(self, message: FilledMessage, *, to: Mailbox, message_id: str, date: datetime) -> ComposedMessage:
        """Return the message. `to` is the recipient in individual mode and `shown_to` in shared mode.

        `date` has a time zone, and is shown in UTC. Raises RenderingError for headers that cannot be written and for a
        message without a body.
        """
        entity, has_leading_dot = self._entity(message, message_id)
        pieces = (
            self._date_line(date),
            self._from_line(message.from_name),
            mailbox_header("To", to),
            self._subject_line(message.subject),
            f"Message-ID: {message_id}\r\n".encode(),
            self._other_lines((message.reply_to, message.headers)),
            *entity,
        )
        return ComposedMessage(b"".join(pieces), has_leading_dot)

    def _entity(self, message: FilledMessage, message_id: str) -> tuple[Sequence[bytes], bool]:
        """Return Content-* headers, the empty line and the body, and whether a line of it begins with a dot."""
        text, html = message.text, message.html
        if html is None and text is not None and not self._attachments:
            body = text.form.encode(text.own)
            return _text_part("plain", body), body.has_leading_dot
        boundary = None
        if self._attachments or text is not None:
            boundary = f"{BOUNDARY_MARK}{sha256(message_id.encode()).hexdigest()[:40]}"
        readable = [
            (subtype, body.form.encode(body.own, boundary=boundary))
            for subtype, body in (("plain", text), ("html", html))
            if body is not None
        ]
        if not readable:
            raise RenderingError("The message has neither text nor html.", fix="Give one of them, or both.")
        parts = [_text_part(subtype, body) for subtype, body in readable]
        entity = parts[0] if len(parts) == 1 else _multipart("alternative", f"{boundary}.a", parts)
        if self._attachments:
            entity = _multipart("mixed", f"{boundary}.m", [entity, *((one.octets,) for one in self._attachments)])
        return entity, any(body.has_leading_dot for _, body in readable)


def compose(
    message: RenderedMessage,
    *,
    from_address: Address,
    to: Mailbox,
    message_id: str,
    date: datetime,
    attachments: Sequence[EncodedAttachment] = (),
) -> bytes:
    """Return a single message as octets; see `Composer.compose`."""
    composer = Composer(from_address, attachments)
    return composer.compose(filled(message), to=to, message_id=message_id, date=date).octets


class _Remembered(Generic[K]):
    """A function that remembers its last result."""

    def __init__(self, make: Callable[[K], bytes]) -> None:
        self._make = make
        self._last: tuple[K, bytes] | None = None

    def __call__(self, key: K) -> bytes:
        last = self._last
        if last is None or last[0] != key:
            self._last = last = (key, self._make(key))
        return last[1]


def _date_line(date: datetime) -> bytes:
    return f"Date: {format_datetime(date.astimezone(UTC))}\r\n".encode()


def _subject_line(subject: str | None) -> bytes:
    return text_header("Subject", subject or "")


def _other_lines(values: tuple[str | None, tuple[tuple[str, str], ...]]) -> bytes:
    reply_to, headers = values
    lines: list[bytes] = []
    if reply_to is not None:
        lines.append(mailbox_header("Reply-To", Mailbox(one_address("reply_to", reply_to))))
    if AUTO_SUBMITTED.lower() not in {name.lower() for name, _ in headers}:
        lines.append(b"Auto-Submitted: auto-generated\r\n")
    lines.extend(_caller_header(name, value) for name, value in headers)
    lines.append(b"MIME-Version: 1.0\r\n")
    return b"".join(lines)


def _caller_header(name: str, value: str) -> bytes:
    if not is_allowed_header(name):
        raise RenderingError(f"The header {name!r} cannot be set.", fix="List-*, X-* and Auto-Submitted can.")
    return text_header(name, value)


def _text_part(subtype: str, body: EncodedBody) -> tuple[bytes, bytes]:
    headers = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {body.encoding}\r\n\r\n"
    return headers.encode(), body.octets


def _multipart(subtype: str, boundary: str, parts: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    """Return a multipart entity (RFC 2046 section 5.1.1).

    Each part brings its own headers and ends in CRLF. The CRLF before a delimiter belongs to the delimiter, so
    that each part keeps its own.
    """
    pieces = [f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n'.encode()]
    delimiter = f"\r\n--{boundary}\r\n".encode()
    for part in parts:
        pieces += (delimiter, *part)
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return pieces
