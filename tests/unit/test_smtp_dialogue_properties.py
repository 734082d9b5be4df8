"""A session against a server that says and does whatever hypothesis thinks of: what holds all the same.

Session, wire, series, dialogue, parser and judge are the real ones (see `tests.servers.moody_mail`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.servers.moody_mail import FRIENDLY, Answer, Do, MemoryTransport, MoodyServer, Move, VirtualTimeLoop
from tocsin_workers.classification import Kind
from tocsin_workers.outcomes import Judgement, Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.dialogue import CutKind
from tocsin_workers.smtp.envelope import Envelope, LocalRefusal
from tocsin_workers.smtp.pipelining import Pipelining
from tocsin_workers.smtp.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tocsin_workers.smtp.dialogue import Transaction


class LeaseLapsed(Exception):  # noqa: N818  # what a caller of ours would raise, by its name there
    pass


class Stumbled(Exception):  # noqa: N818  # the same
    pass


class Mistaken(Exception):  # noqa: N818  # the same
    pass


class Plan(NamedTuple):
    """One example: the server's moves, and the series of envelopes that are sent to it one after the other."""

    moves: dict[str, list[Move]]
    offers_pipelining: bool
    pipelining: Pipelining
    smtputf8: bool
    series: list[list[list[bool]]]
    """For each message of each series its recipients, and whether each has an ASCII address."""
    big: bool
    mid_body: list[bool]
    forbidden: list[bool]
    """For each time that we are asked whether a body may be begun or ended, whether we raise."""
    stumbles_at: int | None
    """The message instead of which the iterator raises."""
    mistaken_at: int | None
    """The message whose `done` raises."""
    cancelled_after: int | None
    """The turns of the loop after which the first series is cancelled."""


def then(some: list[Any], for_ever: Any) -> Iterator[Any]:
    yield from some
    while True:
        yield for_ever


SMALL = b"Subject: %d\r\n\r\n.hello\r\nThat was %d.\r\n"
BIG = b"Subject: %d\r\n\r\n" + (b"." + b"y" * 75 + b"\r\n") * 2500 + b"That was %d.\r\n"
# A deadline is in the plan wherever the server says nothing; longer than all of them together nothing may take.
DEADLINES = Deadlines()
LONGEST = 20 * 120.0 + DEADLINES.final + 1000


class Message:
    """A delivery, and all that was asked of it and told."""

    def __init__(self, play: Play, number: int, ascii_ones: list[bool]) -> None:
        self.number = number
        self.addresses = tuple(f"{'u' if plain else 'ü'}{number}-{i}@y" for i, plain in enumerate(ascii_ones))
        self.envelope = Envelope("s@x", self.addresses)
        self.wire = to_wire((BIG if play.plan.big else SMALL) % (number, number))
        self.transaction: Transaction | None = None
        self.begun = False
        self._play = play

    @property
    def is_refused_by_us(self) -> bool:
        """Whether it was told at once, while the one before it may still be under way."""
        return self.transaction is not None and isinstance(self.transaction.mail, LocalRefusal)

    @property
    def is_ended(self) -> bool:
        """Whether its final dot was written."""
        return b"That was %d.\r\n.\r\n" % self.number in self._play.transport.written

    def begin_body(self) -> bytes:
        assert not self.begun
        self.begun = True
        assert set(self.addresses) & self._play.server.accepted_rcpts, "a body is begun although nobody was accepted"
        assert b"Subject: %d\r\n" % self.number not in self._play.transport.written
        assert set(range(self.number)) <= set(self._play.told), "a body is begun before the last one was answered"
        self.may_end_body()
        return self.wire

    def may_end_body(self) -> None:
        assert not self.is_ended
        if next(self._play.forbidden):
            raise LeaseLapsed

    def done(self, transaction: Transaction) -> None:
        assert self.transaction is None, "told twice"
        self.transaction = transaction
        self._play.told.append(self.number)
        if self.number == self._play.plan.mistaken_at:
            raise Mistaken


class Play:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        moves_by_step = {step: then(some, FRIENDLY) for step, some in plan.moves.items()}
        self.server = MoodyServer(moves_by_step, plan.offers_pipelining, plan.smtputf8, then(plan.mid_body, False))
        self.transport = MemoryTransport(self.server)
        self.forbidden = then(plan.forbidden, False)
        self.messages: list[Message] = []
        """Those that were asked for."""
        self.told: list[int] = []
        self.session = Session(
            self.transport,
            Capabilities(pipelining=plan.offers_pipelining, smtputf8=plan.smtputf8),
            server="memory",
            deadlines=DEADLINES,
            observe=lambda _phase, _seconds: None,
            pipelining=plan.pipelining,
        )

    async def run(self) -> None:
        for place, envelopes in enumerate(self.plan.series):
            if not self.session.is_open:
                break
            delivering = asyncio.create_task(self.session.deliver(self._deliveries(envelopes)))
            if place == 0 and self.plan.cancelled_after is not None:
                for _ in range(self.plan.cancelled_after):
                    await asyncio.sleep(0)
                delivering.cancel()
            try:
                await delivering
            except (LeaseLapsed, Mistaken, asyncio.CancelledError):
                assert not self.session.is_open
            except Stumbled:
                pass
            asked = [number for number in self.told if not self.messages[number].is_refused_by_us]
            assert asked == sorted(asked)
            assert sorted(self.told) == list(range(len(self.messages))), "not everybody was told"
            # What is still under way arrives, so that nothing unasked is taken for the answer to the next MAIL.
            while (self.server.outbox or self.server.closing) and self.session.is_open:  # noqa: ASYNC110  # virtual
                await asyncio.sleep(0)
            assert not (self.server.strange and self.session.is_open), "a session is used on that is out of step"
        await self.session.quit()
        assert not self.session.is_open
        assert asyncio.get_running_loop().time() < LONGEST

    def _deliveries(self, envelopes: list[list[bool]]) -> Iterator[Message]:
        for ascii_ones in envelopes:
            number = len(self.messages)
            if number == self.plan.stumbles_at:
                raise Stumbled
            assert number - len(self.told) <= (self.plan.pipelining is Pipelining.FULL), "asked for too early"
            message = Message(self, number, ascii_ones)
            self.messages.append(message)
            yield message


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


SERIES = st.lists(
    st.sampled_from([1, 1, 2, 3, 5, 20]).flatmap(
        lambda count: st.lists(st.sampled_from([True] * 9 + [False]), min_size=count, max_size=count)
    ),
    min_size=1,
    max_size=4,
)
NEVER_OR_ONCE = st.one_of(*[st.none()] * 7, st.integers(0, 3))
plans = st.builds(
    Plan,
    moves=st.fixed_dictionaries(
        {
            "MAIL": moves(17, Answer.NO, at_most=4),
            "RCPT": moves(16, Answer.NO, Answer.TOO_MANY, at_most=24),
            "DATA": moves(13, Answer.LATER, at_most=4),
            "dot": moves(8, Answer.LATER, Answer.NO, at_most=4),
            "RSET": moves(5, Answer.NO, at_most=2),
        }
    ),
    offers_pipelining=st.sampled_from([True, True, False]),
    pipelining=st.sampled_from([Pipelining.FULL, Pipelining.FULL, Pipelining.ENVELOPE, Pipelining.OFF]),
    smtputf8=st.booleans(),
    series=st.lists(SERIES, min_size=1, max_size=2),
    big=st.sampled_from([False, False, False, True]),
    mid_body=st.lists(st.sampled_from([False, False, False, True]), max_size=3),
    forbidden=st.lists(st.sampled_from([False, False, False, True]), max_size=3),
    stumbles_at=NEVER_OR_ONCE,
    mistaken_at=NEVER_OR_ONCE,
    cancelled_after=st.one_of(*[st.none()] * 7, st.integers(1, 40)),
)


@settings(max_examples=600, deadline=None)
@given(plans)
def test_whatever_a_server_says_and_wherever_it_cuts_the_truth_is_told(plan: Plan) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:

        async def run() -> Play:
            play = Play(plan)
            await play.run()
            return play

        play = runner.run(run())
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        assert loop.errors == []
    accepted_by_server = {address: body for people, body in play.server.messages for address in people}
    for message in play.messages:
        check(message, accepted_by_server, smtputf8=plan.smtputf8)


def check(message: Message, accepted_by_server: dict[str, bytes], *, smtputf8: bool) -> None:
    for address in message.addresses:
        # No message ever ends early: neither a part of one nor a lone dot has gone to anybody.
        assert accepted_by_server.get(address, message.wire) == message.wire
    transaction = message.transaction
    assert transaction is not None
    assert transaction.body_written == message.is_ended
    if transaction.body_written and transaction.final is not None:
        assert transaction.final.text.endswith(f"#{message.number}"), "another message's reply"
    if transaction.cut is not None and transaction.cut.kind is CutKind.ABORTED and not transaction.body_written:
        assert not set(message.addresses) & set(accepted_by_server)
    judgement = judge(transaction)
    recipients = judgement.recipients
    assert [recipient.position for recipient in recipients] == list(range(len(message.addresses)))
    for address, recipient in zip(message.addresses, recipients, strict=True):
        took_it = address in accepted_by_server
        match recipient.verdict:
            case Verdict.SENT:
                assert took_it
                assert recipient.reply is not None
                assert recipient.reply.code == 250
            case Verdict.UNKNOWN:
                assert message.begun
                assert message.is_ended
            case Verdict.FAILED:
                refused_by_us = recipient.reply is None and not address.isascii() and not smtputf8
                assert refused_by_us or (recipient.reply is not None and recipient.reply.code // 100 == 5)
                assert not took_it
            case Verdict.DEFERRED:
                assert not took_it
    check_progress(judgement)


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
