"""How the recorder's groups grow: under load, and while nobody waits for them; and that nobody waits in vain."""

from __future__ import annotations

import asyncio

import pytest

from tests.played_ledger import FakeLedger, outcome, running, wanted
from tocsin_workers.sender import recording
from tocsin_workers.sender.recording import (
    LARGEST_GROUP,
    LONGEST_GATHERING_SECONDS,
    QUICK_SECONDS,
    SMALL_GROUP,
    UNAWAITED_SECONDS,
    gathering_seconds,
    still_to_gather,
)


def test_nobody_waits_after_a_small_group_and_nobody_waits_long_after_a_large_one():
    assert gathering_seconds(0) == gathering_seconds(SMALL_GROUP - 1) == 0.0
    waits = [gathering_seconds(size) for size in range(SMALL_GROUP, LARGEST_GROUP + 1)]
    assert waits == sorted(waits)
    assert 0.0 < waits[0] <= waits[-1] == LONGEST_GATHERING_SECONDS


NOW = 1000.0
JUST_BEGUN, SLOW = NOW - QUICK_SECONDS / 2, NOW - 2 * QUICK_SECONDS


@pytest.mark.parametrize(
    ("sending_since", "last_group", "is_awaited", "seconds"),
    [
        # Nobody sends: there is nothing to come.
        ([], LARGEST_GROUP, False, 0.0),
        ([], LARGEST_GROUP, True, 0.0),
        # Nobody waits: until somebody does, however slow the servers are and however small the last group was.
        ([JUST_BEGUN], LARGEST_GROUP, False, UNAWAITED_SECONDS),
        ([SLOW], 0, False, UNAWAITED_SECONDS),
        # Somebody waits: for those who will have sent soon, after a large group.
        ([JUST_BEGUN], SMALL_GROUP - 1, True, 0.0),
        ([JUST_BEGUN], SMALL_GROUP, True, gathering_seconds(SMALL_GROUP)),
        ([SLOW, JUST_BEGUN], LARGEST_GROUP, True, LONGEST_GATHERING_SECONDS),
        ([SLOW, SLOW], LARGEST_GROUP, True, 0.0),
    ],
)
def test_a_group_grows_while_nobody_waits_and_then_for_those_who_are_soon_through(
    sending_since: list[float], last_group: int, is_awaited: bool, seconds: float
):
    told = still_to_gather(NOW, sending_since=sending_since, last_group=last_group, is_awaited=is_awaited)
    assert told == seconds


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every group but the first gather for an hour, if there is somebody to wait for."""
    monkeypatch.setattr(recording, "gathering_seconds", lambda last: 3600.0 if last else 0.0)
    monkeypatch.setattr(recording, "UNAWAITED_SECONDS", 0.0)


@pytest.mark.usefixtures("patient")
async def test_after_a_large_group_the_next_one_gathers_until_all_have_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "QUICK_SECONDS", 3600.0)
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        with recorder.sending():
            with recorder.sending():
                await recorder.put(outcome(0))
                second = recorder.put(outcome(1))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not second.done()
            third = recorder.put(outcome(2))
        await asyncio.gather(second, third)
    assert ledger.masks == [0b001, 0b110]


@pytest.mark.usefixtures("patient")
async def test_nobody_waits_for_a_slice_whose_server_is_slow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "QUICK_SECONDS", 0.0)
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        with recorder.sending():
            for index in range(3):
                await recorder.put(outcome(index))
    assert ledger.masks == [0b001, 0b010, 0b100]


async def test_outcomes_that_nobody_waits_for_gather_while_all_are_sending(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "UNAWAITED_SECONDS", 3600.0)
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        with recorder.sending():
            first = recorder.put(outcome(0))
            for _ in range(10):
                await asyncio.sleep(0)
            second = recorder.put(outcome(1))
            assert not first.done()
            with recorder.awaited():
                await asyncio.gather(first, second)
    assert ledger.masks == [0b11]


async def test_a_mark_asked_for_ahead_waits_for_others_and_one_that_is_needed_does_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "UNAWAITED_SECONDS", 3600.0)
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        with recorder.sending():
            ahead = asyncio.create_task(recorder.mark([wanted(batch=1)], ahead=True))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not ahead.done()
            needed = await recorder.mark([wanted(batch=2)])
            assert (await ahead).made_at == needed.made_at
    assert len(ledger.committed) == 1


async def test_a_group_that_nobody_waits_for_is_committed_after_a_moment_all_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "UNAWAITED_SECONDS", 0.001)
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        with recorder.sending():
            await recorder.put(outcome(0))
    assert ledger.masks == [0b01]


async def test_an_outcome_is_committed_at_once_where_nobody_sends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "UNAWAITED_SECONDS", 3600.0)
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        await recorder.put(outcome(0))
    assert ledger.masks == [0b01]


@pytest.mark.usefixtures("patient")
async def test_where_nobody_sends_nobody_waits():
    ledger = FakeLedger()
    async with running(ledger) as (recorder, _):
        for index in range(3):
            await recorder.put(outcome(index))
        await recorder.mark([wanted()])
    assert ledger.masks == [0b001, 0b010, 0b100]
