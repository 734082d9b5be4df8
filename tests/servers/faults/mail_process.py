"""The mail server and the token endpoint in a process of their own, which ends when its standard input does."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, assert_never

import msgspec

from tests.servers.faults import mail_control
from tests.servers.faults.mail_moods import Moods
from tests.servers.faults.mail_session import LINE_OCTETS, MailSession
from tocsin_console.demo.certificates import DemoCertificates
from tocsin_console.demo.token_endpoint import SERVER_ERROR, Hang, TokenEndpoint

if TYPE_CHECKING:
    from tests.servers.faults.mail_events import MailEvent

#: More requests than a failing endpoint ever sees before it is mended.
_FAILURES = 10_000


class MailServer:
    """Everything that the process serves: see `mail_session.Office` for what sessions use of it."""

    def __init__(self, configuration: mail_control.Configuration) -> None:
        directory = Path(configuration.directory)
        certificates = DemoCertificates(directory)
        self.moods = Moods(Random(configuration.seed))
        self.seconds_a_message = configuration.seconds_a_message
        self.hang_ups = 0
        self._tls = certificates.server_context()
        self._ca_file = certificates.ca_file
        self._events_file = directory / "mail.jsonl"
        self._events = os.open(self._events_file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        self._tokens = TokenEndpoint(
            tls=certificates.server_context(),
            clients={configuration.client_id: configuration.client_secret},
            lifetime_seconds=configuration.token_seconds,
        )
        self._requests_before = 0
        self._ports = [0, 0]
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> mail_control.Whereabouts:
        """Listen, and say where."""
        await self._tokens.start()
        await self._listen()
        return mail_control.Whereabouts(
            plain_port=self._ports[0],
            token_port=self._ports[1],
            token_endpoint=self._tokens.token_url("{tenantId}"),
            ca_file=str(self._ca_file),
            events_file=str(self._events_file),
        )

    async def stop(self) -> None:
        """End everything."""
        await self._leave()
        await self._tokens.stop()
        os.close(self._events)

    async def obey(self, command: mail_control.Command) -> mail_control.Done:
        """Carry a command out."""
        strikes = self.moods.strikes
        match command:
            case mail_control.Behave(mood):
                self.moods.change(mood)
            case mail_control.HangUp():
                self.hang_ups += 1
            case mail_control.Leave():
                await self._leave()
            case mail_control.Return():
                await self._listen()
            case mail_control.FailTokens(by_hanging):
                self._tokens.revoke_all()
                self._requests_before = self._tokens.requests
                self._tokens.fail_next = [Hang() if by_hanging else SERVER_ERROR] * _FAILURES
                self.hang_ups += 1
            case mail_control.GiveTokens():
                self._tokens.fail_next = []
            case mail_control.Count():
                pass
            case _ as never:
                assert_never(never)
        return mail_control.Done(strikes, self._tokens.requests - self._requests_before)

    def write_down(self, event: MailEvent) -> None:
        """Keep an event: the operating system has it before the client hears of it."""
        os.write(self._events, msgspec.json.encode(event) + b"\n")

    def knows_token(self, token: str) -> bool:
        """Say whether the endpoint gave it and it has not ended."""
        return self._tokens.check(token)

    async def _listen(self) -> None:
        for place, tls in enumerate((None, self._tls)):
            server = await asyncio.start_server(
                lambda reader, writer, with_token=tls is not None: self._serve(reader, writer, with_token=with_token),
                "127.0.0.1",
                self._ports[place],
                ssl=tls,
                limit=4 * LINE_OCTETS,
                backlog=128,
            )
            self._ports[place] = server.sockets[0].getsockname()[1]
            self._servers.append(server)

    async def _leave(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, with_token: bool) -> None:
        self._writers.add(writer)
        try:
            await MailSession(self, reader, writer, wants_token=with_token).run()
        finally:
            self._writers.discard(writer)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    server = MailServer(msgspec.json.decode(await told.readline(), type=mail_control.Configuration))
    _answer(await server.start())
    while line := await told.readline():
        command: mail_control.Command = msgspec.json.decode(line, type=mail_control.Command)
        _answer(await server.obey(command))
    await server.stop()


def _answer(answer: msgspec.Struct) -> None:
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())
