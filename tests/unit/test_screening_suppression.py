"""Who is not sent to because the address is suppressed, and which refusals suppress one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.unit.test_sender_screening import batch, exception, indices, recipients_of
from tests.unit.test_sender_settling import due, message, settled
from tocsin_schema.ledger.recording import Settlement
from tocsin_schema.ledger.suppressions import ClaimedSuppression
from tocsin_workers.outcomes import judge
from tocsin_workers.sender.recording import _bare
from tocsin_workers.sender.screening import DueRecipient, ScreenedBatch, SuppressedRecipient, screen
from tocsin_workers.sender.settling import settle_suppressed
from tocsin_workers.smtp.dialogue import Transaction
from tocsin_workers.smtp.envelope import LocalReason, LocalRefusal
from tocsin_workers.smtp.replies import Reply

SINCE = datetime(2026, 11, 3, 12, tzinfo=UTC)
OK = Reply(250, "2.1.5", "Ok")
GO = Reply(354, None, "Go ahead")
NO_SUCH_USER = Reply(550, "5.1.1", "No such user")


def suppression(ordinal: int, *, job: int = 1) -> ClaimedSuppression:
    return ClaimedSuppression(job, ordinal, SINCE, "550 5.1.1 No such user")


def suppressed(screened: ScreenedBatch) -> list[int]:
    return [one.recipient.index for one in screened.suppressed]


# Who is not sent to


def test_a_suppressed_recipient_is_not_sent_to_and_the_others_are():
    one = batch(3, first=1000)
    (screened,) = screen([one], recipients_of(one), [], [suppression(1001)])
    assert indices(screened) == [0, 2]
    assert screened.suppressed == (
        SuppressedRecipient(DueRecipient(1, recipients_of(one)[1], 0), SINCE, "550 5.1.1 No such user"),
    )


def test_who_was_deferred_and_is_suppressed_by_now_learns_it_when_they_are_due():
    one = batch(2)
    exceptions = [exception(0, "pending", -1.0), exception(1, "pending", 60.0)]
    (screened,) = screen([one], recipients_of(one), exceptions, [suppression(0), suppression(1)])
    assert (indices(screened), suppressed(screened)) == ([], [0])
    assert screened.suppressed[0].recipient.attempts == 2
    assert screened.next_due_in_seconds == 60.0


def test_who_was_sent_to_or_is_settled_stays_so_whatever_is_suppressed():
    one = batch(4, sent=0b0001)
    exceptions = [exception(1, "failed", None), exception(2, "unknown", None), exception(3, "suppressed", None)]
    (screened,) = screen([one], recipients_of(one), exceptions, [suppression(ordinal) for ordinal in range(4)])
    assert (screened.due, screened.suppressed) == ((), ())


def test_a_suppression_holds_for_its_own_job_only():
    one, other = batch(1, job=1), batch(1, job=2)
    screened = screen([one, other], [*recipients_of(one), *recipients_of(other)], [], [suppression(0, job=2)])
    assert [suppressed(each) for each in screened] == [[], [0]]


def test_suppressed_recipients_are_settled_together_with_the_date_and_the_reason_and_cost_no_try():
    one = batch(4, first=1000)
    # What is the 3rd in UTC is the 4th in Auckland: the date is that of UTC, like every other that is shown.
    late = datetime(2026, 11, 4, 0, 30, tzinfo=timezone(timedelta(hours=13)))
    held = tuple(
        SuppressedRecipient(DueRecipient(index, recipients_of(one)[index], 2), late, "gone") for index in (1, 3)
    )
    result = settle_suppressed(ScreenedBatch(one, (), None, held))
    assert result.settlement == Settlement(1, 0, 1, 4, sent=0, settled=0b1010)
    assert result.copy is None
    assert [(row.ordinal, row.state, row.attempts, row.due_in_seconds) for row in result.exceptions] == [
        (1001, "suppressed", 2, None),
        (1003, "suppressed", 2, None),
    ]
    assert {(row.reason, row.is_try, row.dead_address) for row in result.exceptions} == {
        ("suppressed since 2026-11-03: gone", False, False)
    }


# Which refusals suppress


def dead(transaction: Transaction, *people: int) -> list[int]:
    """Say of whom it was recorded that their address is dead."""
    result = settled(message(*(due(index) for index in people)), judge(transaction))
    return [row.ordinal - 100 for row in result.exceptions if row.dead_address]


def test_an_address_that_is_refused_for_good_at_rcpt_is_dead_and_those_of_the_others_are_not():
    sent = Transaction(OK, (OK, NO_SUCH_USER, Reply(452, "4.2.2", "Full")), GO, OK, body_written=True)
    assert dead(sent, 0, 1, 2) == [1]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(450, "4.1.1", "No such user, perhaps"),
        Reply(552, "5.2.2", "Mailbox full"),
        Reply(550, "5.7.1", "Message rejected"),
        Reply(550, "5.1.8", "Bad outbound sender"),
        Reply(550, None, "No"),
    ],
    ids=str,
)
def test_a_refusal_that_says_less_than_that_is_about_no_address(reply: Reply):
    assert dead(Transaction(OK, (reply,), None, None, body_written=False), 0) == []


def test_a_refusal_outside_of_rcpt_kills_no_address():
    assert dead(Transaction(NO_SUCH_USER, (None,), None, None, body_written=False), 0) == []
    assert dead(Transaction(OK, (OK,), NO_SUCH_USER, None, body_written=False), 0) == []
    assert dead(Transaction(OK, (OK,), GO, NO_SUCH_USER, body_written=True), 0) == []


def test_an_address_that_this_server_cannot_be_given_is_not_dead():
    refused = Transaction(OK, (LocalRefusal(LocalReason.SMTPUTF8_NOT_OFFERED, "no"),), None, None, body_written=False)
    assert dead(refused, 0) == []


def test_what_the_ledger_refuses_in_full_is_recorded_without_suppressing_anybody():
    sent = Transaction(OK, (NO_SUCH_USER,), None, None, body_written=False)
    (row,) = settled(message(due(0)), judge(sent)).exceptions
    assert row.dead_address
    assert not _bare(row).dead_address
