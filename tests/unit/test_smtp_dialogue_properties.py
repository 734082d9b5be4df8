"""A session against a server that says and does whatever hypothesis thinks of: what holds all the same.

Session, wire, dialogue, parser and judge are the real ones; the transport is in memory and the clock is virtual, so
that a deadline costs no time and a hang is seen at once: nothing is left to wait for.

The server is a fair one in one point only: it answers a command once, or says one thing too many where a client has
a chance to see it. Against one that answers what it was not asked, and swallows an answer for it, there is no defence.
"""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin_workers.classification import Kind
from tocsin_workers.outcomes import Judgement, Verdict, judge
from tocsin_workers.smtp.body import LONE_DOT, to_wire
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tocsin_workers.smtp.dialogue import Transaction


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

    def octets(self, lines: int) -> bytes:
        """Give the reply in so many lines."""
        return f"{self.value[:3]}-and\r\n".encode() * (lines - 1) + f"{self.value}\r\n".encode()


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


@dataclass
class Server:
    """Reads commands and bodies, and makes its moves. `messages` is the truth: whom it has accepted what for."""

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
                self._answer("dot", Answer.NO, instead_of_yes=Answer.NO)
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
        if self._answer("dot", Answer.YES) in {Answer.YES, Answer.ODD, Answer.BYE}:
            self.messages.append((frozenset(self.rcpts), body))
        return True

    def _answer(self, step: str, usual: Answer, *, instead_of_yes: Answer = Answer.YES) -> Answer:
        """Make the next move; give what the server means by it, whether or not the client gets to know."""
        move = next(self.moves[step])
        answer = usual if move.answer is Answer.USUAL else move.answer
        if answer is Answer.YES:
            answer = instead_of_yes
        said = answer.octets(move.lines)
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
                # In one piece, so that the client sees it before it has written anything more.
                self._say(said + b"550 5.5.1 And another thing\r\n", 0)
                self.closing = step in {"MAIL", "RCPT"} or answer.is_good_bye
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


HIGH_WATER = 100_000


class MemoryTransport(asyncio.Transport):
    """Carries octets between a protocol and the server, a piece each turn of the loop; slow bodies pause the writer."""

    def __init__(self, server: Server) -> None:
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


class LeaseLapsed(Exception):  # noqa: N818  # what a caller of ours would raise, by its name there
    pass


class Plan(NamedTuple):
    """One example: the server's moves, and the envelopes that are sent to it one after the other."""

    moves: dict[str, list[Move]]
    pipelining: bool
    smtputf8: bool
    envelopes: list[list[bool]]
    """For each transaction its recipients, and whether each has an ASCII address."""
    big: bool
    mid_body: list[bool]
    forbidden: list[bool]
    """For each call of `begin_body`, whether it raises."""


def then(some: list[Any], for_ever: Any) -> Iterator[Any]:
    yield from some
    while True:
        yield for_ever


SMALL = b"Subject: %d\r\n\r\n.hello\r\n"
BIG = SMALL + (b"." + b"y" * 75 + b"\r\n") * 2500
# A deadline is in the plan wherever the server says nothing; longer than all of them together nothing may take.
DEADLINES = Deadlines()
LONGEST = 20 * 120.0 + DEADLINES.final + 1000


class Sent(NamedTuple):
    addresses: list[str]
    body: bytes
    transaction: Transaction | None
    """None where `begin_body` raised."""
    judgement: Judgement | None
    begun: int
    """How often `begin_body` was called."""
    writes_dot: bool
    is_open: bool


async def play(plan: Plan) -> tuple[Server, list[Sent]]:
    moves_by_step = {step: then(some, FRIENDLY) for step, some in plan.moves.items()}
    server = Server(moves_by_step, plan.pipelining, plan.smtputf8, then(plan.mid_body, False))
    transport = MemoryTransport(server)
    offered = Capabilities(pipelining=plan.pipelining, smtputf8=plan.smtputf8)
    session = Session(transport, offered, server="memory", deadlines=DEADLINES, observe=lambda _phase, _seconds: None)
    forbidden = then(plan.forbidden, False)
    results: list[Sent] = []
    for number, ascii_ones in enumerate(plan.envelopes):
        if not session.is_open:
            break
        addresses = [f"{'u' if plain else 'ü'}{number}-{i}@y" for i, plain in enumerate(ascii_ones)]
        wire = to_wire((BIG if plan.big else SMALL) % number)
        begun = 0

        def begin_body() -> None:
            nonlocal begun
            begun += 1
            assert server.accepted_rcpts, "begin_body although nobody was accepted"
            if begun == 1:
                assert not server.body_octets, "a body was begun before begin_body was asked"
            if next(forbidden):
                raise LeaseLapsed

        server.body_octets = 0
        server.accepted_rcpts.clear()
        transport.written.clear()
        transaction = None
        try:
            transaction = await session.transact(Envelope("s@x", tuple(addresses)), wire, begin_body)
        except LeaseLapsed:
            assert not session.is_open
        # What is still under way arrives, so that nothing unasked is taken for the answer to the next MAIL.
        while (server.outbox or server.closing) and session.is_open:  # noqa: ASYNC110  # a turn of the virtual loop
            await asyncio.sleep(0)
        assert not (server.strange and session.is_open), "a session is used on that is out of step"
        assert begun or not server.body_octets
        results.append(
            Sent(
                addresses,
                wire,
                transaction,
                None if transaction is None else judge(transaction),
                begun,
                transport.written.endswith(wire[-30:]),
                session.is_open,
            )
        )
    await session.quit()
    assert not session.is_open
    assert asyncio.get_running_loop().time() < LONGEST
    return server, results


def moves(friendly: int, *answers: Answer, at_most: int) -> st.SearchStrategy[list[Move]]:
    """Give moves of which so many in twenty are an obliging server's; `answers` are likelier than the others."""
    lines, piece = st.sampled_from([1, 1, 2, 3]), st.sampled_from([0, 0, 1, 7])
    polite = st.builds(Move, st.just(Do.REPLY), st.sampled_from([*answers * 4, *Answer]), lines, piece)
    wild = st.builds(
        Move, st.sampled_from(Do), st.sampled_from([*[Answer.USUAL] * 30, *Answer]), lines, piece, st.integers(0, 60)
    )
    some = {range(friendly): st.just(FRIENDLY), range(friendly, friendly + (20 - friendly) * 2 // 3): polite}
    return st.lists(
        st.integers(0, 19).flatmap(lambda drawn: next((some[r] for r in some if drawn in r), wild)), max_size=at_most
    )


RECIPIENTS = st.sampled_from([1, 1, 2, 3, 5, 20]).flatmap(
    lambda count: st.lists(st.sampled_from([True] * 9 + [False]), min_size=count, max_size=count)
)
plans = st.builds(
    Plan,
    moves=st.fixed_dictionaries(
        {
            "MAIL": moves(17, Answer.NO, at_most=3),
            "RCPT": moves(16, Answer.NO, Answer.TOO_MANY, at_most=24),
            "DATA": moves(13, Answer.LATER, at_most=3),
            "dot": moves(8, Answer.LATER, Answer.NO, at_most=3),
            "RSET": moves(5, Answer.NO, at_most=2),
        }
    ),
    pipelining=st.booleans(),
    smtputf8=st.booleans(),
    envelopes=st.integers(1, 3).flatmap(lambda count: st.lists(RECIPIENTS, min_size=count, max_size=count)),
    big=st.sampled_from([False, False, False, True]),
    mid_body=st.lists(st.sampled_from([False, False, False, True]), max_size=3),
    forbidden=st.lists(st.sampled_from([False, False, False, True]), max_size=3),
)


@settings(max_examples=600, deadline=None)
@given(plans)
def test_whatever_a_server_says_and_wherever_it_cuts_the_truth_is_told(plan: Plan) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        server, results = runner.run(play(plan))
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        assert loop.errors == []
    accepted_by_server: dict[str, bytes] = {address: body for people, body in server.messages for address in people}
    for sent in results:
        check(sent, server, accepted_by_server, smtputf8=plan.smtputf8)


def check(sent: Sent, server: Server, accepted_by_server: dict[str, bytes], *, smtputf8: bool) -> None:
    for address in sent.addresses:
        # No message ever ends early: neither a part of one nor a lone dot has gone to anybody.
        assert accepted_by_server.get(address, sent.body) == sent.body
    if sent.judgement is None or sent.transaction is None:
        assert not set(sent.addresses) & set(accepted_by_server)
        return
    if sent.is_open:
        assert sent.transaction.cut is None
    recipients = sent.judgement.recipients
    assert [recipient.position for recipient in recipients] == list(range(len(sent.addresses)))
    for address, recipient in zip(sent.addresses, recipients, strict=True):
        took_it = address in accepted_by_server
        match recipient.verdict:
            case Verdict.SENT:
                assert took_it
                assert recipient.reply is not None
                assert recipient.reply.code == 250
            case Verdict.UNKNOWN:
                assert sent.begun
                assert sent.writes_dot
            case Verdict.FAILED:
                refused_by_us = recipient.reply is None and not address.isascii() and not smtputf8
                assert refused_by_us or (recipient.reply is not None and recipient.reply.code // 100 == 5)
                assert not took_it
            case Verdict.DEFERRED:
                assert not took_it
    check_progress(sent.judgement)


def check_progress(judgement: Judgement) -> None:
    """Whoever comes back at once and at no cost does so in a smaller transaction: it cannot go round for ever."""
    count = len(judgement.recipients)
    at_once = [
        recipient
        for recipient in judgement.recipients
        if recipient.verdict is Verdict.DEFERRED and not recipient.costs_attempt and not recipient.alone
        if recipient.outcome is not None and recipient.outcome.kind is Kind.TOO_MANY_RECIPIENTS
    ]
    assert len(at_once) < count or (judgement.recipients_cap or count) < count
    assert count > 1 or not judgement.recipients[0].alone
