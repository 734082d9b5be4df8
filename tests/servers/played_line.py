"""A connection in memory to a mail server that takes every message, but for what a test tells it to say or not to say.

Session, wire, series and dialogue are the real ones.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.pipelining import Pipelining
from tocsin_workers.smtp.series import CHUNK
from tocsin_workers.smtp.session import Session, unobserved

if TYPE_CHECKING:
    from collections.abc import Callable

_DOT: Final = b"\r\n.\r\n"


class PlayedLine(asyncio.Transport):
    """`answers` has what the server says to a verb (or to `dot`), the usual if nothing stands there.

    A verb that is in `held` is not answered before `let_go`; `reached` says when it came. `bodies` are those of which
    the server has seen the dot.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, str | Callable[[str], str | None]] = {}
        self.held: set[str] = set()
        self.reached: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.seen: Counter[str] = Counter()
        self.bodies: list[bytes] = []
        self.takes_slowly = False
        """Whether it has enough for now with the first piece of a body that comes in several; `take_on` goes on."""
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self._buffer = b""
        self._accepted = 0
        self._is_in_body = False
        self._is_waiting = False
        self._is_closing = False

    def let_go(self, verb: str) -> None:
        """Answer a verb after all, now and from now on."""
        self.held.discard(verb)
        if self._is_waiting:
            self._is_waiting = False
            self._answer(verb, "")
            self._read()

    def take_on(self) -> None:
        """Take what else there is to write."""
        assert self._protocol is not None
        self._protocol.resume_writing()

    def hang_up(self) -> None:
        """Close without a word."""
        if not self._is_closing:
            self._is_closing = True
            assert self._protocol is not None
            self._protocol.eof_received()
            self._protocol.connection_lost(None)

    # What the session does.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Take who listens."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Whether it is of no further use."""
        return self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take octets; they are answered in the next turn of the loop."""
        if not self._is_closing:
            self._buffer += bytes(data)
            self._loop.call_soon(self._read)
            if self.takes_slowly and self._is_in_body and len(data) >= CHUNK:
                assert self._protocol is not None
                self.seen["piece"] += 1
                self.reached["piece"].set()
                self._protocol.pause_writing()

    def abort(self) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close."""
        if not self._is_closing:
            self._is_closing = True
            assert self._protocol is not None
            self._loop.call_soon(self._protocol.connection_lost, None)

    # What the server does.

    def _read(self) -> None:
        while self._buffer and not (self._is_waiting or self._is_closing):
            end = _DOT if self._is_in_body else b"\r\n"
            whole, found, rest = self._buffer.partition(end)
            if not found:
                return
            self._buffer = rest
            if self._is_in_body:
                self._is_in_body = False
                self.bodies.append(whole)
                self._step("dot", "")
            else:
                line = whole.decode()
                self._step(line.partition(" ")[0], line)

    def _step(self, verb: str, line: str) -> None:
        self.seen[verb] += 1
        self.reached[verb].set()
        if verb in self.held:
            self._is_waiting = True
        else:
            self._answer(verb, line)

    def _answer(self, verb: str, line: str) -> None:
        answer = self.answers.get(verb)
        usual = "250 2.0.0 Ok"
        if verb == "DATA":
            usual = "354 Go ahead" if self._accepted else "554 5.5.1 No valid recipients"
        said = (answer(line) if callable(answer) else answer) or usual
        self._is_in_body = said.startswith("354")
        self._accepted = 0 if verb == "MAIL" else self._accepted + (verb == "RCPT" and said.startswith("2"))
        assert self._protocol is not None
        if not self._is_closing:
            self._protocol.data_received(f"{said}\r\n".encode())


def session_on(line: PlayedLine, *, pipelining: Pipelining = Pipelining.ENVELOPE) -> Session:
    """Give a session that has been let in already."""
    offered = Capabilities(pipelining=True, eight_bit_mime=True, smtputf8=True)
    return Session(
        line,
        offered,
        server="mail.example:587",
        deadlines=Deadlines(),
        observe=unobserved,
        pipelining=pipelining,
    )
