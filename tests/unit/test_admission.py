"""How many slices a process runs at once, and what waits for a place."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from time import monotonic, thread_time
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.message_broker.topology import reserved_for_urgent
from tocsin_workers.process import busyness
from tocsin_workers.process.busyness import SHORTEST_SECONDS, Busyness
from tocsin_workers.process.slices import RunningSlices, WakeUp
from tocsin_workers.sender import admission
from tocsin_workers.sender.admission import (
    BUSY_SHARE,
    FIRST_OF_A_PROFILE,
    MORE_IF_URGENT,
    MOST_OF_A_PROFILE,
    SLICES_A_THREAD,
    admits,
)
from tocsin_workers.sender.slice import SliceResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

URGENT, NORMAL, BULK = 0, 1, 2
MOST = 8 * SLICES_A_THREAD


def profile(number: int) -> UUID:
    return UUID(int=number)


def begin(running: Counter[UUID], number: int, rank: int, *, earned: int = 0) -> int:
    """Begin as many slices of a profile as there is a place for; give how many that are."""
    begun = 0
    while admits(running, profile(number), rank, earned=earned, most=MOST):
        running[profile(number)] += 1
        begun += 1
    return begun


# The decision


def test_a_profile_begins_with_a_few_slices_and_has_at_most_what_postfix_allows():
    most = [begin(Counter(), 1, NORMAL, earned=earned) for earned in (0, 1, 100)]
    assert most == [FIRST_OF_A_PROFILE, FIRST_OF_A_PROFILE + 1, MOST_OF_A_PROFILE]


def test_more_slices_are_earned_only_while_there_is_time_to_spare():
    assert admission.earned(3, BUSY_SHARE - 0.01) == 4
    assert admission.earned(3, BUSY_SHARE) == 2
    assert admission.earned(0, 1.0) == 0
    assert admission.earned(MOST_OF_A_PROFILE, 0.0) == MOST_OF_A_PROFILE


@pytest.mark.parametrize("rank", [NORMAL, BULK])
def test_a_dozen_profiles_that_are_stuck_leave_a_full_share_to_another_one(rank: int):
    running: Counter[UUID] = Counter()
    for number in range(12 if rank == NORMAL else 8):
        assert begin(running, number, rank) == FIRST_OF_A_PROFILE
    assert begin(running, 99, rank, earned=100) > FIRST_OF_A_PROFILE


def test_even_where_everybody_is_quick_a_profile_never_has_more_than_it_leaves_free():
    running: Counter[UUID] = Counter()
    for number in range(100):
        if begin(running, number, NORMAL, earned=100):
            free = MOST - running.total() - reserved_for_urgent(MOST)
            assert running[profile(number)] <= free + 1
    assert len(running) > MOST // MOST_OF_A_PROFILE


def test_where_a_profile_has_all_its_places_there_are_more_for_its_urgent_work():
    running: Counter[UUID] = Counter()
    assert begin(running, 1, NORMAL)
    assert begin(running, 1, URGENT) == MORE_IF_URGENT


def test_a_process_that_is_full_of_one_rank_has_places_for_those_before_it():
    running: Counter[UUID] = Counter()
    for rank in (BULK, NORMAL, URGENT):
        assert [begin(running, number, rank) > 0 for number in (rank * 100, rank * 100 + 1)] == [True, True]
        for number in range(rank * 100, rank * 100 + 99):
            begin(running, number, rank)
        assert begin(running, 999, rank) == 0


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2), st.integers(0, 30)), max_size=400), st.integers(4, 32))
def test_there_are_never_too_many_and_a_quarter_is_kept_for_each_better_rank(
    wake_ups: list[tuple[int, int, int]], threads: int
):
    most = threads * SLICES_A_THREAD
    running: Counter[UUID] = Counter()
    by_rank: Counter[int] = Counter()
    for number, rank, earned in wake_ups:
        if admits(running, profile(number), rank, earned=earned, most=most):
            running[profile(number)] += 1
            by_rank[rank] += 1
    assert running.total() <= most
    assert by_rank[NORMAL] + by_rank[BULK] <= most * 3 // 4
    assert by_rank[BULK] <= most // 2
    assert max(running.values(), default=0) <= MOST_OF_A_PROFILE + MORE_IF_URGENT


# Carrying it out


class Work:
    """Slices that last until they are told to end, by what they are for."""

    def __init__(self) -> None:
        self.begun: list[WakeUp] = []
        self.wake_ups: list[int] = []
        """For how many wake-ups each of them was begun."""
        self._ends: list[asyncio.Event] = []

    def of(self, wake_up: WakeUp) -> Callable[[int], Awaitable[SliceResult]]:
        async def work(wake_ups: int) -> SliceResult:
            self.begun.append(wake_up)
            self.wake_ups.append(wake_ups)
            end = asyncio.Event()
            self._ends.append(end)
            await end.wait()
            return SliceResult.WORKED

        return work

    async def end(self, which: int) -> None:
        """End the slice that was begun as the so-manieth, and let all run that can."""
        self._ends[which].set()
        await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def work() -> Work:
    return Work()


def a_process(*, most: int, busy_share: float = 0.0) -> RunningSlices:
    return RunningSlices(most=most, busy_share=lambda: busy_share)


async def filled_process(work: Work, *, most: int) -> RunningSlices:
    """Give a process that is full of urgent slices of different profiles."""
    running = a_process(most=most)
    for number in range(most):
        wake_up = WakeUp(profile(number), URGENT)
        running.begin(wake_up, work.of(wake_up))
    await settled()
    assert len(work.begun) == len(running.tasks) == most
    return running


async def test_what_has_no_place_waits_and_begins_when_a_slice_ends_the_most_urgent_first(work: Work):
    running = await filled_process(work, most=4)
    later = [WakeUp(profile(9), URGENT), WakeUp(profile(8), URGENT)]
    bulk = WakeUp(profile(7), BULK)
    for wake_up in (bulk, *later):
        running.begin(wake_up, work.of(wake_up))
    await settled()
    assert len(work.begun) == 4
    for ending in range(2):
        await work.end(ending)
    assert work.begun[4:] == later
    for ending in range(2, 4):
        await work.end(ending)
    assert work.begun[4:] == later, "half of the places are kept from bulk"
    await work.end(4)
    assert work.begun[6:] == [bulk]


async def test_of_wake_ups_that_wait_one_of_a_kind_stands_for_all(work: Work):
    running = await filled_process(work, most=4)
    again = WakeUp(profile(0), URGENT)
    for _ in range(3):
        running.begin(again, work.of(again))
    for ending in range(4):
        await work.end(ending)
    assert work.begun[4:] == [again]
    assert work.wake_ups[4:] == [3]


async def test_a_profile_at_its_limit_waits_for_one_of_its_own_and_holds_up_nobody(work: Work):
    running = a_process(most=MOST)
    stuck, other, third = WakeUp(profile(1), NORMAL), WakeUp(profile(2), NORMAL), WakeUp(profile(3), NORMAL)
    for _ in range(FIRST_OF_A_PROFILE + 1):
        running.begin(stuck, work.of(stuck))
    running.begin(other, work.of(other))
    await settled()
    assert Counter(work.begun) == {stuck: FIRST_OF_A_PROFILE, other: 1}
    await work.end(FIRST_OF_A_PROFILE)
    running.begin(third, work.of(third))
    await settled()
    assert work.begun[-1] == third
    await work.end(0)
    assert work.begun[-1] == stuck


async def begin_all(running: RunningSlices, work: Work, wake_up: WakeUp) -> int:
    """Wake a profile as often as it may be of use; give how many slices run then."""
    for _ in range(MOST):
        running.begin(wake_up, work.of(wake_up))
    await settled()
    return len(running.tasks)


async def test_a_profile_whose_slices_end_well_has_ever_more_until_it_has_none(work: Work):
    running = a_process(most=MOST)
    quick = WakeUp(profile(1), NORMAL)
    at_once = [await begin_all(running, work, quick)]
    for ending in range(MOST):
        await work.end(ending)
        at_once.append(await begin_all(running, work, quick))
    assert at_once[:3] == [FIRST_OF_A_PROFILE, FIRST_OF_A_PROFILE + 1, FIRST_OF_A_PROFILE + 2]
    assert at_once[-1] == MOST_OF_A_PROFILE
    ending = MOST
    while running.tasks:
        await work.end(ending)
        ending += 1
    assert await begin_all(running, work, quick) == FIRST_OF_A_PROFILE


async def test_in_a_process_that_has_no_time_to_spare_a_profile_earns_nothing(work: Work):
    running = a_process(most=MOST, busy_share=0.9)
    quick = WakeUp(profile(1), NORMAL)
    for ending in range(MOST):
        assert await begin_all(running, work, quick) == FIRST_OF_A_PROFILE
        await work.end(ending)


async def test_a_process_that_ends_waits_for_its_slices_and_begins_none(work: Work):
    running = await filled_process(work, most=4)
    waiting = WakeUp(profile(9), URGENT)
    running.begin(waiting, work.of(waiting))
    finishing = asyncio.create_task(running.finish(by=monotonic() + 60))
    await settled()
    running.begin(waiting, work.of(waiting))
    for ending in range(4):
        assert not finishing.done()
        await work.end(ending)
    await finishing
    assert len(work.begun) == 4


async def test_a_process_that_ends_does_not_wait_for_a_slice_that_hangs_beyond_its_time(work: Work):
    running = await filled_process(work, most=4)
    await running.finish(by=monotonic())
    assert len(running.tasks) == 4


@pytest.mark.parametrize("error", [psycopg.OperationalError("away"), ValueError("unexpected")])
async def test_a_slice_that_fails_gives_its_place_back(error: Exception):
    async def fail(_wake_ups: int) -> SliceResult:
        raise error

    running = a_process(most=4)
    for _ in range(10):
        running.begin(WakeUp(profile(1), URGENT), fail)
        await settled()
        assert not running.tasks


async def test_a_slice_that_goes_on_in_its_place_earns_its_profile_another_one(work: Work):
    running = a_process(most=MOST)
    wake_up = WakeUp(profile(1), NORMAL)
    assert await begin_all(running, work, wake_up) == FIRST_OF_A_PROFILE
    running.note_worked(wake_up.profile_id)
    await settled()
    assert len(running.tasks) == FIRST_OF_A_PROFILE + 1


# How busy a thread is


def test_a_thread_that_computes_is_busy_and_one_that_waits_is_not():
    of_this = Busyness()
    assert of_this.share() == 0.0
    until = monotonic() + 2 * SHORTEST_SECONDS
    while monotonic() < until:
        pass
    computing = of_this.share()
    threading.Event().wait(2 * SHORTEST_SECONDS)
    waiting = of_this.share()
    assert 0.0 <= waiting < 0.5 < computing <= 1.0


def test_where_the_system_does_not_tell_how_long_a_thread_waited_the_time_that_it_ran_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for content in ("0 0 0\n", None):
        file = tmp_path / "schedstat"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        monkeypatch.setattr(busyness, "_SCHEDULED", file)
        before = thread_time()
        assert before <= busyness.busy_seconds() <= thread_time()
