"""A mail server on this machine that takes every message, tells nobody, and remembers what it got."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from tocsin_console.demo.sink_script import AuthFailure, RecipientScript, StepScript
from tocsin_console.demo.sink_session import SinkSession

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from aiosmtpd.smtp import Envelope

_MESSAGE_ID: Final = re.compile(rb"^Message-ID:[ \t]*(?:\r\n[ \t]+)?([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_CLOSING_SECONDS: Final = 5


class ReceivedMessage(msgspec.Struct, frozen=True):
    """A message that the sink took: one line of its JSONL file."""

    queue_id: str
    """The sink's own id, which its 250 after the dot ends with."""
    mail_from: str
    recipients: tuple[str, ...]
    """The envelope recipients that got a 250."""
    message_id: str | None
    sha256: str
    """Of the message as it was before dot-stuffing, with the CR LF of its last line."""
    size: int
    """Octets of the same."""
    tls: bool
    user: str | None
    """Whom the session was authenticated as."""
    session: int
    received_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkOptions:
    """How the sink behaves towards everybody. With `tls` None, passwords and tokens come in clear."""

    tls: ssl.SSLContext | None
    check_token: Callable[[str], bool] = field(default=lambda _token: False)
    implicit_tls: bool = False
    """TLS from the first byte instead of STARTTLS."""
    passwords: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """User to password, for LOGIN and PLAIN, which are offered only where there are any."""
    auth_required: bool = True
    auth_failure: AuthFailure = AuthFailure.MICROSOFT
    pipelining: bool = True
    size_limit: int = 36_700_160
    """Octets: what Microsoft 365 takes from a mailbox unless it was raised (35 MB)."""
    max_recipients: int = 500
    """A message; the next ones get a 452."""
    record_file: Path | None = None
    """JSONL, one `ReceivedMessage` a line, appended before the client is told."""
    keep_content: bool = False
    """Keep each message's bytes in memory."""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The AUTH mechanisms on offer."""
        return ("LOGIN", "PLAIN", "XOAUTH2") if self.passwords else ("XOAUTH2",)


class MailSink:
    """The server. `script` plans replies at one step, `recipients` those to RCPT."""

    def __init__(self, options: SinkOptions, *, recipients: RecipientScript | None = None) -> None:
        self.options = options
        self.recipients = recipients or RecipientScript()
        self.script = StepScript()
        self.received: list[ReceivedMessage] = []
        self.contents: dict[str, bytes] = {}
        """Messages by queue id, where `keep_content` is set."""
        self.address = ("", 0)
        """Host and port, once it listens."""
        self.sessions_max = 0
        self._open: set[SinkSession] = set()
        self._sessions = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._server: asyncio.Server | None = None
        self._file: BinaryIO | None = None

    @property
    def sessions_open(self) -> int:
        """How many clients are connected now."""
        return len(self._open)

    @property
    def sessions_total(self) -> int:
        """How many clients have connected so far."""
        return self._sessions

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Listen, and return where. Raises OSError."""
        if self.options.record_file is not None:
            self._file = self.options.record_file.open("ab")
        tls = self.options.tls if self.options.implicit_tls else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._new_session, host, port, ssl=tls, backlog=1024)
        name = self._server.sockets[0].getsockname()
        self.address = (name[0], name[1])
        return self.address

    async def stop(self) -> None:
        """Stop listening, end every session and close the file."""
        if self._server is None:
            return
        self._server.close()
        sessions = list(self._open)
        for session in sessions:
            session.abort()
        async with asyncio.timeout(_CLOSING_SECONDS):
            await asyncio.gather(*(session.ended() for session in sessions))
            await self._server.wait_closed()
        self._server = None
        if self._file is not None:
            self._file.close()
            self._file = None

    async def idle(self) -> None:
        """Wait until no client is connected."""
        await self._idle.wait()

    def opened(self, session: SinkSession) -> None:
        """Count a session in."""
        self._open.add(session)
        self._idle.clear()
        self.sessions_max = max(self.sessions_max, len(self._open))

    def closed(self, session: SinkSession) -> None:
        """Count a session out."""
        self._open.discard(session)
        if not self._open:
            self._idle.set()

    def record(self, session: SinkSession, envelope: Envelope, content: bytes) -> str:
        """Keep a message and return the reply that takes it. Raises OSError."""
        message = ReceivedMessage(
            queue_id=f"{len(self.received) + 1:08d}",
            mail_from=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            message_id=message_id_of(content),
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            tls=session.is_encrypted,
            user=session.user,
            session=session.number,
            received_at=time.time(),
        )
        if self._file is not None:
            self._file.write(msgspec.json.encode(message) + b"\n")
            self._file.flush()
        if self.options.keep_content:
            self.contents[message.queue_id] = content
        self.received.append(message)
        return f"250 2.0.0 OK queued as {message.queue_id}"

    def _new_session(self) -> SinkSession:
        self._sessions += 1
        return SinkSession(self, self._sessions)


def message_id_of(content: bytes) -> str | None:
    """Take the Message-ID out of a message's header; None where it has none."""
    header, _, _ = content.partition(b"\r\n\r\n")
    match = _MESSAGE_ID.search(header)
    return match[1].strip().decode(errors="replace") if match else None


def read_received(record_file: Path) -> list[ReceivedMessage]:
    """Read what a sink has recorded so far; a line that it is just writing is left out. Raises OSError."""
    lines = record_file.read_bytes().split(b"\n")
    return [msgspec.json.decode(line, type=ReceivedMessage) for line in lines[:-1]]
