"""A mail server that counts what every login does and can refuse what is too much, as Exchange Online does.

It is a process of its own, told what to do over its standard input, a JSON object a line, and answers each on its
standard output. Anybody may log in, with any password; what a login did is kept as a `LoginAccount`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import sys
from collections import defaultdict
from dataclasses import asdict
from time import monotonic
from typing import Any, Final, cast

import uvloop

from tests.servers.login_account import Enforced, LoginAccount, Refusal
from tests.servers.module_server import ModuleServer

END_OF_BODY: Final = b"\r\n.\r\n"


class LimitedMailServer(ModuleServer):
    """Runs while its `with` statement does. Nothing is refused before `enforce` says so."""

    module = "tests.servers.limited_mail_server"

    def enforce(self, login: str, enforced: Enforced) -> None:
        """Refuse a login what is too much, from now on."""
        self.ask(json.dumps({"login": login, "enforce": asdict(enforced)}))

    def seen(self, login: str) -> LoginAccount:
        """Ask what a login has done so far."""
        return LoginAccount(**self.ask(json.dumps({"login": login})))


# Its process


class Logins:
    """What all logins have done, and what each is refused."""

    def __init__(self) -> None:
        self.accounts: defaultdict[str, LoginAccount] = defaultdict(LoginAccount)
        self.enforced: defaultdict[str, Enforced] = defaultdict(Enforced)

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked, and tell what the login has done."""
        login = str(asked["login"])
        if "enforce" in asked:
            self.enforced[login] = Enforced(**asked["enforce"])
        return asdict(self.accounts[login])


class Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self._login: str | None = None
        self._recipients: list[str] = []
        self._buffer = b""
        self._in_body = False
        self._asked_for_login = False
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        self._transport.write(b"220 limited ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._taking is not None:
            self._taking.cancel()
        if self._login is not None:
            self._account.closed()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def _go_on(self) -> None:
        """Answer what has come, up to a body that takes its time."""
        while self._taking is None and not self._transport.is_closing():
            mark = END_OF_BODY if self._in_body else b"\r\n"
            line, found, rest = self._buffer.partition(mark)
            if not found:
                return
            self._buffer = rest
            if self._in_body:
                self._in_body = False
                self._take_body()
            elif self._asked_for_login:
                self._asked_for_login = False
                self._log_in(line)
            else:
                self._command(line)

    @property
    def _account(self) -> LoginAccount:
        assert self._login is not None
        return self._logins.accounts[self._login]

    def _command(self, line: bytes) -> None:
        match line[:4].upper():
            case b"EHLO":
                self._say("250-limited\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 AUTH PLAIN")
            case b"AUTH":
                self._authenticate(line)
            case b"QUIT":
                self._say("221 2.0.0 Bye")
                self._transport.close()
            case b"MAIL" | b"RCPT" | b"DATA" if self._login is None:
                self._say("530 5.7.0 Authentication required")
            case b"MAIL":
                self._account.offer(monotonic())
                self._recipients.clear()
                self._say("250 2.1.0 Ok")
            case b"RCPT":
                self._recipients.append(line.partition(b"<")[2].partition(b">")[0].decode())
                self._say("250 2.1.5 Ok")
            case b"DATA":
                self._begin_body()
            case b"RSET" | b"NOOP":
                self._say("250 2.0.0 Ok")
            case _:
                self._say("500 5.5.2 What?")

    def _authenticate(self, line: bytes) -> None:
        words = line.split()
        if len(words) == 3:
            self._log_in(words[2])
        else:
            self._asked_for_login = True
            self._say("334 ")

    def _log_in(self, response: bytes) -> None:
        """Take the login from a PLAIN response: authorization identity, login and password, with NULs between."""
        try:
            _, login, _ = base64.b64decode(response, validate=True).split(b"\0")
        except (binascii.Error, ValueError):
            self._say("501 5.5.2 Malformed")
            return
        self._login = login.decode()
        self._account.opened()
        self._say("235 2.7.0 Welcome")

    def _begin_body(self) -> None:
        assert self._login is not None
        match self._account.admit(self._logins.enforced[self._login], monotonic()):
            case None:
                self._in_body = True
                self._say("354 Go ahead")
            case Refusal.CONNECTIONS as refusal:
                self._say(refusal.value)
            case Refusal.RATE as refusal:
                self._say(refusal.value)
                self._transport.close()

    def _take_body(self) -> None:
        assert self._login is not None
        if seconds := self._logins.enforced[self._login].answer_seconds:
            self._taking = asyncio.get_running_loop().call_later(seconds, self._taken)
        else:
            self._account.take(monotonic(), self._recipients)
            self._say("250 2.0.0 Ok: queued")

    def _taken(self) -> None:
        self._taking = None
        self._account.take(monotonic(), self._recipients)
        self._say("250 2.0.0 Ok: queued")
        self._go_on()

    def _say(self, reply: str) -> None:
        self._transport.write(f"{reply}\r\n".encode())


async def serve() -> None:
    """Serve until standard input ends."""
    logins = Logins()
    server = await asyncio.get_running_loop().create_server(lambda: Conversation(logins), LimitedMailServer.host, 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - to whoever started us
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(logins.answer(json.loads(line))), flush=True)  # noqa: T201 - the same


if __name__ == "__main__":
    uvloop.run(serve())
