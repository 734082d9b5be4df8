"""Who of a claimed batch is sent to now, and when the others are due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sending import ClaimedBatch, ClaimedException, ClaimedRecipient
from tocsin_workers.sender.screening import DueRecipient, ScreenedBatch, screen


def batch(size: int, *, number: int = 0, first: int = 0, sent: int = 0, job: int = 1) -> ClaimedBatch:
    return ClaimedBatch(job, number, first, size, 1, bit_string(sent, size))


def recipients_of(one: ClaimedBatch) -> list[ClaimedRecipient]:
    return [
        ClaimedRecipient(one.job_number, one.number, one.first_ordinal + index, f"r{index}@example.org", None, None)
        for index in range(one.size)
    ]


def exception(ordinal: int, state: str, due_in: float | None, *, alone: bool = False, job: int = 1) -> ClaimedException:
    return ClaimedException(job, ordinal, 0, state, 2, due_in, alone)


def screen_one(one: ClaimedBatch, *exceptions: ClaimedException) -> ScreenedBatch:
    (screened,) = screen([one], recipients_of(one), exceptions)
    return screened


def indices(screened: ScreenedBatch) -> list[int]:
    return [due.index for due in screened.due]


def test_a_fresh_batch_is_due_as_a_whole():
    screened = screen_one(batch(3, first=1000))
    assert indices(screened) == [0, 1, 2]
    assert {(due.attempts, due.alone) for due in screened.due} == {(0, False)}
    assert screened.next_due_in_seconds is None


def test_who_was_sent_to_is_left_out_also_with_an_exception_that_is_due():
    assert indices(screen_one(batch(3, sent=0b011), exception(0, "pending", -5.0))) == [2]


@pytest.mark.parametrize("state", ["failed", "unknown", "suppressed"])
def test_who_is_settled_is_left_out(state: str):
    screened = screen_one(batch(2), exception(0, state, None))
    assert indices(screened) == [1]
    assert screened.next_due_in_seconds is None


def test_who_was_deferred_comes_when_the_time_has_come_with_what_is_known_of_them():
    screened = screen_one(batch(2), exception(1, "pending", 0.0, alone=True))
    assert screened.due[1] == DueRecipient(1, recipients_of(batch(2))[1], attempts=2, alone=True)


def test_who_is_due_later_says_when():
    screened = screen_one(batch(3), exception(0, "pending", 9.0), exception(2, "pending", 4.5))
    assert indices(screened) == [1]
    assert screened.next_due_in_seconds == 4.5


def test_a_batch_with_nobody_to_send_to_comes_back_all_the_same():
    screened = screen_one(batch(2, sent=0b01), exception(1, "failed", None))
    assert (screened.due, screened.next_due_in_seconds) == ((), None)


def test_batches_keep_their_order_and_their_own_recipients_even_with_equal_numbers():
    first, second = batch(2, job=9), batch(1, job=3)
    screened = screen([first, second], [*recipients_of(second), *recipients_of(first)], [exception(0, "failed", None)])
    assert [one.batch for one in screened] == [first, second]
    assert [indices(one) for one in screened] == [[0, 1], [0]]


def test_an_exception_belongs_to_its_own_job_only():
    one, other = batch(1, job=1), batch(1, job=2)
    screened = screen([one, other], [*recipients_of(one), *recipients_of(other)], [exception(0, "failed", None, job=2)])
    assert [indices(each) for each in screened] == [[0], []]


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["none", "failed", "unknown", "due", "later"])),
        min_size=1,
        max_size=30,
    )
)
def test_everybody_is_either_sent_to_settled_due_or_waiting(fates: list[tuple[bool, str]]):
    one = batch(len(fates), first=2000, sent=sum(1 << index for index, (sent, _) in enumerate(fates) if sent))
    exceptions = [
        exception(
            2000 + index,
            "pending" if fate in ("due", "later") else fate,
            {"due": -1.0, "later": 60.0 + index}.get(fate),
        )
        for index, (_, fate) in enumerate(fates)
        if fate != "none"
    ]
    screened = screen_one(one, *exceptions)
    assert indices(screened) == [
        index for index, (sent, fate) in enumerate(fates) if not sent and fate in ("none", "due")
    ]
    waiting = [60.0 + index for index, (sent, fate) in enumerate(fates) if not sent and fate == "later"]
    assert screened.next_due_in_seconds == min(waiting, default=None)
