"""From a judgement to what the ledger learns: the batch's bits, the email copy, the exceptions."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_sender_profile
from tocsin_schema.errors import RenderingError, Scope
from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.recording import RecordedException, Settlement
from tocsin_schema.ledger.sending import ClaimedBatch, ClaimedRecipient, SenderProfile
from tocsin_workers.classification import Kind, Outcome
from tocsin_workers.outcomes import Judgement, RecipientOutcome, Verdict, judge
from tocsin_workers.sender.preparing import PreparedMessage, UnrenderableRecipient
from tocsin_workers.sender.retrying import RetrySchedule
from tocsin_workers.sender.screening import DueRecipient
from tocsin_workers.sender.settling import (
    RESEND_SECONDS,
    THROTTLED_SECONDS,
    settle,
    settle_in_doubt,
    settle_unrenderable,
)
from tocsin_workers.smtp.dialogue import Transaction
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from tocsin_workers.sender.recording import MessageOutcome

NOON = datetime(2026, 11, 3, 12, 0, 0, tzinfo=UTC)
SCHEDULE = RetrySchedule(first_seconds=30.0, maximum_seconds=3600.0)
SIZE = 10
OK = Reply(250, "2.1.5", "Ok")
QUEUED = Reply(250, "2.0.0", "Ok: queued as 4RzABC")
GO = Reply(354, None, "Go ahead")
OCTETS = b"Subject: x\r\n\r\nhello\r\n"


def profile(copies: str = "reference") -> SenderProfile:
    return a_sender_profile(copies=copies)


def due(index: int, attempts: int = 0, *, alone: bool = False) -> DueRecipient:
    return DueRecipient(index, ClaimedRecipient(7, 3, 100 + index, f"r{index}@x.org", None, None), attempts, alone)


def message(*people: DueRecipient, on_unknown: str = "resend") -> PreparedMessage:
    return PreparedMessage(
        batch=ClaimedBatch(7, 3, 100, SIZE, 5, bit_string(0, SIZE)),
        on_unknown=on_unknown,
        recipients=people,
        envelope=Envelope("news@campus.example", tuple(one.recipient.address for one in people), size=len(OCTETS)),
        octets=OCTETS,
        digest=sha256(OCTETS).digest(),
        subject="x",
        reply_to="help@campus.example",
        visible_to="all@campus.example",
        message_id="<id@campus.example>",
        dated_at=NOON,
    )


def settled(
    sent: PreparedMessage,
    judgement: Judgement,
    *,
    copies: str = "reference",
    jitter: Callable[[], float] = lambda: 0.5,
) -> MessageOutcome:
    return settle(sent, judgement, profile(copies), schedule=SCHEDULE, jitter=jitter, accepted_at=NOON)


def outcome_of(
    verdict: Verdict,
    *,
    kind: Kind | None = None,
    reply: Reply | None = None,
    costs: bool = True,
    alone: bool = False,
    position: int = 0,
) -> RecipientOutcome:
    said = None if kind is None else Outcome(kind, Scope.RECIPIENT, permanent=False, rule="test")
    return RecipientOutcome(position, verdict, Phase.RCPT, reply, said, "because", costs, alone)


def settle_one(outcome: RecipientOutcome, *, attempts: int = 0, on_unknown: str = "resend") -> RecordedException:
    result = settled(message(due(4, attempts), on_unknown=on_unknown), Judgement((outcome,)))
    assert result.copy is None
    assert result.settlement == Settlement(7, 3, 5, SIZE, sent=0, settled=1 << 4)
    (row,) = result.exceptions
    return row


# Each verdict


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
@pytest.mark.parametrize("costs", [True, False])
def test_a_failed_recipient_is_never_due_again(on_unknown: str, *, costs: bool):
    row = settle_one(outcome_of(Verdict.FAILED, kind=Kind.REFUSED, costs=costs), on_unknown=on_unknown)
    assert (row.state, row.due_in_seconds, row.attempts) == ("failed", None, int(costs))


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
def test_a_deferred_recipient_is_due_when_the_schedule_says(on_unknown: str):
    row = settle_one(outcome_of(Verdict.DEFERRED, kind=Kind.TRANSIENT), attempts=2, on_unknown=on_unknown)
    assert (row.state, row.due_in_seconds, row.attempts) == ("pending", SCHEDULE.delay(3, 0.5), 3)


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
def test_what_costs_no_attempt_comes_back_soon_however_often(on_unknown: str):
    row = settle_one(outcome_of(Verdict.DEFERRED, kind=Kind.TOO_FAST, costs=False), attempts=9, on_unknown=on_unknown)
    assert (row.state, row.due_in_seconds, row.attempts) == ("pending", THROTTLED_SECONDS, 9)


def test_a_message_of_unknown_fate_is_sent_again_where_the_job_says_resend():
    row = settle_one(outcome_of(Verdict.UNKNOWN), on_unknown="resend")
    assert (row.state, row.due_in_seconds, row.attempts) == ("pending", RESEND_SECONDS, 1)


def test_a_message_of_unknown_fate_waits_for_a_person_where_the_job_says_hold():
    row = settle_one(outcome_of(Verdict.UNKNOWN), on_unknown="hold")
    assert (row.state, row.due_in_seconds, row.attempts) == ("unknown", None, 1)


def test_who_has_to_go_alone_goes_at_once():
    row = settle_one(outcome_of(Verdict.DEFERRED, kind=Kind.REFUSED, costs=False, alone=True), attempts=4)
    assert (row.state, row.due_in_seconds, row.attempts, row.alone) == ("pending", 0.0, 4, True)


def test_who_was_one_too_many_goes_at_once():
    row = settle_one(outcome_of(Verdict.DEFERRED, kind=Kind.TOO_MANY_RECIPIENTS, costs=False))
    assert (row.state, row.due_in_seconds, row.attempts) == ("pending", 0.0, 0)


def test_who_was_one_too_many_with_nobody_before_them_waits():
    row = settle_one(outcome_of(Verdict.DEFERRED, kind=Kind.TOO_MANY_RECIPIENTS, costs=True))
    assert row.due_in_seconds == SCHEDULE.delay(1, 0.5)


@pytest.mark.parametrize(
    ("verdict", "on_unknown", "costs"),
    list(itertools.product([Verdict.FAILED, Verdict.DEFERRED, Verdict.UNKNOWN], ["resend", "hold"], [True, False])),
)
def test_only_a_pending_exception_has_a_due_time_and_it_is_not_in_the_past(
    verdict: Verdict, on_unknown: str, *, costs: bool
):
    row = settle_one(outcome_of(verdict, costs=costs), on_unknown=on_unknown)
    assert (row.due_in_seconds is not None) == (row.state == "pending")
    assert row.due_in_seconds is None or row.due_in_seconds >= 0


def test_an_exception_says_where_and_what_the_server_said():
    row = settle_one(outcome_of(Verdict.FAILED, reply=Reply(550, "5.1.1", "No such user")))
    assert (row.job_number, row.ordinal, row.batch_number) == (7, 104, 3)
    assert (row.phase, row.code, row.enhanced_code, row.reply) == ("rcpt", 550, "5.1.1", "No such user")
    assert row.reason == "because"


def test_an_exception_without_a_reply_has_no_code():
    row = settle_one(outcome_of(Verdict.UNKNOWN))
    assert (row.code, row.enhanced_code, row.reply) == (None, None, None)


# The bits of the batch


def accepted_by(*replies: Reply) -> Judgement:
    return judge(Transaction(OK, replies, GO, QUEUED, body_written=True))


def test_a_refused_recipient_does_not_sink_its_message():
    result = settled(message(due(0), due(5), due(9)), accepted_by(OK, Reply(550, "5.1.1", "No"), OK))
    assert result.settlement == Settlement(7, 3, 5, SIZE, sent=1 | 1 << 9, settled=1 | 1 << 5 | 1 << 9)
    assert [(row.ordinal, row.state) for row in result.exceptions] == [(105, "failed")]
    assert result.copy is not None
    assert result.copy.recipients == "1000000001"


def test_a_message_that_nobody_was_sent_leaves_no_copy():
    refused = Transaction(OK, (OK, OK), GO, Reply(554, "5.6.0", "Message refused"), body_written=True)
    result = settled(message(due(0), due(1)), judge(refused))
    assert result.copy is None
    assert (result.settlement.sent, result.settlement.settled) == (0, 0b11)
    assert {row.state for row in result.exceptions} == {"failed"}


def test_a_judgement_of_another_length_is_a_programming_error():
    with pytest.raises(ValueError, match="zip"):
        settled(message(due(0)), accepted_by(OK, OK))


@given(st.lists(st.sampled_from(Verdict), min_size=1, max_size=SIZE), st.booleans(), st.data())
def test_everybody_is_settled_and_either_sent_or_an_exception(verdicts: list[Verdict], hold: bool, data: st.DataObject):
    indices = data.draw(st.lists(st.integers(0, SIZE - 1), min_size=len(verdicts), max_size=len(verdicts), unique=True))
    sent = message(*(due(index) for index in indices), on_unknown="hold" if hold else "resend")
    result = settled(
        sent,
        Judgement(
            tuple(
                outcome_of(verdict, reply=QUEUED if verdict is Verdict.SENT else None, position=place)
                for place, verdict in enumerate(verdicts)
            )
        ),
    )
    expected = {index for index, verdict in zip(indices, verdicts, strict=True) if verdict is Verdict.SENT}
    assert result.settlement.settled == sum(1 << index for index in indices)
    assert result.settlement.sent == sum(1 << index for index in expected)
    assert {row.ordinal - 100 for row in result.exceptions} == set(indices) - expected
    assert (result.copy is None) == (not expected)


# The copy


def test_a_copy_has_all_that_the_design_lists():
    copy = settled(message(due(2), due(3)), accepted_by(OK, OK)).copy
    assert copy is not None
    assert (copy.job_number, copy.batch_number, copy.lease_epoch) == (7, 3, 5)
    assert (copy.first_index, copy.recipients) == (2, "0011000000")
    assert (copy.profile, copy.from_address, copy.reply_to) == ("campus", "news@campus.example", "help@campus.example")
    assert (copy.visible_to, copy.subject) == ("all@campus.example", "x")
    assert (copy.message_id, copy.provider_id) == ("<id@campus.example>", "4RzABC")
    assert (copy.dated_at, copy.accepted_at) == (NOON, NOON)
    assert (copy.reply_code, copy.enhanced_code, copy.reply) == (250, "2.0.0", "Ok: queued as 4RzABC")
    assert (copy.size, copy.sha256) == (len(OCTETS), sha256(OCTETS).digest())
    assert copy.content is None


def test_a_full_copy_keeps_every_octet():
    copy = settled(message(due(0)), accepted_by(OK), copies="full").copy
    assert copy is not None
    assert copy.content == OCTETS


# Without a judgement


def test_a_recipient_whose_message_cannot_be_made_has_failed():
    batch = message(due(0)).batch
    result = settle_unrenderable(UnrenderableRecipient(batch, due(6), RenderingError("No room.", fix="Give one.")))
    assert result.settlement == Settlement(7, 3, 5, SIZE, sent=0, settled=1 << 6)
    (row,) = result.exceptions
    assert (row.ordinal, row.state, row.phase, row.due_in_seconds) == (106, "failed", "render", None)
    assert row.reason == "No room. Give one."


@pytest.mark.parametrize(
    ("on_unknown", "expected"), [("resend", ("pending", RESEND_SECONDS)), ("hold", ("unknown", None))]
)
def test_a_message_in_doubt_goes_as_its_job_says(on_unknown: str, expected: tuple[str, float | None]):
    result = settle_in_doubt(message(due(1), due(8), on_unknown=on_unknown), "the worker stopped", schedule=SCHEDULE)
    assert result.settlement == Settlement(7, 3, 5, SIZE, sent=0, settled=1 << 1 | 1 << 8)
    assert result.copy is None
    assert [(row.ordinal, row.state, row.due_in_seconds) for row in result.exceptions] == [
        (101, *expected),
        (108, *expected),
    ]


# Bit strings


def test_a_bit_string_has_recipient_0_first():
    assert bit_string(0b0001, 4) == "1000"
    assert bit_string(1 << 999, 1000) == "0" * 999 + "1"
    assert bit_string(0, 0) == ""


@given(st.integers(1, 1000).flatmap(lambda size: st.tuples(st.integers(0, 2**size - 1), st.just(size))))
def test_a_bit_string_is_as_long_as_the_batch_and_reads_back(mask_and_size: tuple[int, int]):
    mask, size = mask_and_size
    bits = bit_string(mask, size)
    assert len(bits) == size
    batch = ClaimedBatch(1, 0, 0, size, 1, bits)
    assert sum(1 << index for index in range(size) if batch.is_sent(index)) == mask


# Faults


def test_recipients_that_were_deferred_together_come_back_together():
    draws = iter([0.1, 0.9, 0.5])
    busy = judge(Transaction(OK, (OK, OK, OK), GO, Reply(451, "4.3.0", "Try later"), body_written=True))
    result = settled(message(due(0), due(1), due(2)), busy, jitter=lambda: next(draws))
    assert len({row.due_in_seconds for row in result.exceptions}) == 1


def test_who_has_to_go_alone_still_does_after_a_throttle():
    throttled = Judgement((outcome_of(Verdict.DEFERRED, kind=Kind.TOO_FAST, costs=False),))
    (row,) = settled(message(due(0, alone=True)), throttled).exceptions
    assert row.alone


def test_a_message_whose_fate_stays_unknown_is_sent_ever_more_slowly():
    again = settle_one(outcome_of(Verdict.UNKNOWN), attempts=8)
    assert again.due_in_seconds is not None
    assert again.due_in_seconds > 10 * RESEND_SECONDS
