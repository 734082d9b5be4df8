"""Messages one behind the other: whose turn it is and what is written, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.dialogue import CutKind, Transaction
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.phases import Phase, TimedPhase
from tocsin_workers.smtp.pipelining import Pipelining, PipeliningWatch, Strain
from tocsin_workers.smtp.replies import Reply
from tocsin_workers.smtp.series import CHUNK, Counters, Series

if TYPE_CHECKING:
    from collections.abc import Iterator

OK, NO, LATER = Reply(250, "2.1.0", "Ok"), Reply(550, "5.1.1", "No"), Reply(451, "4.3.0", "Later")
GO, BYE, NOBODY = Reply(354, None, "Go"), Reply(421, "4.3.2", "Bye"), Reply(554, "5.5.1", "No valid recipients")
WELCOME = [OK, OK, GO]


class Message:
    def __init__(self, number: int, *, body: bytes | None = None, address: str = "") -> None:
        self.envelope = Envelope("s@x", (address or f"u{number}@y",))
        self.body = to_wire(b"%d" % number) if body is None else body
        self.opening = f"MAIL FROM:<s@x>\r\nRCPT TO:<{address or f'u{number}@y'}>\r\nDATA\r\n".encode()
        self.transaction: Transaction | None = None
        self.asked_to_end = 0
        self.begin_error: Exception | None = None
        self.done_error: Exception | None = None

    @property
    def verdict(self) -> Verdict | None:
        return None if self.transaction is None else judge(self.transaction).recipients[0].verdict

    def begin_body(self) -> bytes:
        if self.begin_error is not None:
            raise self.begin_error
        return self.body

    def may_end_body(self) -> None:
        self.asked_to_end += 1

    def done(self, transaction: Transaction) -> None:
        assert self.transaction is None
        self.transaction = transaction
        if self.done_error is not None:
            raise self.done_error


class Talking:
    """A series and what it writes. `pulled` counts the messages that were asked for."""

    def __init__(self, *messages: Message, form: Pipelining = Pipelining.FULL, error: Exception | None = None) -> None:
        self.pulled = 0
        self.laps: list[TimedPhase] = []
        self.counters = Counters()
        self.watch = PipeliningWatch(form)
        self._error = error
        self.series = Series(
            self._each(messages),
            Capabilities(pipelining=True),
            watch=self.watch,
            counters=self.counters,
            observe=lambda phase, _seconds: self.laps.append(phase),
        )

    def _each(self, messages: tuple[Message, ...]) -> Iterator[Message]:
        for message in messages:
            self.pulled += 1
            yield message
        if self._error is not None:
            raise self._error

    def write(self) -> bytes:
        written = b""
        while flight := self.series.flight():
            written += flight
        return written

    def hear(self, *replies: Reply) -> bytes:
        self.series.hear(list(replies))
        return self.write()


def three() -> tuple[Message, Message, Message]:
    return Message(0), Message(1), Message(2)


def test_a_body_and_the_next_envelope_go_in_one_flight():
    first, second, third = messages = three()
    talking = Talking(*messages)
    assert talking.write() == first.opening
    assert talking.pulled == 1
    assert talking.hear(*WELCOME) == first.body + second.opening
    assert talking.pulled == 2
    assert talking.hear(OK, *WELCOME) == second.body + third.opening
    assert talking.hear(OK, *WELCOME) == third.body
    assert not talking.series.is_finished
    assert talking.hear(OK) == b""
    assert talking.series.is_finished
    assert not talking.series.is_broken
    assert [message.verdict for message in messages] == [Verdict.SENT] * 3
    assert (talking.counters.transactions, talking.counters.bodies, talking.counters.recipients) == (3, 3, 3)
    assert talking.laps == [TimedPhase.ENVELOPE, TimedPhase.DATA, TimedPhase.FINAL] * 3
    assert talking.watch.has_worked


def test_with_envelopes_alone_the_next_one_waits_for_the_reply_to_the_body():
    first, second, _ = messages = three()
    talking = Talking(*messages, form=Pipelining.ENVELOPE)
    talking.write()
    assert talking.hear(*WELCOME) == first.body
    assert talking.pulled == 1
    assert talking.hear(OK) == second.opening


def test_the_final_reply_is_waited_for_first_and_then_the_next_envelopes():
    talking = Talking(*three())
    talking.write()
    talking.hear(*WELCOME)
    assert talking.series.phase is Phase.FINAL
    talking.hear(LATER)
    assert talking.series.phase is Phase.MAIL


def test_a_good_bye_to_a_body_belongs_to_that_one_and_the_next_has_nothing_to_fear():
    first, second, third = messages = three()
    talking = Talking(*messages)
    talking.write()
    talking.hear(*WELCOME)
    assert talking.hear(BYE) == b""
    assert talking.series.is_broken
    assert first.transaction is not None
    assert first.transaction.final == BYE
    assert second.transaction is not None
    assert second.transaction.mail is None
    assert second.transaction.cut is not None
    assert (second.transaction.cut.kind, second.transaction.cut.phase) == (CutKind.CLOSING, Phase.MAIL)
    recipient = judge(second.transaction).recipients[0]
    assert (recipient.verdict, recipient.costs_attempt) == (Verdict.DEFERRED, False)
    assert third.transaction is None
    assert talking.pulled == 2
    assert talking.watch.strained is None


def test_a_connection_lost_with_an_envelope_behind_a_body_leaves_one_doubt_and_speaks_against_it():
    first, second, _ = messages = three()
    talking = Talking(*messages)
    talking.write()
    talking.hear(*WELCOME)
    talking.series.interrupt(CutKind.LOST, "gone")
    assert first.verdict is Verdict.UNKNOWN
    assert second.verdict is Verdict.DEFERRED
    assert talking.watch.strained == (Strain.FINAL_REPLY_LOST, False)


def test_a_refused_body_does_not_stop_the_envelope_behind_it():
    first, second, third = messages = three()
    talking = Talking(*messages)
    talking.write()
    talking.hear(*WELCOME)
    assert talking.hear(LATER, *WELCOME) == second.body + third.opening
    assert first.verdict is Verdict.DEFERRED


def test_nobody_accepted_behind_a_body_and_asked_for_one_a_lone_dot_is_sent_alone():
    first, second, third = messages = three()
    talking = Talking(*messages)
    talking.write()
    talking.hear(*WELCOME)
    assert talking.hear(OK, OK, NO, GO) == b".\r\n"
    assert second.transaction is None
    assert talking.hear(NOBODY) == third.opening
    assert [message.verdict for message in messages] == [Verdict.SENT, Verdict.FAILED, None]
    assert first.transaction is not None


def test_a_reset_is_waited_for_before_the_next_envelope():
    _, second, third = messages = three()
    talking = Talking(*messages)
    talking.write()
    talking.hear(*WELCOME)
    assert talking.hear(OK, OK, OK, LATER) == b"RSET\r\n"
    assert talking.pulled == 2
    assert talking.hear(OK) == third.opening
    assert second.verdict is Verdict.DEFERRED


def test_a_refused_sender_behind_a_body_costs_one_flight():
    _, second, third = messages = three()
    talking = Talking(*messages)
    talking.write()
    talking.hear(*WELCOME)
    assert talking.hear(OK, NO, NO, NOBODY) == third.opening
    assert second.verdict is Verdict.FAILED


def test_what_comes_with_the_354_is_heard_before_the_body_is_written():
    first, second, _ = messages = three()
    talking = Talking(*messages)
    talking.write()
    assert talking.hear(*WELCOME, BYE) == b""
    assert first.transaction is not None
    assert not first.transaction.body_written
    assert first.verdict is Verdict.DEFERRED
    assert second.transaction is None


def test_a_good_bye_that_comes_with_the_last_final_reply_asks_for_nothing_more():
    first, *_ = messages = three()
    talking = Talking(*messages, form=Pipelining.ENVELOPE)
    talking.write()
    talking.hear(*WELCOME)
    assert talking.hear(OK, BYE) == b""
    assert talking.series.unasked == BYE
    assert talking.series.is_finished
    assert (first.verdict, talking.pulled) == (Verdict.SENT, 1)


def test_the_next_envelope_rides_behind_the_last_piece_of_a_big_body():
    big = to_wire((b"x" * 76 + b"\r\n") * 3000)
    first, second = Message(0, body=big), Message(1)
    talking = Talking(first, second)
    talking.write()
    talking.series.hear(WELCOME)
    pieces = []
    while flight := talking.series.flight():
        assert talking.pulled == 1 if len(flight) == CHUNK else talking.pulled == 2
        assert first.asked_to_end == (len(flight) != CHUNK)
        pieces.append(bytes(flight))
    assert b"".join(pieces) == big + second.opening
    assert talking.series.phase is Phase.FINAL


def test_a_message_that_this_server_cannot_be_asked_is_told_at_once_and_the_next_takes_its_place():
    first, foreign, third = Message(0), Message(1, address="ä@y"), Message(2)
    talking = Talking(first, foreign, third)
    talking.write()
    assert talking.hear(*WELCOME) == first.body + third.opening
    assert foreign.verdict is Verdict.FAILED
    assert talking.counters.transactions == 2


@pytest.mark.parametrize("place", [0, 1])
def test_a_body_that_must_not_be_begun_is_not_written_and_breaks_the_connection_off(place):
    messages = three()
    messages[place].begin_error = LookupError("the lease has lapsed")
    talking = Talking(*messages)
    talking.write()
    for _ in range(place):
        talking.hear(*WELCOME)
    assert talking.hear(*[OK] * place, *WELCOME) == b""
    assert talking.series.is_broken
    assert talking.series.error is messages[place].begin_error
    transaction = messages[place].transaction
    assert transaction is not None
    assert transaction.cut is not None
    assert (transaction.cut.kind, transaction.body_written) == (CutKind.ABORTED, False)
    assert talking.pulled == place + 1
    assert [message.verdict for message in messages[:place]] == [Verdict.SENT] * place


@pytest.mark.parametrize("extra", [OK, NO, GO])
def test_a_reply_that_came_before_its_command_was_written_ends_the_session(extra):
    first, second, _ = messages = three()
    talking = Talking(*messages)
    talking.write()
    assert talking.hear(OK, OK, LATER, extra) == b""
    assert talking.series.is_broken
    assert first.verdict is Verdict.DEFERRED
    assert first.transaction is not None
    assert first.transaction.cut is not None
    assert (first.transaction.cut.kind, first.transaction.cut.phase) == (CutKind.PROTOCOL, Phase.RSET)
    assert second.transaction is None


def test_the_step_in_which_a_server_says_good_bye_is_told():
    first = Message(0)
    talking = Talking(first)
    talking.write()
    talking.hear(OK, BYE)
    assert first.transaction is not None
    assert first.transaction.cut is not None
    assert (first.transaction.cut.phase, first.transaction.cut.reply) == (Phase.RCPT, BYE)


@given(
    st.integers(1, 8),
    st.lists(st.sampled_from([OK, OK, OK, OK, NO]), max_size=12) | st.sampled_from([[OK], [NO], [LATER]]),
    st.lists(st.sampled_from([GO, GO, LATER, BYE]), max_size=1),
    st.sampled_from([Pipelining.FULL, Pipelining.ENVELOPE]),
)
def test_replies_that_come_together_say_what_they_say_one_by_one(count, replies, last, form):
    def told(*groups: list[Reply]) -> Transaction | None:
        message = Message(0)
        message.envelope = Envelope("s@x", tuple(f"u{i}@y" for i in range(count)))
        talking = Talking(message, form=form)
        talking.write()
        for group in groups:
            if not talking.series.is_finished:
                talking.hear(*group)
        talking.series.interrupt(CutKind.LOST, "gone")
        return message.transaction

    # No more than are due, so that none comes before its command.
    due = [OK, *(replies * count)[:count], *last]
    assert told(due) == told(*([reply] for reply in due))


def test_an_iterator_that_fails_costs_nobody_their_reply():
    error = LookupError("no more")
    first = Message(0)
    talking = Talking(first, error=error)
    talking.write()
    assert talking.hear(*WELCOME) == first.body
    assert not talking.series.is_finished
    talking.hear(OK)
    assert first.verdict is Verdict.SENT
    assert talking.series.is_finished
    assert not talking.series.is_broken
    assert talking.series.error is error


def test_a_mistake_in_being_told_breaks_the_connection_off_and_everybody_else_is_told():
    first, second, third = messages = three()
    first.done_error = ZeroDivisionError()
    talking = Talking(*messages)
    talking.write()
    talking.hear(*WELCOME)
    assert talking.hear(OK, *WELCOME) == b""
    assert talking.series.is_broken
    assert talking.series.error is first.done_error
    assert second.transaction is not None
    assert third.transaction is None


def test_a_mistake_in_being_told_of_a_refusal_by_us_keeps_back_the_body_before_it():
    first, foreign = Message(0), Message(1, address="ä@y")
    foreign.done_error = ZeroDivisionError()
    talking = Talking(first, foreign)
    talking.write()
    assert talking.hear(*WELCOME) == b""
    assert first.transaction is not None
    assert not first.transaction.body_written
    assert talking.series.error is foreign.done_error


def test_a_body_without_its_final_dot_is_never_written():
    first = Message(0, body=b"Subject: x\r\n\r\n")
    talking = Talking(first, Message(1))
    talking.write()
    assert talking.hear(*WELCOME) == b""
    assert isinstance(talking.series.error, ValueError)


def test_no_messages_are_no_talk():
    talking = Talking()
    assert talking.write() == b""
    assert talking.series.is_finished
    assert not talking.series.is_broken
