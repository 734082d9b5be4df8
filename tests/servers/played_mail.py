"""A mail server without a network: it answers by a script, and remembers what it took.

Sessions run the real series of dialogues; only the wire is missing. They wait at gates where a process may be frozen or
killed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tests.servers.gates import Place, current_gate, pass_gate
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.dialogue import CutKind
from tocsin_workers.smtp.pipelining import Pipelining, PipeliningWatch
from tocsin_workers.smtp.replies import Reply
from tocsin_workers.smtp.series import Counters, Series
from tocsin_workers.smtp.session import unobserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.servers.gates import Gate
    from tests.servers.played_worker import PlayedWorker
    from tocsin_workers.smtp import series
    from tocsin_workers.smtp.dialogue import Transaction
    from tocsin_workers.smtp.envelope import Envelope

#: What a server may say, or that it hangs up or falls silent.
ANSWERS: Final[Mapping[str, Reply | CutKind]] = MappingProxyType(
    {
        "ok": Reply(250, "2.0.0", "Ok"),
        "try later": Reply(451, "4.3.0", "Try again later"),
        "greylisted": Reply(450, "4.2.0", "Greylisted, come back in a minute"),
        "too fast": Reply(450, "4.7.0", "Rate limit exceeded"),
        "too many recipients": Reply(452, "4.5.3", "Too many recipients"),
        "user unknown": Reply(550, "5.1.1", "User unknown"),
        "mailbox full": Reply(552, "5.2.2", "Mailbox full"),
        "spam": Reply(554, "5.7.1", "This looks like spam"),
        "going away": Reply(421, "4.3.2", "Service shutting down"),
        "cut": CutKind.LOST,
        "silence": CutKind.DEADLINE,
    }
)
#: Behind an answer to the final dot: the server took the message nevertheless.
BUT_TAKEN: Final = " (but taken)"

_DOT: Final = b"\r\n.\r\n"
_START_INPUT: Final = Reply(354, None, "End with a dot")
_NO_VALID_RECIPIENTS: Final = Reply(554, "5.5.1", "No valid recipients")
_OUT_OF_ORDER: Final = Reply(503, "5.5.1", "Bad sequence of commands")
_MESSAGE_ID: Final = re.compile(rb"^Message-ID:\s*(<[^>]+>)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """What a server says in one transaction, as keys of `ANSWERS`; the answers to RCPT come round again."""

    mail: str = "ok"
    rcpt: tuple[str, ...] = ("ok",)
    data: str = "ok"
    final: str = "ok"


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that the server took, from a slice of a worker (told by its gate), and what became of the word of it.

    `is_told` says that the process read the 250; `committed` is done once the recorder has written it down.
    `is_in_doubt` says that the process was killed, cut off or taken for dead before that: a second message may follow.
    """

    worker: PlayedWorker
    gate: Gate | None
    addresses: frozenset[str]
    message_id: str
    is_told: bool = False
    committed: asyncio.Future[None] | None = None
    is_in_doubt: bool = False
    is_drained: bool = False
    """Whether its process has ended in good order since, and so must have recorded it."""

    @property
    def is_committed(self) -> bool:
        """Whether the ledger knows of it for sure."""
        known = self.committed
        if self.is_drained:
            return True
        return known is not None and known.done() and not known.cancelled() and known.exception() is None


@dataclass(slots=True)
class PlayedMailServer:
    """Everything that was taken, by whomever."""

    deliveries: list[Delivery] = field(default_factory=list[Delivery])

    def taken(self, address: str) -> list[Delivery]:
        """Give the deliveries for an address."""
        return [delivery for delivery in self.deliveries if address in delivery.addresses]


class PlayedSession:
    """Stands for a session: opened, secured and authenticated already."""

    server: Final = "mail.example:587"
    farewell: Final = None

    def __init__(self, server: PlayedMailServer, worker: PlayedWorker, pipelining: Pipelining) -> None:
        self.capabilities = Capabilities(smtputf8=True, eight_bit_mime=True, pipelining=True)
        self.counters = Counters()
        self.pipelining = PipeliningWatch(pipelining)
        self.is_open = True
        self.opened_at = self.last_used_at = worker.clock.read()
        self._worker = worker
        self._conversation = _Conversation(server, worker)

    async def deliver(self, deliveries: Iterator[series.Delivery]) -> None:
        """Carry messages one after the other, each by the worker's next script."""
        if not self.is_open:
            return
        carried = Series(
            (_WatchedDelivery(one, self._worker, self._conversation) for one in deliveries),
            self.capabilities,
            watch=self.pipelining,
            counters=self.counters,
            observe=unobserved,
        )
        try:
            await self._carry(carried)
        except asyncio.CancelledError:
            self.is_open = False
            carried.interrupt(CutKind.ABORTED, "played: we broke it off")
            raise
        self.is_open = not carried.is_broken
        if carried.error is not None:
            raise carried.error

    async def quit(self) -> None:
        """Close."""
        self.is_open = False

    def abort(self) -> None:
        """Close."""
        self.is_open = False

    async def _carry(self, carried: Series) -> None:
        server = self._conversation
        await pass_gate(Place.ENVELOPE)
        while flight := bytes(carried.flight()):
            if server.is_in_body and not carried.is_finished:
                await pass_gate(Place.DOT)
            bodies = server.bodies
            replies, cut = server.receive(flight)
            if server.bodies > bodies:
                await pass_gate(Place.REPLY)
            if replies:
                carried.hear(replies)
            if cut is not None:
                carried.interrupt(cut, f"played: {cut}")
            if server.is_in_body and not carried.is_finished:
                await pass_gate(Place.BODY)
            elif not server.is_in_a_message:
                await pass_gate(Place.ENVELOPE)


class _WatchedDelivery:
    """A message on its way of which the player knows when its body is begun, and what the process hears of it."""

    def __init__(self, delivery: series.Delivery, worker: PlayedWorker, conversation: _Conversation) -> None:
        self._delivery = delivery
        self._worker = worker
        self._conversation = conversation
        self._taken: Delivery | None = None

    @property
    def envelope(self) -> Envelope:
        return self._delivery.envelope

    def begin_body(self) -> bytes:
        body = self._delivery.begin_body()
        gate = current_gate()
        assert gate is not None
        assert gate.in_touch_since == self._worker.in_touch_since, "a body was begun after others had taken over"
        assert self._worker.is_leasing(), "a body was begun when the lease could have lapsed"
        self._conversation.expect(self._take, in_touch_since=self._worker.in_touch_since)
        return body

    def may_end_body(self) -> None:
        self._delivery.may_end_body()

    def done(self, transaction: Transaction) -> None:
        if self._taken is not None:
            self._worker.hear_of(self._taken, transaction)
        self._delivery.done(transaction)

    def _take(self, delivery: Delivery) -> None:
        self._taken = delivery


class _Conversation:
    """The server's end of one session."""

    def __init__(self, server: PlayedMailServer, worker: PlayedWorker) -> None:
        self.is_in_body = False
        self.is_in_a_message = False
        self.bodies = 0
        """Bodies whose dots it has seen."""
        self._server = server
        self._worker = worker
        self._script = Script()
        self._has_sender = False
        self._asked = 0
        self._welcome: list[str] = []

    def expect(self, take: Callable[[Delivery], None], *, in_touch_since: int) -> None:
        """Take note of who is told what becomes of the next body, and what it was begun under."""
        self._take = take
        self._in_touch_since = in_touch_since

    def receive(self, octets: bytes) -> tuple[list[Reply], CutKind | None]:
        """Give the replies, and how it ends if it does."""
        replies: list[Reply] = []
        while octets:
            whole, end, octets = octets.partition(_DOT if self.is_in_body else b"\r\n")
            assert end, "half a command, or half a body"
            said = self._at_the_dot(whole) if self.is_in_body else self._at(whole.decode())
            if isinstance(said, CutKind):
                return replies, said
            replies.append(said)
            if said.closing:
                break
        return replies, None

    def _at(self, line: str) -> Reply | CutKind:
        match line.partition(" ")[0]:
            case "MAIL":
                self._script = self._worker.next_script()
                self.is_in_a_message, self._asked, self._welcome = True, 0, []
                answer = ANSWERS[self._script.mail]
                self._has_sender = _is_yes(answer)
            case "RCPT":
                answer = ANSWERS[self._script.rcpt[self._asked % len(self._script.rcpt)]]
                answer = answer if self._has_sender else _OUT_OF_ORDER
                self._asked += 1
                if _is_yes(answer):
                    self._welcome.append(line[line.index("<") + 1 : line.rindex(">")])
            case "DATA":
                answer = self._at_data()
                self.is_in_body = answer is _START_INPUT
                self.is_in_a_message = self.is_in_body or self._has_sender
            case "RSET":
                answer = ANSWERS["ok"]
                self.is_in_a_message = False
            case verb:
                raise AssertionError(f"not expected: {verb}")
        return answer

    def _at_data(self) -> Reply | CutKind:
        if not self._has_sender:
            return _OUT_OF_ORDER
        if not self._welcome:
            return _NO_VALID_RECIPIENTS
        return _START_INPUT if self._script.data == "ok" else ANSWERS[self._script.data]

    def _at_the_dot(self, body: bytes) -> Reply | CutKind:
        self.is_in_body = self.is_in_a_message = False
        self.bodies += 1
        said = self._script.final
        if said == "ok" or said.endswith(BUT_TAKEN):
            named = _MESSAGE_ID.search(body)
            assert named is not None
            delivery = Delivery(self._worker, current_gate(), frozenset(self._welcome), named[1].decode())
            # Frozen in the one moment between the look at the lease and the dot: the dot comes late.
            delivery.is_in_doubt = self._in_touch_since != self._worker.in_touch_since
            self._server.deliveries.append(delivery)
            self._take(delivery)
        return ANSWERS[said.removesuffix(BUT_TAKEN)]


def _is_yes(answer: Reply | CutKind) -> bool:
    return isinstance(answer, Reply) and answer.accepted
