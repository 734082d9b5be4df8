"""One connection to the mail server: a plain SMTP dialogue (RFC 5321, with PIPELINING), which may be spoilt."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import time
from typing import TYPE_CHECKING, Protocol

from tests.servers.faults.mail_events import Accepted, Dropped, MailEvent, MailPhase, Refused
from tests.servers.faults.mail_moods import Act, Moods
from tocsin_console.demo.mail_sink import message_id_of
from tocsin_console.demo.sink_session import parse_path, parse_xoauth2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LINE_OCTETS = 16_384
"""Long enough for the longest token in one line."""

_numbers = itertools.count(1)


class Office(Protocol):
    """What all connections of the server share."""

    moods: Moods
    seconds_a_message: float
    """Between taking a message and saying so: what a kill is likely to fall into."""
    hang_ups: int
    """Grows each time every session is to end before its next message."""

    def write_down(self, event: MailEvent) -> None:
        """Keep an event for good."""
        ...

    def knows_token(self, token: str) -> bool:
        """Say whether a token may log in."""
        ...


class SessionEnded(Exception):  # noqa: N818 - it is how a session ends, not an error
    """The connection is to be closed, after what was written has gone out."""


class ConnectionBroken(Exception):  # noqa: N818 - the same
    """The connection is to be broken off."""


class MailSession:
    """The dialogue with one client."""

    def __init__(
        self, office: Office, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, wants_token: bool
    ) -> None:
        self._office = office
        self._reader = reader
        self._writer = writer
        self._wants_token = wants_token
        self._hang_ups = office.hang_ups
        self._logged_in = not wants_token
        self._refuses_ehlo: bool | None = None
        self._has_sender = False
        self._recipients: list[str] = []

    async def run(self) -> None:
        """Serve until the client has gone or the server will have no more of it."""
        try:
            await self._converse()
        except SessionEnded:
            self._writer.close()
        except (ConnectionBroken, ConnectionError, asyncio.IncompleteReadError, ValueError):
            self._writer.transport.abort()

    async def _converse(self) -> None:
        if self._spoilt(MailPhase.GREETING, ()):
            raise SessionEnded
        self._say("220 localhost ESMTP")
        async for verb, argument in self._commands():
            await self._obey(verb, argument)

    async def _commands(self) -> AsyncGenerator[tuple[str, str]]:
        while line := await self._reader.readline():
            verb, _, argument = line.decode("utf-8", errors="replace").strip().partition(" ")
            yield verb.upper(), argument

    async def _obey(self, verb: str, argument: str) -> None:
        match verb:
            case "EHLO" | "HELO":
                self._greet(verb)
            case "AUTH":
                await self._log_in(argument)
            case "MAIL":
                self._take_sender()
            case "RCPT":
                self._take_recipient(argument)
            case "DATA":
                await self._take_message()
            case "RSET":
                self._forget()
                self._say("250 2.0.0 Forgotten")
            case "QUIT":
                self._say("221 2.0.0 Good-bye")
                raise SessionEnded
            case _:
                self._say("502 5.5.1 Not known here")

    def _greet(self, verb: str) -> None:
        self._forget()
        if self._refuses_ehlo is None:
            # One throw of the dice a connection: whoever is refused tries HELO next.
            self._refuses_ehlo = self._office.moods.at(MailPhase.EHLO) is Act.REFUSE
        if self._refuses_ehlo:
            self._refuse(MailPhase.EHLO, ())
            return
        if verb == "HELO":
            self._say("250 localhost")
            return
        offers = ["localhost", "SIZE 20000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "PIPELINING"]
        if self._wants_token:
            offers.append("AUTH XOAUTH2")
        for offer in offers[:-1]:
            self._say(f"250-{offer}")
        self._say(f"250 {offers[-1]}")

    async def _log_in(self, argument: str) -> None:
        if self._spoilt(MailPhase.AUTH, ()):
            return
        _, _, response = argument.partition(" ")
        if not response:
            self._say("334 ")
            response = (await self._reader.readline()).decode("ascii", errors="replace").strip()
        shown = parse_xoauth2(base64.b64decode(response))
        if shown is None or not self._office.knows_token(shown[1]):
            self._say("535 5.7.3 Authentication unsuccessful")
            return
        self._logged_in = True
        self._say("235 2.7.0 Welcome")

    def _take_sender(self) -> None:
        if self._hang_ups != self._office.hang_ups:
            raise ConnectionBroken
        self._forget()
        if not self._logged_in:
            self._say("530 5.7.0 Authentication required")
        elif not self._spoilt(MailPhase.MAIL, ()):
            self._has_sender = True
            self._say("250 2.1.0 OK")

    def _take_recipient(self, argument: str) -> None:
        path = parse_path(argument.partition(":")[2])
        if not self._has_sender or path is None:
            self._say("503 5.5.1 MAIL first")
        elif not self._spoilt(MailPhase.RCPT, (path[0],)):
            self._recipients.append(path[0])
            self._say("250 2.1.5 OK")

    async def _take_message(self) -> None:
        if not self._recipients:
            self._say("503 5.5.1 RCPT first")
            return
        recipients = tuple(self._recipients)
        act = self._office.moods.at(MailPhase.DATA)
        if act is Act.REFUSE:
            self._refuse(MailPhase.DATA, recipients)
            self._forget()
            return
        self._say("354 Go ahead")
        if act is Act.DROP:
            await self._drop_before_dot(recipients)
        content = await self._read_body()
        act = self._office.moods.at(MailPhase.DOT)
        if act is Act.REFUSE:
            self._refuse(MailPhase.DOT, recipients)
        elif act is Act.DROP:
            self._office.write_down(Dropped(recipients))
            raise ConnectionBroken
        else:
            await self._accept(recipients, content, answered=act is Act.GO_ON)
        self._forget()

    async def _accept(self, recipients: tuple[str, ...], content: bytes, *, answered: bool) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self._office.write_down(
            Accepted(recipients, message_id_of(content) or "", digest, time.time(), answered=answered)
        )
        if not answered:
            raise ConnectionBroken
        await asyncio.sleep(self._office.seconds_a_message)
        self._say(f"250 2.0.0 Queued as {next(_numbers)}")

    async def _drop_before_dot(self, recipients: tuple[str, ...]) -> None:
        """Break off after the 354, or in the middle of a body that comes in more than one piece."""
        await self._reader.read(LINE_OCTETS)
        self._office.write_down(Dropped(recipients))
        raise ConnectionBroken

    async def _read_body(self) -> bytes:
        """Read up to the dot, and take the stuffed ones out (RFC 5321 section 4.5.2)."""
        lines: list[bytes] = []
        while (line := await self._reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def _spoilt(self, phase: MailPhase, recipients: tuple[str, ...]) -> bool:
        """Refuse at a phase where the server is in that mood; whether it did."""
        if self._office.moods.at(phase) is not Act.REFUSE:
            return False
        self._refuse(phase, recipients)
        return True

    def _refuse(self, phase: MailPhase, recipients: tuple[str, ...]) -> None:
        code, enhanced = self._office.moods.refusal()
        text = f"Refused at {phase}, number {next(_numbers)}"
        self._office.write_down(Refused(phase, code, enhanced, text, recipients))
        self._say(f"{code} {enhanced} {text}")
        if code == 421:  # RFC 5321 section 3.8: the server closes after it
            raise SessionEnded

    def _forget(self) -> None:
        self._has_sender = False
        self._recipients = []

    def _say(self, reply: str) -> None:
        self._writer.write(reply.encode() + b"\r\n")
