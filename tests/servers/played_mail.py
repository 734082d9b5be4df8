"""A mail server without a network: it answers by a script, and remembers what it took.

Sessions run the real dialogue; only the wire is missing. They wait at gates where a process may be frozen or killed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tests.servers.gates import Place, current_gate, pass_gate
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.dialogue import Cut, CutKind, Dialogue, Transaction
from tocsin_workers.smtp.envelope import LocalRefusal, commands
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply
from tocsin_workers.smtp.session import Counters

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from tests.servers.gates import Gate
    from tests.servers.played_worker import PlayedWorker
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
    pipelined: bool = True


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

    def __init__(self, server: PlayedMailServer, worker: PlayedWorker) -> None:
        self.capabilities = Capabilities(smtputf8=True, eight_bit_mime=True)
        self.counters = Counters()
        self.is_open = True
        self.opened_at = self.last_used_at = worker.clock.read()
        self._mail = server
        self._worker = worker

    async def transact(
        self, envelope: Envelope, body_wire: bytes, on_body: Callable[[], None] | None = None
    ) -> Transaction:
        """Carry out one transaction by the worker's next script."""
        await pass_gate(Place.ENVELOPE)
        script = self._worker.next_script()
        built = commands(envelope, self.capabilities)
        assert not isinstance(built, LocalRefusal)
        self.counters.transactions += 1
        dialogue = Dialogue(built, pipelined=script.pipelined)
        dialogue.start()
        delivery: Delivery | None = None
        asked = 0
        while not dialogue.done:
            if dialogue.owes_body:
                await pass_gate(Place.BODY)
                self._begin_body(on_body)
                in_touch_since = self._worker.in_touch_since
                await pass_gate(Place.DOT)
                dialogue.body_written()
                delivery = self._take(envelope, dialogue.result, body_wire, script)
                if delivery is not None:
                    # Frozen in the one moment between the look at the lease and the dot: the dot comes late.
                    delivery.is_in_doubt = in_touch_since != self._worker.in_touch_since
                await pass_gate(Place.REPLY)
            answer = _answer(script, dialogue, asked)
            asked += dialogue.phase is Phase.RCPT
            if isinstance(answer, CutKind):
                dialogue.interrupt(Cut(answer, dialogue.phase, f"played: {answer}"))
            else:
                dialogue.receive(answer)
        self.is_open = dialogue.cut is None
        if delivery is not None:
            self._worker.hear_of(delivery, dialogue.result)
        return dialogue.result

    async def quit(self) -> None:
        """Close."""
        self.is_open = False

    def abort(self) -> None:
        """Close."""
        self.is_open = False

    def _begin_body(self, on_body: Callable[[], None] | None) -> None:
        assert on_body is not None
        try:
            on_body()
        except Exception:
            self.is_open = False
            raise
        gate = current_gate()
        assert gate is not None
        assert gate.in_touch_since == self._worker.in_touch_since, "a body was begun after others had taken over"
        assert self._worker.is_leasing(), "a body was begun when the lease could have lapsed"

    def _take(self, envelope: Envelope, transaction: Transaction, body_wire: bytes, script: Script) -> Delivery | None:
        if script.final != "ok" and not script.final.endswith(BUT_TAKEN):
            return None
        welcome = [
            address
            for address, reply in zip(envelope.recipients, transaction.recipients, strict=True)
            if isinstance(reply, Reply) and reply.accepted
        ]
        named = _MESSAGE_ID.search(body_wire)
        assert named is not None
        delivery = Delivery(self._worker, current_gate(), frozenset(welcome), named[1].decode())
        self._mail.deliveries.append(delivery)
        return delivery


def _answer(script: Script, dialogue: Dialogue, asked: int) -> Reply | CutKind:  # noqa: PLR0911 - an answer a phase
    """Give what the server says to what the dialogue waits for."""
    so_far = dialogue.result
    is_welcome = isinstance(so_far.mail, Reply) and so_far.mail.accepted
    match dialogue.phase:
        case Phase.MAIL:
            return ANSWERS[script.mail]
        case Phase.RCPT:
            return ANSWERS[script.rcpt[asked % len(script.rcpt)]] if is_welcome else _OUT_OF_ORDER
        case Phase.DATA if not is_welcome:
            return _OUT_OF_ORDER
        case Phase.DATA if not any(isinstance(one, Reply) and one.accepted for one in so_far.recipients):
            return _NO_VALID_RECIPIENTS
        case Phase.DATA:
            return _START_INPUT if script.data == "ok" else ANSWERS[script.data]
        case Phase.FINAL:
            return ANSWERS[script.final.removesuffix(BUT_TAKEN)]
        case _:
            return ANSWERS["ok"]
