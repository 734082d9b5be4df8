"""The recorder: what it puts together, and that it drops nothing while its process lives. No server is needed here."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from tests.played_ledger import SIZE, FakeLedger, Written, outcome, running, wanted
from tocsin_schema.ledger.recording import RecordedException, Settlement
from tocsin_workers.sender import recording
from tocsin_workers.sender.marks import merge_marks
from tocsin_workers.sender.recording import (
    LARGEST_GROUP,
    MessageOutcome,
    Recorder,
    merge_exceptions,
    merge_settlements,
)

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Pool


def exception(ordinal: int, state: str = "pending", *, job: int = 1, attempts: int = 1) -> RecordedException:
    return RecordedException(
        job, ordinal, 0, 1, state, attempts, 5.0 if state == "pending" else None, "rcpt", 450, None, None, "because"
    )


# Putting together


def test_messages_of_one_batch_become_one_settlement():
    merged = merge_settlements([outcome(0), outcome(3), outcome(5, sent=False)])
    assert merged == [Settlement(1, 0, 1, SIZE, sent=0b1001, settled=0b101001)]


def test_settlements_come_in_the_order_of_their_keys():
    merged = merge_settlements([outcome(batch=2, job=5), outcome(batch=1, job=5), outcome(batch=9, job=3)])
    assert [(one.job_number, one.batch_number) for one in merged] == [(3, 9), (5, 1), (5, 2)]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, SIZE - 1), st.booleans()),
        max_size=60,
    )
)
def test_no_bit_is_lost_or_made_up(given_outcomes: list[tuple[int, int, int, bool]]):
    merged = merge_settlements(
        outcome(index, batch=batch, job=job, sent=sent) for job, batch, index, sent in given_outcomes
    )
    keys = [(one.job_number, one.batch_number) for one in merged]
    assert keys == sorted(set(keys))
    settled = {
        (one.job_number, one.batch_number, bit) for one in merged for bit in range(SIZE) if one.settled >> bit & 1
    }
    sent = {(one.job_number, one.batch_number, bit) for one in merged for bit in range(SIZE) if one.sent >> bit & 1}
    assert settled == {(job, batch, index) for job, batch, index, _ in given_outcomes}
    assert sent == {(job, batch, index) for job, batch, index, was_sent in given_outcomes if was_sent}


def test_a_recipient_gets_the_last_word_only():
    group = [
        MessageOutcome(outcome().settlement, exceptions=(exception(4), exception(2))),
        MessageOutcome(outcome().settlement, exceptions=(exception(4, "failed"), exception(4, job=0))),
    ]
    rows = [(row.job_number, row.ordinal, row.state) for row in merge_exceptions(group)]
    assert rows == [(0, 4, "pending"), (1, 2, "pending"), (1, 4, "failed")]


def test_the_last_word_says_how_many_tries_there_were():
    group = [MessageOutcome(outcome().settlement, exceptions=(exception(4, attempts=attempts),)) for attempts in (1, 2)]
    (row,) = merge_exceptions(group)
    assert row.attempts == 2


# Writing


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.0)


async def test_an_outcome_is_told_once_it_is_committed_and_not_before():
    ledger = FakeLedger()
    ledger.open.clear()
    async with running(ledger) as (recorder, _):
        told = recorder.put(outcome())
        await ledger.entered.wait()
        assert not told.done()
        ledger.open.set()
        await told
        assert ledger.masks == [1]


async def test_what_comes_during_a_commit_goes_together_in_the_next():
    ledger = FakeLedger()
    ledger.open.clear()
    async with running(ledger) as (recorder, _):
        first = recorder.put(outcome(0))
        await ledger.entered.wait()
        others = [recorder.put(outcome(index)) for index in (1, 2, 3)]
        ledger.open.set()
        await asyncio.gather(first, *others)
    assert ledger.masks == [0b0001, 0b1110]


async def test_a_group_has_an_upper_bound_and_the_rest_follows():
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        await asyncio.gather(*(recorder.put(outcome(0, batch=number)) for number in range(LARGEST_GROUP + 1)))
    assert [len(group) for group in ledger.committed] == [LARGEST_GROUP, 1]


@pytest.mark.parametrize(
    "trouble",
    [errors.AdminShutdown(), errors.DeadlockDetected(), psycopg.OperationalError(), psycopg.InterfaceError()],
    ids=lambda one: type(one).__name__,
)
async def test_an_outcome_waits_for_a_ledger_that_is_away(trouble: psycopg.Error):
    ledger = FakeLedger(trouble, trouble, trouble)
    async with running(ledger) as (recorder, _):
        await recorder.put(outcome())
    assert ledger.masks == [1]


async def test_a_commit_whose_reply_was_lost_is_taken_for_done():
    ledger = FakeLedger(psycopg.OperationalError(), errors.UniqueViolation())
    async with running(ledger) as (recorder, _):
        await recorder.put(outcome(0))
        await recorder.put(outcome(1))
    assert ledger.masks == [0b10]


async def test_nobody_has_to_wait_for_the_answer():
    ledger = FakeLedger()
    ledger.open.clear()
    async with running(ledger) as (recorder, _):
        given_up = recorder.put(outcome(0))
        await ledger.entered.wait()
        given_up.cancel()
        ledger.open.set()
        await recorder.put(outcome(1))
    assert ledger.masks == [0b01, 0b10]


async def test_a_cancelled_writer_ends_what_it_has_begun_and_drain_writes_the_rest():
    ledger = FakeLedger()
    ledger.open.clear()
    async with running(ledger) as (recorder, task):
        begun = recorder.put(outcome(0))
        await ledger.entered.wait()
        rest = recorder.put(outcome(1))
        task.cancel()
        ledger.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert begun.done()
        assert not rest.done()
        await recorder.drain()
        assert rest.done()
    assert ledger.masks == [0b01, 0b10]


async def test_draining_with_nothing_left_asks_for_no_connection():
    ledger = FakeLedger()
    await Recorder(cast("Pool", ledger), uuid4()).drain()
    assert not ledger.entered.is_set()


# Marks


def test_marks_of_one_claim_become_one_and_those_of_an_older_claim_are_left_out():
    merged = merge_marks([wanted(0b001), wanted(0b100), wanted(0b010, epoch=2), wanted(0b001, batch=1), wanted(0b111)])
    assert merged == [wanted(0b010, epoch=2), wanted(0b001, batch=1)]


async def test_outcomes_and_marks_of_all_slices_go_into_one_commit():
    ledger = FakeLedger()
    ledger.open.clear()
    async with running(ledger) as (recorder, _):
        first = recorder.put(outcome(0))
        await ledger.entered.wait()
        told = recorder.put(outcome(1))
        marking = asyncio.gather(
            recorder.mark([wanted(0b0100)]), recorder.mark([wanted(0b1000), wanted(0b0001, batch=2)])
        )
        await asyncio.sleep(0)
        ledger.open.set()
        one, both = await marking
        assert told.done()
        await first
    assert ledger.committed[1:] == [[Written(0, 0b0010, 0b1100, 1), Written(2, 0, 0b0001, 1)]]
    assert (one.ours, both.ours) == ({(1, 0)}, {(1, 0), (1, 2)})


async def test_a_mark_is_given_to_the_claim_that_has_the_batch_and_to_none_before_it():
    ledger = FakeLedger(epoch=2)
    async with running(ledger) as (recorder, _):
        old, new = await asyncio.gather(
            recorder.mark([wanted(0b01, epoch=1), wanted(0b01, batch=1, epoch=2)]),
            recorder.mark([wanted(0b10, epoch=2)]),
        )
    assert old.ours == {(1, 1)}
    assert new.ours == {(1, 0)}


async def test_each_slice_is_told_whether_its_own_mail_is_outranked():
    ledger = FakeLedger(outranked={1})
    async with running(ledger) as (recorder, _):
        one, other = await asyncio.gather(recorder.mark([wanted(), wanted(batch=1)]), recorder.mark([wanted(batch=2)]))
    assert (one.is_outranked, other.is_outranked) == (True, False)


async def test_a_mark_is_as_old_as_its_transaction_and_not_as_its_reply():
    ledger = FakeLedger()
    ledger.open.clear()
    async with running(ledger) as (recorder, _):
        asked_at = monotonic()
        marking = asyncio.create_task(recorder.mark([wanted()]))
        await ledger.entered.wait()
        entered_at = monotonic()
        ledger.open.set()
        assert asked_at <= (await marking).made_at <= entered_at


@pytest.mark.parametrize(
    "trouble", [psycopg.OperationalError(), errors.DataError()], ids=lambda one: type(one).__name__
)
async def test_who_asks_for_a_mark_is_told_at_once_what_is_wrong(trouble: psycopg.Error):
    ledger = FakeLedger(trouble)
    async with running(ledger) as (recorder, _):
        with pytest.raises(type(trouble)):
            await recorder.mark([wanted()])
        assert (await recorder.mark([wanted()])).ours == {(1, 0)}


async def test_a_mark_does_not_wait_for_a_ledger_that_is_away_and_an_outcome_does():
    ledger = FakeLedger(psycopg.OperationalError(), psycopg.OperationalError())
    async with running(ledger) as (recorder, _):
        told = recorder.put(outcome(0))
        with pytest.raises(psycopg.OperationalError):
            await recorder.mark([wanted(0b10)])
        assert not told.done()
        await told
    assert ledger.committed == [[Written(0, 0b01, 0, None)]]


async def test_a_mark_that_nobody_waits_for_any_more_is_not_made():
    ledger = FakeLedger()
    ledger.open.clear()
    async with running(ledger) as (recorder, _):
        recorder.put(outcome(0))
        await ledger.entered.wait()
        given_up = asyncio.create_task(recorder.mark([wanted()]))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        ledger.open.set()
        await recorder.put(outcome(1))
    assert [one.marked for group in ledger.committed for one in group] == [0, 0]


async def test_no_mark_is_made_before_the_outcomes_that_were_handed_over_before_it():
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        told = [recorder.put(outcome(0, batch=number)) for number in range(LARGEST_GROUP + 1)]
        await recorder.mark([wanted(batch=LARGEST_GROUP)])
        assert all(one.done() for one in told)
    assert ledger.committed[1:] == [[Written(LARGEST_GROUP, 1, 1, 1)]]


async def test_an_outcome_that_the_ledger_refuses_takes_neither_marks_nor_other_outcomes_with_it():
    ledger = FakeLedger(refused=0b001)
    async with running(ledger) as (recorder, _):
        refused, other = recorder.put(outcome(0)), recorder.put(outcome(1))
        given_mark = await recorder.mark([wanted(0b100)])
        assert isinstance(refused.exception(), errors.DataError)
        assert other.done()
    assert given_mark.ours == {(1, 0)}
    assert ledger.committed == [[Written(0, 0b010, 0, None)], [Written(0, 0, 0b100, 1)]]


async def test_a_process_that_ends_makes_no_marks():
    ledger = FakeLedger()
    recorder = Recorder(cast("Pool", ledger), uuid4())
    marking = asyncio.create_task(recorder.mark([wanted(0b10)]))
    recorder.put(outcome(0))
    await asyncio.sleep(0)
    await recorder.drain()
    assert ledger.committed == [[Written(0, 0b01, 0, None)]]
    marking.cancel()


# Faults


async def test_a_writer_that_is_cancelled_twice_loses_nothing():
    ledger = FakeLedger()
    ledger.open.clear()
    async with running(ledger) as (recorder, task):
        recorder.put(outcome(0))
        await ledger.entered.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        ledger.open.set()
        await asyncio.gather(task, return_exceptions=True)
        await recorder.drain()
    assert ledger.masks == [0b01]


@pytest.mark.parametrize(
    "trouble",
    [errors.ReadOnlySqlTransaction(), errors.IdleInTransactionSessionTimeout(), errors.DataError()],
    ids=lambda one: type(one).__name__,
)
async def test_the_writer_outlives_what_the_ledger_refuses(trouble: psycopg.Error):
    ledger = FakeLedger(trouble)
    async with running(ledger) as (recorder, task):
        refused = recorder.put(outcome(0))
        await ledger.entered.wait()
        later = recorder.put(outcome(1))
        await asyncio.wait([task, later], return_when=asyncio.FIRST_COMPLETED)
        assert later.done()
        assert refused.done()
