"""A mail server that lets everybody in at once and then takes its time over every answer; a process of its own.

It is told what to do, and tells what it has seen, over its standard input and output, a line each.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import ClassVar, cast

import uvloop

from tests.servers.module_server import ModuleServer


@dataclass(slots=True)
class Seen:
    """What the server has seen."""

    open_now: int = 0
    messages: int = 0
    """Those whose 250 was given."""


class SlowMailServer(ModuleServer):
    """Runs while its `with` statement does, and answers each command of a message after `seconds`."""

    module = "tests.servers.slow_mail"

    def __init__(self, *, seconds: float) -> None:
        super().__init__(seconds)

    def seen(self) -> Seen:
        """Ask what it has seen."""
        return Seen(**self.ask("seen"))

    def let_go(self) -> Seen:
        """Have it give all answers that it owes, and from now on answer at once."""
        return Seen(**self.ask("let go"))


# Its process


class Conversation(asyncio.Protocol):
    """One connection. Answers come in order, each so long after its command."""

    seconds: ClassVar[float]
    seen: ClassVar[Seen] = Seen()
    all_open: ClassVar[set[Conversation]] = set()

    def __init__(self) -> None:
        self._buffer = b""
        self._in_body = False
        self._owed: list[tuple[asyncio.TimerHandle, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        Conversation.all_open.add(self)
        self.seen.open_now += 1
        self._transport.write(b"220 slow ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        for timer, _ in self._owed:
            timer.cancel()
        Conversation.all_open.discard(self)
        self.seen.open_now -= 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n.\r\n" if self._in_body else b"\r\n")
            if end < 0:
                return
            line, self._buffer = self._buffer[:end], self._buffer[end + (5 if self._in_body else 2) :]
            if self._in_body:
                self._in_body = False
                self._answer_later(b"250 2.0.0 Ok: queued\r\n")
            else:
                self._command(line[:4].upper())

    def give_all(self) -> None:
        """Give every answer that is owed."""
        for timer, _ in self._owed:
            timer.cancel()
        while self._owed:
            self._give_next()

    def _command(self, verb: bytes) -> None:
        match verb:
            case b"EHLO":
                self._transport.write(b"250-slow\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n")
            case b"QUIT":
                self._transport.write(b"221 2.0.0 Bye\r\n")
                self._transport.close()
            case b"DATA":
                self._in_body = True  # whatever comes next is the body, since the client waits for the 354
                self._answer_later(b"354 go ahead\r\n")
            case _:
                self._answer_later(b"250 2.0.0 Ok\r\n")

    def _answer_later(self, answer: bytes) -> None:
        timer = asyncio.get_running_loop().call_later(self.seconds, self._give_next)
        self._owed.append((timer, answer))

    def _give_next(self) -> None:
        _, answer = self._owed.pop(0)
        self.seen.messages += answer.endswith(b"queued\r\n")
        self._transport.write(answer)


async def serve(seconds: float) -> None:
    """Serve until standard input ends."""
    Conversation.seconds = seconds
    server = await asyncio.get_running_loop().create_server(Conversation, SlowMailServer.host, 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - to whoever started us
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line == "let go\n":
            Conversation.seconds = 0.0
            for conversation in list(Conversation.all_open):
                conversation.give_all()
        print(json.dumps(asdict(Conversation.seen)), flush=True)  # noqa: T201 - the same


if __name__ == "__main__":
    uvloop.run(serve(float(sys.argv[1])))
