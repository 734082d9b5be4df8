"""The raw client's program; see `client_process` for what it says and is told."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

import uvloop

from bench.mail import (
    BATCH_SIZE,
    SENDER,
    SHARED_SUBJECT,
    SHARED_TEXT,
    Load,
    Mode,
    individual_subject,
    individual_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = "\0"
#: What stands for a message's number and its visible recipient.
NUMBER: Final = "\1"
TO: Final = "\2"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One message on the wire."""

    envelope: bytes
    replies: int
    """How many replies the envelope has, DATA's included."""
    body: bytes


def transactions(load: Load) -> Iterator[Transaction]:
    """Make the messages from a template, one at a time."""
    match load.mode:
        case Mode.INDIVIDUAL:
            template = _template(individual_subject(NAME), individual_text(NAME))
            for number, (address, name) in enumerate(zip(load.addresses(), load.names(), strict=True)):
                body = template.replace(NAME, name).replace(NUMBER, f"{load.tag}-{number}").replace(TO, address)
                yield Transaction(_envelope([address]), 3, body.encode())
        case Mode.SHARED:
            template = _template(SHARED_SUBJECT, SHARED_TEXT).replace(TO, SENDER)
            addresses = load.addresses()
            for number in range(load.messages):
                recipients = list(islice(addresses, BATCH_SIZE))
                body = template.replace(NUMBER, f"{load.tag}-{number}").encode()
                yield Transaction(_envelope(recipients), 2 + len(recipients), body)


def _template(subject: str, text: str) -> str:
    headers = (
        f"From: {SENDER}\nTo: {TO}\nSubject: {subject}\nDate: {formatdate()}\n"
        f"Message-ID: <{NUMBER}@campus.example>\nMIME-Version: 1.0\n"
        'Content-Type: text/plain; charset="utf-8"\nContent-Transfer-Encoding: 7bit\n\n'
    )
    return (headers + text).replace("\n", "\r\n") + ".\r\n"


def _envelope(recipients: list[str]) -> bytes:
    commands = [f"MAIL FROM:<{SENDER}>\r\n", *(f"RCPT TO:<{address}>\r\n" for address in recipients), "DATA\r\n"]
    return "".join(commands).encode()


class Sending:
    """One load, of which every connection takes the next message when it is free."""

    def __init__(self, load: Load) -> None:
        self._left = transactions(load)
        self._busy = 0
        self.accepted = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def over(self, connections: list[Connection]) -> int:
        """Send everything; give how many messages were accepted."""
        self._busy = len(connections)
        for connection in connections:
            connection.begin(self)
        await self.done
        return self.accepted

    def next(self) -> Transaction | None:
        return next(self._left, None)

    def rest(self) -> None:
        """Note that a connection has nothing left to do."""
        self._busy -= 1
        if self._busy == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Reply(Enum):
    """What a reply is to; its value is the code that it has to have."""

    GREETING = b"220"
    HELLO = b"250 "
    ENVELOPE = b"250"
    DATA = b"354"
    DOT = b"250."


class Connection(asyncio.Protocol):
    """One SMTP session."""

    def __init__(self, *, full: bool) -> None:
        self._full = full
        self._buffer = b""
        self._expected = deque([Reply.GREETING])
        self._sending: Sending | None = None
        self._current: Transaction | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("closed by the server"))

    def begin(self, sending: Sending) -> None:
        """Send messages until there are none left."""
        self._sending = sending
        self._transport.write(self._next_envelope())
        if self._current is None:
            sending.rest()

    def data_received(self, data: bytes) -> None:
        lines = (self._buffer + data).split(b"\r\n")
        self._buffer = lines.pop()
        for line in lines:
            if line[3:4] == b"-":
                continue
            reply = self._expected.popleft()
            if line[:3] != reply.value[:3]:
                self._fail(RuntimeError(f"{line!r} is no answer to {reply.name}"))
                self._transport.abort()
                return
            if reply is not Reply.ENVELOPE:
                self._answered(reply)

    def _answered(self, reply: Reply) -> None:
        match reply:
            case Reply.GREETING:
                self._expected.append(Reply.HELLO)
                self._transport.write(b"EHLO client.campus.example\r\n")
            case Reply.HELLO:
                self.ready.set_result(None)
            case Reply.DATA:
                assert self._current is not None
                body = self._current.body
                self._expected.append(Reply.DOT)
                self._transport.write(body + self._next_envelope() if self._full else body)
            case Reply.DOT:
                assert self._sending is not None
                self._sending.accepted += 1
                if not self._full:
                    self._transport.write(self._next_envelope())
                if self._current is None:
                    self._sending.rest()
            case _:
                raise AssertionError(reply)

    def _next_envelope(self) -> bytes:
        """Take the next message; empty where there is none."""
        assert self._sending is not None
        self._current = self._sending.next()
        if self._current is None:
            return b""
        self._expected.extend([Reply.ENVELOPE] * (self._current.replies - 1))
        self._expected.append(Reply.DATA)
        return self._current.envelope

    def _fail(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
        if self._sending is not None:
            self._sending.fail(error)


async def serve() -> None:
    """Connect as configured, and send what standard input tells."""
    loop = asyncio.get_running_loop()
    configuration = json.loads(sys.stdin.readline())
    connections: list[Connection] = []
    for _ in range(configuration["connections"]):
        _, connection = await loop.create_connection(
            lambda: Connection(full=configuration["full"]), configuration["host"], configuration["port"]
        )
        connections.append(connection)
    await asyncio.gather(*(connection.ready for connection in connections))
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        sending = Sending(Load(Mode(asked["mode"]), asked["recipients"], asked["tag"]))
        print(json.dumps({"sent": await sending.over(connections)}), flush=True)


if __name__ == "__main__":
    uvloop.run(serve())
