"""How the tests' limited mail server counts, and how its account is read."""

from __future__ import annotations

from tests.servers.login_account import (
    Enforced,
    LoginAccount,
    Refusal,
    earliest_lead,
    fewest_within,
    most_within,
)


def test_the_most_that_any_span_holds_is_found_wherever_it_begins():
    burst = [0.0, 20.0, 40.0, 59.5, 60.0, 60.5, 61.0]
    assert most_within(burst, 60.0) == 6
    assert most_within(burst, 1.5) == 3
    assert most_within([], 60.0) == 0


def test_two_that_lie_exactly_a_span_apart_are_not_in_one():
    evenly = [2.0 * number for number in range(100)]
    assert most_within(evenly, 60.0) == 30
    assert most_within([*evenly[:50], 99.9], 60.0) == 31


def test_the_fewest_are_those_right_after_one_and_only_full_spans_count():
    spacing = 61.0 / 30
    evenly = [spacing * number for number in range(100)]
    assert fewest_within(evenly, 60.0) == 29
    gap = [at + (2.1 if at > 100 else 0.0) for at in evenly]
    assert fewest_within(gap, 60.0) == 28
    assert fewest_within(evenly[:30], 60.0) is None


def test_evenly_spaced_messages_have_no_lead_and_late_ones_none_before_the_next():
    assert earliest_lead([0.0, 1.0, 2.0], 1.0) == 0.0
    assert earliest_lead([0.0, 1.0, 5.0, 6.0], 1.0) == 0.0
    assert earliest_lead([0.9, 1.0, 2.0, 3.4], 1.0) == 0.9


def test_a_burst_has_a_lead_however_slow_all_the_rest_is():
    # Ten at once in the place of one a second, which no short span of time would show to be too many.
    assert earliest_lead([0.0, 20.0, *[40.0] * 10], 1.0) == 9.0


def test_a_lead_of_a_second_is_what_a_minute_of_slots_forgives():
    spacing, late = 61.0 / 30, 1.0
    times = [number * spacing + (late if number == 0 else 0.0) for number in range(40)]
    assert round(earliest_lead(times, spacing), 6) == 1.0
    assert most_within(times, 60.0) == 30
    assert most_within([times[0] + 0.1, *times[1:]], 60.0) == 31


def test_connections_are_counted_as_they_come_and_go():
    account = LoginAccount()
    account.opened()
    account.opened()
    account.closed()
    account.opened()
    assert (account.open_now, account.most_open) == (2, 2)


def test_more_connections_than_are_allowed_refuse_all_of_them_until_there_are_fewer():
    account, enforced = LoginAccount(), Enforced(connections=1)
    account.opened()
    assert account.admit(enforced, 0.0) is None
    account.opened()
    assert account.admit(enforced, 1.0) is Refusal.CONNECTIONS
    account.closed()
    assert account.admit(enforced, 2.0) is None
    assert account.refused == [(1.0, Refusal.CONNECTIONS.value)]


def test_a_rate_counts_what_was_admitted_in_the_last_span_and_not_what_was_refused():
    account, enforced = LoginAccount(), Enforced(messages=2, span_seconds=10.0)
    said = [account.admit(enforced, at) for at in (0.0, 1.0, 9.9, 10.0, 10.5, 11.0)]
    assert said == [None, None, Refusal.RATE, None, Refusal.RATE, None]
    assert account.admitted == [0.0, 1.0, 10.0, 11.0]


def test_whoever_is_refused_nothing_is_counted_all_the_same():
    account = LoginAccount()
    for at in (0.0, 0.1, 0.2):
        account.opened()
        account.offer(at)
        assert account.admit(Enforced(), at) is None
        account.take(at + 0.05)
    assert (account.most_open, len(account.attempts), len(account.taken), account.refused) == (3, 3, 3, [])
