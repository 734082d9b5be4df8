"""A mail server in memory that says and does whatever it is told, and a clock that costs no time.

Session, wire, dialogue, parser and judge are the real ones; a deadline costs no time, and a hang is seen at once:
nothing is left to wait for.

The server is a fair one in one point only: it answers a command once, or says one thing too many where a client has
a chance to see it. Against one that answers what it was not asked, and swallows an answer for it, there is no defence.
"""

from __future__ import annotations

import asyncio
import re
import selectors
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from tocsin_workers.smtp.body import LONE_DOT

if TYPE_CHECKING:
    from collections.abc import Iterator


class Hung(AssertionError):  # noqa: N818  # the word says it
    """Nothing is ready, no timer runs, and the test is not done."""


class VirtualTime(selectors.SelectSelector):
    """Waits for nothing: where the loop would sleep, its clock jumps."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Hung
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = VirtualTime()
        super().__init__(self._virtual)
        self.errors: list[BaseException] = []
        """What was raised in a callback; the loop would only log it."""
        self.set_exception_handler(lambda _loop, context: self.errors.append(context["exception"]))

    def time(self) -> float:
        return self._virtual.now


class Do(Enum):
    """What the server does where it owes a reply, or in the middle of a body.

    Whether or not the reply gets through, the server means it: a dot may be accepted without a word.
    """

    REPLY = "reply"
    CUT = "cut"
    """Close without a word."""
    CUT_REPLY = "cut reply"
    """Close in the middle of the reply."""
    LAST_REPLY = "last reply"
    """Reply, then close."""
    NOTHING = "nothing"
    """Say nothing, now and for ever."""
    ONE_TOO_MANY = "one too many"
    """Reply, and refuse something that nobody asked for."""
    RUBBISH = "rubbish"
    """Say something that is no SMTP, now and for ever."""


class Answer(Enum):
    """A reply's line; USUAL is what an obliging server says, 354 to DATA and 250 to all else."""

    USUAL = ""
    YES = "250 Fine"
    GO_ON = "354 Go ahead"
    ODD = "334 VXNlcm5hbWU6"
    LATER = "450 4.3.0 Later"
    FULL = "450 4.2.2 Mailbox full"
    TOO_MANY = "452 4.5.3 Too many recipients"
    NO = "550 5.1.1 User unknown"
    SPAM = "550 5.7.1 This is spam"
    OUT_OF_STEP = "503 5.5.1 Bad sequence of commands"
    BYE = "421 4.3.2 Bye"
    BYE_TO_MANY = "421 4.5.3 Too many recipients"

    @property
    def is_good_bye(self) -> bool:
        return self.value.startswith("421")

    def octets(self, lines: int, about: str = "") -> bytes:
        """Give the reply in so many lines, with a word about what it is the reply to."""
        return f"{self.value[:3]}-and\r\n".encode() * (lines - 1) + f"{self.value}{about}\r\n".encode()


RUBBISH = (b"what?\r\n", b"250 " + b"x" * 9000 + b"\r\n", (b"250-" + b"x" * 4000 + b"\r\n") * 10, b"x" * 9000)


class Move(NamedTuple):
    """What the server does next, and in how many lines and pieces it says it; `cut_at` is for `CUT_REPLY`."""

    do: Do = Do.REPLY
    answer: Answer = Answer.USUAL
    lines: int = 1
    piece: int = 0
    """Octets that arrive at once; 0: all."""
    cut_at: int = 1


FRIENDLY = Move()
_SUBJECT = re.compile(rb"Subject: (\d+)\r\n")


@dataclass
class MoodyServer:
    """Reads commands and bodies, and makes its moves. `messages` is the truth: whom it has accepted what for.

    Its replies to a body end with `#` and the number that the body has in its `Subject: `.
    """

    moves: dict[str, Iterator[Move]]
    """By the verb of the command, or `dot`."""
    pipelining: bool
    smtputf8: bool
    mid_body: Iterator[bool]
    """For each body, whether a move is made before its dot has come."""
    outbox: list[bytes] = field(default_factory=list)
    """Pieces on their way to the client."""
    closing: bool = False
    mute: bool = False
    strange: bool = False
    """It has done something after which a client must not use the session again."""
    accepted_rcpts: set[str] = field(default_factory=set)
    messages: list[tuple[frozenset[str], bytes]] = field(default_factory=list)
    mail_is_open: bool = False
    rcpts: set[str] = field(default_factory=set)
    in_body: bool = False
    body_octets: int = 0
    """Octets that came after a 354, a lone dot left out."""
    _buffer: bytes = b""
    _mid_body_is_due: bool = False

    def receive(self, data: bytes) -> None:
        if self.closing or self.mute:
            return
        if not self.pipelining and not self.in_body:
            assert not self.outbox, "sent ahead of a reply to a server without PIPELINING"
        self._buffer += data
        while self._buffer and not (self.closing or self.mute):
            if not (self._take_body() if self.in_body else self._take_line()):
                return

    def _take_line(self) -> bool:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        self._buffer = rest
        assert self.smtputf8 or line.isascii()
        verb, _, argument = line.decode().partition(" ")
        match verb:
            case "MAIL":
                assert not self.mail_is_open, "MAIL in the middle of a transaction"
                self.rcpts = set()
                self.mail_is_open = self._answer("MAIL", Answer.YES) is Answer.YES
            case "RCPT":
                address = argument[argument.index("<") + 1 : argument.index(">")]
                if self._answer("RCPT", Answer.YES) is Answer.YES:
                    self.rcpts.add(address)
                    self.accepted_rcpts.add(address)
            case "DATA":
                if self._answer("DATA", Answer.GO_ON) is Answer.GO_ON:
                    self.in_body = True
                    self._mid_body_is_due = next(self.mid_body)
            case "RSET":
                if self._answer("RSET", Answer.YES) is Answer.YES:
                    self.mail_is_open, self.rcpts = False, set()
            case "QUIT":
                self._say(b"221 Bye\r\n", 0)
                self.closing = True
            case _:
                raise AssertionError(f"not a command: {line[:80]!r}")
        return True

    def _take_body(self) -> bool:
        if self._buffer != LONE_DOT:
            self.body_octets += len(self._buffer)
            if self._mid_body_is_due:
                # Whatever it says here, it is through with this client. It does not say yes to what it has not seen.
                self._mid_body_is_due = False
                self._answer("dot", Answer.NO, instead_of_yes=Answer.NO, about=_number(self._buffer))
                self.mute = True
                return False
        if self._buffer.startswith(LONE_DOT):
            body, rest = LONE_DOT, self._buffer[3:]
        else:
            body, end, rest = self._buffer.partition(b"\r\n.\r\n")
            if not end:
                return False
            body += end
        self._buffer = rest
        self.in_body, self.mail_is_open = False, False
        # It may have accepted what it does not say yes to: only a clear no is one.
        if self._answer("dot", Answer.YES, about=_number(body)) in {Answer.YES, Answer.ODD, Answer.BYE}:
            self.messages.append((frozenset(self.rcpts), body))
        return True

    def _answer(self, step: str, usual: Answer, *, instead_of_yes: Answer = Answer.YES, about: str = "") -> Answer:
        """Make the next move; give what the server means by it, whether or not the client gets to know."""
        move = next(self.moves[step])
        answer = usual if move.answer is Answer.USUAL else move.answer
        if answer is Answer.YES:
            answer = instead_of_yes
        said = answer.octets(move.lines, about)
        self.strange |= move.do is not Do.REPLY or answer is Answer.ODD or answer.is_good_bye
        match move.do:
            case Do.REPLY:
                self._say(said, move.piece)
                self.closing = answer.is_good_bye
            case Do.LAST_REPLY:
                self._say(said, move.piece)
                self.closing = True
            case Do.CUT_REPLY:
                self._say(said[: min(move.cut_at, len(said) - 1)], move.piece)
                self.closing = True
            case Do.ONE_TOO_MANY:
                # In one piece, so that the client sees it before it has written anything more, if it has not already.
                self._say(said + b"550 5.5.1 And another thing\r\n", 0)
                self.closing = step in {"MAIL", "RCPT"} or answer.is_good_bye or bool(self._buffer)
            case Do.RUBBISH:
                self._say(RUBBISH[move.cut_at % len(RUBBISH)], move.piece)
                self.mute = True
            case Do.CUT:
                self.closing = True
            case Do.NOTHING:
                self.mute = True
        return answer

    def _say(self, data: bytes, piece: int) -> None:
        if piece:
            self.outbox += [data[start : start + piece] for start in range(0, len(data), piece)]
        else:
            self.outbox.append(data)


def _number(body: bytes) -> str:
    found = _SUBJECT.match(body)
    return "" if found is None else f" #{int(found[1])}"


HIGH_WATER = 100_000


class MemoryTransport(asyncio.Transport):
    """Carries octets between a protocol and the server, a piece each turn of the loop; slow bodies pause the writer."""

    def __init__(self, server: MoodyServer) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._protocol: asyncio.Protocol | None = None
        self._inbox: list[bytes] = []
        self._paused = False
        self._is_closing = False
        self.written = bytearray()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing:
            return
        self.written += data
        self._inbox.append(bytes(data))
        if sum(map(len, self._inbox)) > HIGH_WATER and not self._paused:
            assert self._protocol is not None
            self._paused = True
            self._protocol.pause_writing()
        self._loop.call_soon(self._turn)

    def abort(self) -> None:
        self._end()

    def close(self) -> None:
        while self._inbox and not self._is_closing:
            self._server.receive(self._inbox.pop(0))
        self._end()

    def _turn(self) -> None:
        if self._is_closing:
            return
        assert self._protocol is not None
        if self._inbox:
            self._server.receive(self._inbox.pop(0))
        elif self._paused:
            self._paused = False
            self._protocol.resume_writing()
        if self._server.outbox:
            self._protocol.data_received(self._server.outbox.pop(0))
        elif self._server.closing:
            self._protocol.eof_received()
            self._end()
            return
        if self._inbox or self._paused or self._server.outbox or self._server.closing:
            self._loop.call_soon(self._turn)

    def _end(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            assert self._protocol is not None
            self._loop.call_soon(self._protocol.connection_lost, None)
