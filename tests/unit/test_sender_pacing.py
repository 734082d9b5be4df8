"""Retries, the lease and the sizes of claims and windows: pure, with a clock that stands still."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_workers.sender import windows
from tocsin_workers.sender.lease import BEATS_A_LEASE, SAFE_SHARE, WorkerLease
from tocsin_workers.sender.retrying import RetrySchedule
from tocsin_workers.sender.windows import FIRST_CLAIM, LARGEST_CLAIM, WINDOW, next_claim, window_size

JITTER = st.floats(0, 1, exclude_max=True)
SCHEDULES = st.builds(RetrySchedule, st.floats(1, 86_400), st.floats(1, 86_400))


# Retries


def test_the_first_retries_double():
    schedule = RetrySchedule()
    assert [schedule.delay(attempts, 0.5) for attempts in (1, 2, 3, 4)] == [30.0, 60.0, 120.0, 240.0]


def test_no_retry_waits_longer_than_the_maximum():
    assert RetrySchedule().delay(100, 0.5) == 3600.0


def test_a_first_wait_beyond_the_maximum_is_cut_to_it():
    assert RetrySchedule(first_seconds=600.0, maximum_seconds=60.0).delay(1, 0.5) == 60.0


@given(SCHEDULES, st.integers(1, 32_767), JITTER)
def test_a_later_retry_never_waits_less(schedule: RetrySchedule, attempts: int, jitter: float):
    assert schedule.delay(attempts, jitter) <= schedule.delay(attempts + 1, jitter)


@given(SCHEDULES, st.integers(-5, 10**9), JITTER)
def test_a_retry_is_spread_by_a_quarter_and_bounded(schedule: RetrySchedule, attempts: int, jitter: float):
    middle = schedule.delay(attempts, 0.5)
    assert 0.75 * middle <= schedule.delay(attempts, jitter) <= 1.25 * middle
    assert 0 < schedule.delay(attempts, jitter) <= 1.25 * schedule.maximum_seconds


@pytest.mark.parametrize("attempts", [0, -1, 1])
def test_there_is_no_retry_before_the_first(attempts: int):
    assert RetrySchedule().delay(attempts, 0.5) == 30.0


# The lease


def lease(seconds: float = 30.0) -> WorkerLease:
    return WorkerLease(UUID(int=1), seconds)


def test_a_lease_that_was_never_renewed_does_not_hold():
    assert not lease().holds(float("-inf"))
    assert not lease().holds(0.0)


def test_a_lease_holds_for_its_safe_share_and_not_a_moment_longer():
    one = lease(30.0)
    one.renew(1000.0)
    assert one.holds(1000.0)
    assert one.holds(1017.999)
    assert not one.holds(1018.0)


def test_a_process_that_was_frozen_does_not_trust_its_lease_until_the_next_heartbeat():
    one = lease()
    one.renew(1000.0)
    assert not one.holds(9999.0)
    one.renew(9999.0)
    assert one.holds(9999.1)


def test_a_heartbeat_counts_from_when_it_was_sent_and_an_older_one_changes_nothing():
    one = lease()
    one.renew(1010.0)
    one.renew(1000.0)
    assert one.holds(1027.0)
    assert not one.holds(1028.0)


def test_a_lost_lease_does_not_hold_until_it_is_taken_again():
    one = lease()
    one.renew(1000.0)
    one.lose()
    assert not one.holds(1000.0)
    one.renew(1001.0)
    assert one.holds(1001.0)


@given(st.floats(2, 86_400), st.floats(0, 1e9))
def test_two_heartbeats_may_be_missed_and_the_lease_never_holds_past_its_end(seconds: float, sent_at: float):
    one = lease(seconds)
    one.renew(sent_at)
    assert one.holds(sent_at + 3 * one.beat_every_seconds)
    assert not one.holds(sent_at + seconds)
    assert one.beat_every_seconds * BEATS_A_LEASE == pytest.approx(seconds)
    assert 0 < SAFE_SHARE < 1


# Windows and claims


@given(st.none() | st.integers(1, 10_000_000))
def test_a_window_is_never_empty_and_never_larger_than_the_window(per_minute: int | None):
    assert 1 <= window_size(per_minute) <= WINDOW


@given(st.integers(1, 10_000_000))
def test_a_limited_mailbox_has_at_most_half_a_seconds_worth_in_flight(per_minute: int):
    assert window_size(per_minute) == 1 or window_size(per_minute) / per_minute <= 0.5 / 60


@pytest.mark.parametrize(
    ("per_minute", "size"), [(None, 10), (1, 1), (30, 1), (120, 1), (239, 1), (240, 2), (6000, 10)]
)
def test_window_sizes(per_minute: int | None, size: int):
    assert window_size(per_minute) == size


@given(st.integers(1, LARGEST_CLAIM), st.floats(0, 1e6) | st.just(float("inf")), st.floats(0.01, 60))
def test_a_claim_is_never_empty_and_never_unbounded(claimed: int, took: float, slice_seconds: float):
    assert 1 <= next_claim(claimed, took, slice_seconds) <= LARGEST_CLAIM


@given(st.lists(st.floats(0, 100), max_size=50))
def test_claims_stay_within_bounds_however_a_slice_goes(times: list[float]):
    claimed = FIRST_CLAIM
    for took in times:
        claimed = next_claim(claimed, took, 1.0)
        assert 1 <= claimed <= LARGEST_CLAIM


@given(st.integers(1, LARGEST_CLAIM), st.floats(0, 100), st.floats(0, 100))
def test_a_slower_claim_is_never_followed_by_a_larger_one(claimed: int, one: float, other: float):
    quick, slow = sorted((one, other))
    assert next_claim(claimed, slow, 1.0) <= next_claim(claimed, quick, 1.0)


@pytest.mark.parametrize(
    ("claimed", "took", "expected"), [(2, 0.1, 4), (32, 0.0, 32), (8, 0.25, 8), (8, 1.0, 8), (8, 2.0, 4), (8, 60.0, 1)]
)
def test_a_claim_grows_when_quick_and_shrinks_when_slow(claimed: int, took: float, expected: int):
    assert next_claim(claimed, took, 1.0) == expected


@given(st.lists(st.integers(), max_size=50), st.integers(1, 25))
def test_windows_hold_everything_in_order(items: list[int], size: int):
    cut = list(windows.windows(items, size, lambda _: 0))
    assert [item for window in cut for item in window] == items
    assert all(len(window) == size for window in cut[:-1])
    assert all(1 <= len(window) <= size for window in cut)


def test_the_next_window_is_made_when_it_is_asked_for():
    made: list[int] = []

    def items():
        for item in range(100):
            made.append(item)
            yield item

    cut = windows.windows(items(), 3, lambda _: 0)
    assert made == []
    next(cut)
    assert made == [0, 1, 2, 3]
    next(cut)
    assert made == [0, 1, 2, 3, 4, 5, 6]


def test_a_window_of_large_messages_holds_fewer_of_them():
    half = windows.WINDOW_OCTETS // 2
    cut = list(windows.windows([half, half, half, 1], 20, lambda octets: octets))
    assert cut == [[half, half], [half, 1]]


def test_a_message_that_is_larger_than_a_window_goes_alone():
    cut = list(windows.windows([1, windows.WINDOW_OCTETS * 3, 1], 20, lambda octets: octets))
    assert [len(window) for window in cut] == [1, 1, 1]
