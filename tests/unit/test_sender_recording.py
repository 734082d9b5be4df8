"""The recorder: what it puts together, and that it drops nothing while its process lives. No server is needed here."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from tocsin_schema.ledger.recording import RecordedException, Settlement
from tocsin_workers.sender import recording
from tocsin_workers.sender.recording import (
    LARGEST_GROUP,
    MessageOutcome,
    Recorder,
    merge_exceptions,
    merge_settlements,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tocsin_schema.ledger.connection import Pool

SIZE = 50


def outcome(index: int = 0, *, batch: int = 0, job: int = 1, sent: bool = True) -> MessageOutcome:
    mask = 1 << index
    return MessageOutcome(Settlement(job, batch, 1, SIZE, sent=mask if sent else 0, settled=mask))


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


class FakeLedger:
    """Stands for a pool: notes the settlements of each transaction; `troubles` are raised one after the other first."""

    def __init__(self, *troubles: psycopg.Error) -> None:
        self.troubles = list(troubles)
        self.committed: list[list[Settlement]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[FakeConnection]:
        self.entered.set()
        await self.open.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        connection = FakeConnection()
        yield connection
        self.committed.append(connection.settlements)

    @property
    def masks(self) -> list[int]:
        """Give what was committed, transaction by transaction, of a single batch."""
        return [settlement.settled for group in self.committed for settlement in group]


class FakeConnection:
    """Stands for a connection that takes settlements and has no rows to give."""

    def __init__(self) -> None:
        self.settlements: list[Settlement] = []

    async def execute(self, _query: bytes, parameters: dict[str, Any]) -> FakeConnection:
        self.settlements += [
            Settlement(job, number, 1, len(bits), sent=0, settled=int(bits[::-1], 2))
            for job, number, bits in zip(
                parameters["job_numbers"], parameters["numbers"], parameters["settleds"], strict=True
            )
        ]
        return self

    async def fetchall(self) -> list[tuple[object, ...]]:
        return []


@asynccontextmanager
async def running(ledger: FakeLedger) -> AsyncIterator[tuple[Recorder, asyncio.Task[None]]]:
    recorder = Recorder(cast("Pool", ledger))
    task = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(10):
            yield recorder, task
    finally:
        ledger.open.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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
    await Recorder(cast("Pool", ledger)).drain()
    assert not ledger.entered.is_set()


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
