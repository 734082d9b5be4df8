"""In-process mail servers for tests: one that answers every step as it is told, and aiosmtpd.

Both run on the test's own event loop, so that nothing has to be waited for.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme
import uvloop
from aiosmtpd.smtp import SMTP as AiosmtpdProtocol  # noqa: N811  # the name says less than it should

from tests.servers.patience import PATIENCE_SECONDS


class Cut:
    """An answer: close the connection at once, without a word."""


@dataclass
class Wait:
    """An answer: wait for the event, then give the other answer."""

    event: asyncio.Event
    answer: str | Cut | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server has come here."""


@dataclass
class ThenCut:
    """An answer: say this, then close the connection."""

    text: str


Answer = str | Cut | Wait | ThenCut | None
"""What to say to a step: reply lines without CRLF, joined by newlines. None: the usual answer; "": nothing."""
Decide = Callable[[str], Answer]
"""Takes the command line and gives the answer."""


@dataclass
class ReceivedMessage:
    """A message that got a 250 after its dot."""

    mail_from: str
    recipients: tuple[str, ...]
    body: bytes
    """As it came over the wire, dots unstuffed, without the final dot."""


@dataclass
class ScriptedMailServer:
    """A mail server that answers each step as `answers` says, and else as a friendly server would.

    Steps are `greeting`, `dot`, and the verbs in capitals (`RCPT`). An answer may be a function of the line.
    Without `PIPELINING` in `extensions` a client that sends ahead of a reply is noted in `sent_ahead`.
    """

    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "SIZE 1000000")
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    tokens: dict[str, str] = field(default_factory=dict)
    """User to access token, for XOAUTH2 and OAUTHBEARER."""
    passwords: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Answer | Decide] = field(default_factory=dict)
    port: int = 0
    lines: list[str] = field(default_factory=list)
    """Every line that came, bodies left out."""
    messages: list[ReceivedMessage] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    all_gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no connection is open."""
    sent_ahead: bool = False
    body_bytes: int = 0
    """Octets of bodies that came, also of those that never ended."""

    def verbs(self) -> list[str]:
        """Give the verbs that came, in order."""
        return [line.split(" ")[0].upper() for line in self.lines]


@asynccontextmanager
async def scripted_mail_server(server: ScriptedMailServer) -> AsyncIterator[ScriptedMailServer]:
    """Run the server on a free loopback port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        server.open_now += 1
        server.all_gone.clear()
        try:
            await _Conversation(server, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, _Closed):
            # Cancelled: the test is over. asyncio's streams would log it as an error.
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)
            server.open_now -= 1
            if not server.open_now:
                server.all_gone.set()

    listener = await asyncio.start_server(
        serve, "127.0.0.1", 0, limit=1 << 20, ssl=server.tls if server.implicit_tls else None
    )
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))


class _Closed(Exception):  # noqa: N818  # not an error: the script wants it
    pass


class _Conversation:
    def __init__(self, server: ScriptedMailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.secure = server.implicit_tls
        self.mail_from = ""
        self.recipients: list[str] = []

    async def run(self) -> None:
        await self.answer("greeting", "", "220 scripted.test ESMTP")
        while True:
            line = await self.line()
            verb = line.split(" ")[0].upper()
            handler: Callable[[str], Awaitable[None]] | None = getattr(self, f"do_{verb.lower()}", None)
            if handler is None:
                await self.answer(verb, line, "502 5.5.1 Command not implemented")
            else:
                await handler(line)

    async def line(self) -> str:
        raw = await self.reader.readuntil(b"\r\n")
        text = raw[:-2].decode("utf-8", "replace")
        self.server.lines.append(text)
        return text

    async def say(self, text: str) -> None:
        if not text:
            return
        buffered: bytearray = self.reader._buffer  # type: ignore[attr-defined]
        if buffered and "PIPELINING" not in self.server.extensions:
            self.server.sent_ahead = True
        self.writer.write("".join(f"{line}\r\n" for line in text.split("\n")).encode())
        await self.writer.drain()

    async def answer(self, step: str, line: str, usual: str) -> str:
        """Answer as told, or as usual; give what was said."""
        told = self.server.answers.get(step)
        if callable(told):
            told = told(line)
        if isinstance(told, Wait):
            told.reached.set()
            await told.event.wait()
            told = told.answer
        if isinstance(told, Cut):
            raise _Closed
        if isinstance(told, ThenCut):
            await self.say(told.text)
            raise _Closed
        said = usual if told is None else told
        await self.say(said)
        return said

    async def do_ehlo(self, line: str) -> None:
        offers = list(self.server.extensions)
        if self.server.tls is not None and not self.secure:
            offers.append("STARTTLS")
        mechanisms = [
            *(["XOAUTH2"] if self.server.tokens else []),
            *(["PLAIN", "LOGIN"] if self.server.passwords else []),
        ]
        if mechanisms and not any(offer.startswith("AUTH") for offer in offers):
            offers.append("AUTH " + " ".join(mechanisms))
        await self.answer("EHLO", line, "\n".join([*(f"250-{o}" for o in ["scripted.test", *offers]), "250 OK"]))

    async def do_helo(self, line: str) -> None:
        await self.answer("HELO", line, "250 scripted.test")

    async def do_starttls(self, line: str) -> None:
        if self.server.tls is None:
            await self.answer("STARTTLS", line, "502 5.5.1 not here")
            return
        said = await self.answer("STARTTLS", line, "220 2.0.0 go ahead")
        if said.startswith("220"):
            await self.writer.start_tls(self.server.tls)
            self.secure = True

    async def do_auth(self, line: str) -> None:
        if self.server.answers.get("AUTH") is not None:
            await self.answer("AUTH", line, "")
            return
        mechanism, *initial = line.split(" ")[1:]
        match mechanism:
            case "XOAUTH2" | "OAUTHBEARER":
                await self.bearer(initial[0] if initial else await self.challenge(""))
            case "PLAIN":
                _, user, password = decoded(initial[0] if initial else await self.challenge("")).split("\0")
                await self.password(user, password)
            case "LOGIN":
                user = decoded(await self.challenge("Username:"))
                await self.password(user, decoded(await self.challenge("Password:")))
            case _:
                await self.say("504 5.5.4 Unrecognized authentication type")

    async def challenge(self, text: str) -> str:
        await self.say("334 " + base64.b64encode(text.encode()).decode())
        return await self.line()

    async def bearer(self, blob: str) -> None:
        parts = decoded(blob).split("\x01")
        user = next((p[5:] for p in parts if p.startswith("user=")), parts[0].removeprefix("n,a=").rstrip(","))
        token = next(p.removeprefix("auth=Bearer ") for p in parts if p.startswith("auth="))
        if self.server.tokens.get(user) == token:
            await self.say("235 2.7.0 Authentication successful")
            return
        await self.challenge('{"status":"400","schemes":"Bearer","scope":"https://mail.example/"}')
        await self.say("535 5.7.8 Username and Password not accepted")

    async def password(self, user: str, password: str) -> None:
        good = self.server.passwords.get(user) == password
        await self.say("235 2.7.0 Welcome" if good else "535 5.7.8 Authentication credentials invalid")

    async def do_mail(self, line: str) -> None:
        self.mail_from, self.recipients = between_brackets(line), []
        await self.answer("MAIL", line, "250 2.1.0 Sender ok")

    async def do_rcpt(self, line: str) -> None:
        said = await self.answer("RCPT", line, "250 2.1.5 Recipient ok")
        if said.startswith("25"):
            self.recipients.append(between_brackets(line))

    async def do_data(self, line: str) -> None:
        usual = "354 go ahead" if self.recipients else "554 5.5.1 no valid recipients"
        if not (await self.answer("DATA", line, usual)).startswith("354"):
            return
        body = await self.body()
        said = await self.answer("dot", "", "250 2.0.0 Ok: queued" if self.recipients else "554 5.5.1 nobody")
        if said.startswith("250"):
            self.server.messages.append(ReceivedMessage(self.mail_from, tuple(self.recipients), body))

    async def body(self) -> bytes:
        lines: list[bytes] = []
        while True:
            raw = await self.reader.readuntil(b"\r\n")
            self.server.body_bytes += len(raw)
            if raw == b".\r\n":
                return b"".join(lines)
            lines.append(raw[1:] if raw.startswith(b".") else raw)

    async def do_rset(self, line: str) -> None:
        await self.answer("RSET", line, "250 2.0.0 Ok")

    async def do_quit(self, line: str) -> None:
        await self.answer("QUIT", line, "221 2.0.0 Bye")
        raise _Closed


def decoded(blob: str) -> str:
    """Give the text of a base64 blob."""
    return base64.b64decode(blob, validate=True).decode()


def between_brackets(line: str) -> str:
    """Give the address of a MAIL or RCPT line."""
    return line[line.index("<") + 1 : line.index(">")]


@dataclass
class KeepingHandler:
    """An aiosmtpd handler that keeps what it gets and refuses addresses that start with `refused`."""

    envelopes: list[ReceivedMessage] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:  # aiosmtpd's name
        if address.startswith("refused"):
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  # the same
        self.envelopes.append(ReceivedMessage(envelope.mail_from, tuple(envelope.rcpt_tos), envelope.original_content))
        return "250 2.0.0 Ok"


@asynccontextmanager
async def aiosmtpd_server(**options: Any) -> AsyncIterator[tuple[int, KeepingHandler]]:
    """Run aiosmtpd on a free loopback port with the options of its `SMTP`; give the port and what it keeps."""
    handler = KeepingHandler()
    options = {"enable_SMTPUTF8": True, "hostname": "aiosmtpd.test", **options}
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: AiosmtpdProtocol(handler, loop=loop, **options), "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], handler
    finally:
        listener.close()


@functools.cache
def certificate_authority() -> trustme.CA:
    """Give the certificate authority of the whole test run."""
    return trustme.CA()


def server_context(*names: str, authority: trustme.CA | None = None, expired: bool = False) -> ssl.SSLContext:
    """Give a server's context with a certificate for these names, by default for localhost and 127.0.0.1."""
    from datetime import UTC, datetime, timedelta

    certificate = (authority or certificate_authority()).issue_cert(
        *(names or ("localhost", "127.0.0.1")),
        not_after=datetime.now(UTC) - timedelta(days=1) if expired else None,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def authority_pem() -> str:
    """Give the test authority's certificate, as `--ca-file` would hold it."""
    return certificate_authority().cert_pem.bytes().decode()


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on asyncio's own event loop and on uvloop, for `PATIENCE_SECONDS` at most."""

    async def within_the_limit(running: Coroutine[Any, Any, None]) -> None:
        limit = asyncio.timeout(PATIENCE_SECONDS)
        try:
            async with limit:
                await running
        finally:
            # A test that waits for a cancellation would take the limit's for the one that it waits for.
            assert not limit.expired(), f"the test took more than {PATIENCE_SECONDS:g} s"

    def run(*, new_loop: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(within_the_limit(test(**fixtures)))

    signature = inspect.signature(test)
    extra = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), extra])  # type: ignore[attr-defined]
    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    marks = getattr(test, "pytestmark", [])
    run.pytestmark = list(marks)  # type: ignore[attr-defined]
    both = pytest.mark.parametrize(
        "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    return both(run)
