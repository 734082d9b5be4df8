"""When a token is refreshed, used, thrown away, and asked for again after a failure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.ledger.access_tokens import TokenRow
from tocsin_workers.tokens.refreshing import (
    AfterRefusal,
    HoldOff,
    Refresh,
    UseToken,
    WaitForRefresh,
    Want,
    after_refusal,
    holding_time,
    is_due,
    is_usable,
    next_step,
    previous_wait,
    wait_after_failure,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def second(number: float) -> datetime:
    return NOW + timedelta(seconds=number)


EMPTY = TokenRow(
    id=UUID(int=1),
    oauth_profile_id=UUID(int=2),
    subject="",
    grant_type="client_credentials",
    version=0,
    refused_version=None,
    sealed_token=None,
    obtained_at=None,
    expires_at=None,
    refresh_leased_until=None,
    failure=None,
    failure_fix=None,
    failure_code=None,
    failure_permanent=False,
    failed_at=None,
    retry_at=None,
    now=NOW,
)


def row(*, age: float, life: float = 3600) -> TokenRow:
    return replace(EMPTY, sealed_token=b"sealed", obtained_at=second(-age), expires_at=second(life - age))


@pytest.mark.parametrize(
    ("life", "due_at", "unusable_at"),
    [(3600, 3000, 3570), (30, 24, 27), (86400, 85800, 86370)],
    ids=["an hour: 10 minutes ahead", "30 s: a fifth ahead", "a day: 10 minutes ahead"],
)
def test_a_token_is_refreshed_ahead_of_its_expiry(life: float, due_at: float, unusable_at: float):
    def at(age: float) -> tuple[bool, bool]:
        one = row(age=age, life=life)
        return is_due(one), is_usable(one.obtained_at, one.expires_at, now=NOW)

    assert at(due_at - 0.1) == (False, True)
    assert at(due_at) == (True, True)
    assert at(unusable_at - 0.1) == (True, True)
    assert at(unusable_at) == (True, False)


def test_a_row_without_a_token_is_refreshed():
    assert next_step(EMPTY, want=Want.USABLE) == Refresh()


def test_a_living_token_is_used_by_senders_and_refreshed_by_the_broker_when_due():
    due = row(age=3100)
    assert next_step(due, want=Want.USABLE) == UseToken(due=True)
    assert next_step(due, want=Want.FRESH) == Refresh()
    assert next_step(row(age=100), want=Want.FRESH) == UseToken(due=False)


def test_who_finds_the_lease_taken_waits_for_it_unless_the_token_lives():
    taken = second(5)
    assert next_step(replace(EMPTY, refresh_leased_until=taken), want=Want.USABLE) == WaitForRefresh()
    assert next_step(replace(row(age=3100), refresh_leased_until=taken), want=Want.FRESH) == UseToken(due=True)


def test_a_lapsed_lease_stands_in_nobodys_way():
    assert next_step(replace(EMPTY, refresh_leased_until=NOW), want=Want.USABLE) == Refresh()


def test_after_a_failure_nobody_asks_before_the_wait_is_over():
    failed = replace(EMPTY, failure="away", failed_at=second(-1), retry_at=second(3))
    assert next_step(failed, want=Want.USABLE) == HoldOff(3.0)
    assert next_step(replace(failed, now=second(3)), want=Want.USABLE) == Refresh()


def test_a_failed_refresh_goes_unnoticed_while_the_token_lives():
    failed = replace(row(age=3100), failure="away", failed_at=second(-1), retry_at=second(3))
    assert next_step(failed, want=Want.USABLE) == UseToken(due=True)
    assert next_step(failed, want=Want.FRESH) == UseToken(due=True)


def test_a_refusal_of_a_new_token_pauses_and_of_an_older_one_tries_another():
    assert after_refusal(second(-59), second(3541), now=NOW) is AfterRefusal.PAUSE
    assert after_refusal(second(-61), second(3539), now=NOW) is AfterRefusal.TRY_AGAIN
    assert after_refusal(second(-5), second(25), now=NOW) is AfterRefusal.PAUSE
    assert after_refusal(second(-7), second(23), now=NOW) is AfterRefusal.TRY_AGAIN


def test_waits_double_up_to_a_minute():
    waits: list[float] = []
    wait = None
    for _ in range(7):
        wait = wait_after_failure(permanent=False, retry_after=None, previous_wait=wait)
        waits.append(wait.total_seconds())
    assert waits == [2, 4, 8, 16, 32, 60, 60]


def test_a_permanent_failure_is_probed_with_waits_of_up_to_an_hour():
    waits: list[float] = []
    wait = None
    for _ in range(8):
        wait = wait_after_failure(permanent=True, retry_after=None, previous_wait=wait)
        waits.append(wait.total_seconds())
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_the_endpoints_own_wish_is_a_lower_bound():
    assert wait_after_failure(permanent=False, retry_after=90, previous_wait=None) == timedelta(seconds=90)
    wait = wait_after_failure(permanent=False, retry_after=1, previous_wait=timedelta(seconds=8))
    assert wait == timedelta(seconds=16)


def test_the_previous_wait_is_read_from_the_row():
    assert previous_wait(EMPTY) is None
    failed = replace(EMPTY, failure="away", failed_at=second(-9), retry_at=second(-1))
    assert previous_wait(failed) == timedelta(seconds=8)


def test_a_process_holds_a_token_until_it_is_due_and_then_in_short_steps():
    half_minute = timedelta(seconds=30)
    assert holding_time(NOW, NOW + HOUR, now=NOW, at_most=half_minute) == half_minute
    assert holding_time(NOW, NOW + HOUR, now=second(2990), at_most=half_minute) == timedelta(seconds=10)
    assert holding_time(NOW, NOW + HOUR, now=second(3100), at_most=half_minute) == half_minute
    assert holding_time(NOW, second(30), now=second(24), at_most=half_minute) == timedelta(seconds=1.2)


@given(life=st.floats(1, 90_000), age=st.floats(0, 100_000))
def test_a_process_never_holds_a_token_past_its_use(life: float, age: float):
    now = second(age)
    held = holding_time(NOW, second(life), now=now, at_most=timedelta(seconds=30))
    assert held == timedelta(0) or now + held <= second(life * 0.9) + timedelta(milliseconds=1) or life > 300
    assert held == timedelta(0) or is_usable(NOW, second(life), now=now + held - timedelta(microseconds=2))


def test_who_wants_a_new_token_is_content_with_one_that_was_just_obtained_and_waits_for_any_other():
    assert next_step(row(age=5), want=Want.NEW) == UseToken(due=False)
    old = row(age=600)
    assert next_step(old, want=Want.NEW) == Refresh()
    assert next_step(replace(old, refresh_leased_until=second(5)), want=Want.NEW) == WaitForRefresh()
    assert next_step(replace(old, retry_at=second(30)), want=Want.NEW) == HoldOff(30)
