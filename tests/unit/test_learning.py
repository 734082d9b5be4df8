"""What a server's refusals teach, and how it is unlearned."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import THEN
from tocsin_schema.ledger.learned_limits import Connections, CountedBy, Rate
from tocsin_schema.ledger.traffic import Bucket
from tocsin_workers.sender.learning import (
    calm_of_connections,
    corrected,
    fewer_connections,
    is_used_up,
    more_connections,
    observed_rate,
    raised_rate,
    rest_seconds,
    slowed,
)

MINUTE, SECOND = CountedBy.MINUTE, CountedBy.SECOND


def after(**units: float):
    return THEN + timedelta(**units)


def steady(per_minute: float) -> list[Bucket]:
    """A minute at an even rate, in buckets that begin 60, 55, … 5 seconds ago."""
    return [Bucket(float(age), round(per_minute / 12), 5.0) for age in range(60, 0, -5)]


LOWERED = Rate(27.0, lowered_at=THEN, counted_by=MINUTE, needed_at=THEN)


# -- The rate, down


@pytest.mark.parametrize(
    ("traffic", "counted_by", "observed"),
    [
        ([], MINUTE, 0.0),
        ([Bucket(1.0, 30, 1.0)], MINUTE, 30.0),
        ([Bucket(62.0, 10, 5.0), Bucket(30.0, 20, 5.0), Bucket(63.0, 100, 5.0)], MINUTE, 30.0),
        ([Bucket(1.0, 14, 1.0)], SECOND, 840.0),
        ([Bucket(1.0, 3, 0.1)], SECOND, 180.0),
        ([Bucket(6.0, 70, 5.0), Bucket(1.0, 14, 2.0)], SECOND, 840.0),
        ([Bucket(11.0, 70, 5.0)], SECOND, 0.0),
        ([], SECOND, 0.0),
    ],
)
def test_the_rate_that_got_through_is_told_as_the_server_counts(traffic, counted_by, observed):
    assert observed_rate(traffic, counted_by) == pytest.approx(observed)


@pytest.mark.parametrize(
    ("rate", "observed", "per_minute_set", "lowered"),
    [
        (Rate(), 30.0, None, 27.0),
        (Rate(), 30.0, 60, 27.0),
        (Rate(), 100.0, 60, 54.0),  # others send for this mailbox too, or the buckets are coarse
        (replace(LOWERED, lowered_at=after(minutes=-5)), 31.0, 60, 24.3),
        (Rate(), 0.0, None, 0.5),
    ],
)
def test_a_refusal_leaves_nine_tenths_of_what_got_through(rate, observed, per_minute_set, lowered):
    found = slowed(rate, observed, MINUTE, per_minute_set=per_minute_set, now=THEN)
    assert found is not None
    assert found.per_minute == pytest.approx(lowered)
    assert (found.lowered_at, found.steps, found.raised_at) == (THEN, 0, None)


def test_a_rate_is_lowered_once_a_minute_however_many_are_refused():
    assert slowed(LOWERED, 30.0, MINUTE, per_minute_set=None, now=after(seconds=59)) is None
    again = slowed(LOWERED, 20.0, MINUTE, per_minute_set=None, now=after(seconds=60))
    assert again is not None
    assert again.per_minute == pytest.approx(18.0)


def test_what_other_processes_told_a_moment_later_corrects_the_rate():
    known_to_one = replace(LOWERED, per_minute=3.6, before=None)
    told = [Bucket(6.0, 26, 1.0), Bucket(4.0, 4, 1.0), Bucket(1.0, 50, 1.0)]
    found = corrected(known_to_one, told, now=after(seconds=5))
    assert found is not None
    assert found.per_minute == pytest.approx(27.0)
    assert corrected(found, told, now=after(seconds=6)) is None


@pytest.mark.parametrize("seconds", [0, 3, 26, 600])
def test_a_rate_is_corrected_only_when_all_have_told_and_none_has_forgotten(seconds):
    assert corrected(replace(LOWERED, per_minute=1.0), steady(30), now=after(seconds=seconds)) is None


def test_a_correction_never_gives_back_what_was_in_force_when_the_server_refused():
    found = corrected(replace(LOWERED, per_minute=9.0, before=30.0), steady(240), now=after(seconds=5))
    assert found is not None
    assert found.per_minute == pytest.approx(27.0)


# -- The rest


def test_after_a_burst_a_mailbox_rests_until_the_burst_is_a_minute_old():
    assert rest_seconds([Bucket(1.0, 30, 1.0)], 27.0, MINUTE) == pytest.approx(60.0)
    assert rest_seconds([Bucket(40.0, 30, 1.0)], 27.0, MINUTE) == pytest.approx(25.0)


def test_at_an_even_rate_a_mailbox_rests_for_a_moment():
    assert rest_seconds(steady(36), 32.4, MINUTE) <= 10.0


def test_a_server_that_counts_by_the_second_is_left_alone_for_seconds():
    assert rest_seconds([Bucket(1.0, 100, 1.0)], 756.0, SECOND) == pytest.approx(5.0)


BUCKETS = st.lists(st.builds(Bucket, st.floats(0.0, 64.0), st.integers(0, 50), st.just(1.0)), max_size=13)


@given(BUCKETS, st.floats(0.9, 1.0))
def test_after_its_rest_no_minute_holds_more_than_got_through(traffic: list[Bucket], share: float):
    total = sum(bucket.messages for bucket in traffic)
    rate = max(0.5, 0.9 * share * total)
    rest = rest_seconds(traffic, rate, MINUTE)
    assert 2.0 <= rest <= 60.0
    for at in (rest + step / 4 for step in range(300)):
        old = sum(one.messages for one in traffic if 65.0 - one.age_seconds >= at and at <= 60.0)
        assert old + (min(at - rest, 60.0)) * rate / 60 <= max(total, rate) + 1e-6


# -- The rate, up


def test_a_calm_rate_goes_up_by_1_2_4_up_to_32_percent():
    rate, now = LOWERED, THEN
    steps = []
    for _ in range(8):
        now += timedelta(seconds=120)
        raised = raised_rate(rate, rate.per_minute or 0.0, per_minute_set=None, now=now)
        assert raised is not None
        assert raised.per_minute is not None
        assert rate.per_minute is not None
        steps.append(round((raised.per_minute / rate.per_minute - 1) * 100))
        rate = raised
    assert steps == [1, 2, 4, 8, 16, 32, 32, 32]


def test_after_a_refusal_the_steps_begin_anew():
    risen = replace(LOWERED, steps=5, raised_at=after(minutes=10))
    lowered = slowed(risen, 30.0, MINUTE, per_minute_set=None, now=after(minutes=11))
    assert lowered is not None
    raised = raised_rate(lowered, 27.0, per_minute_set=None, now=after(minutes=13))
    assert raised is not None
    assert raised.per_minute == pytest.approx((lowered.per_minute or 0) * 1.01)


@pytest.mark.parametrize("seconds", [0, 60, 119])
def test_a_rate_is_not_raised_before_it_was_calm_for_two_minutes(seconds):
    found = raised_rate(LOWERED, 27.0, per_minute_set=None, now=after(seconds=seconds))
    assert found is None or found.per_minute == LOWERED.per_minute


def test_a_rate_that_nobody_uses_is_not_raised():
    found = raised_rate(LOWERED, 10.0, per_minute_set=60, now=after(hours=5))
    assert found is not None
    assert found.per_minute == LOWERED.per_minute
    assert raised_rate(LOWERED, 0.0, per_minute_set=60, now=after(hours=5)) is None


def test_a_rate_that_reaches_what_is_set_is_forgotten():
    risen = replace(LOWERED, per_minute=29.8)
    assert raised_rate(risen, 29.0, per_minute_set=30, now=after(minutes=2)) == Rate()


def test_an_unlimited_mailbox_forgets_a_rate_of_which_little_was_needed_for_an_hour():
    assert raised_rate(LOWERED, 0.0, per_minute_set=None, now=after(minutes=59)) is None
    assert raised_rate(LOWERED, 0.0, per_minute_set=None, now=after(minutes=60)) == Rate()
    used = raised_rate(LOWERED, 9.0, per_minute_set=None, now=after(minutes=59))
    assert used is not None
    assert raised_rate(used, 0.0, per_minute_set=None, now=after(minutes=60)) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 600), st.floats(0, 1000)), max_size=60))
def test_a_rate_is_never_more_than_is_set_nor_nothing_at_all(moves):
    rate, now = Rate(), THEN
    for is_refused, seconds, observed in moves:
        now += timedelta(seconds=seconds)
        if is_refused:
            rate = slowed(rate, observed, MINUTE, per_minute_set=30, now=now) or rate
        else:
            rate = raised_rate(rate, observed, per_minute_set=30, now=now) or rate
        assert rate.per_minute is None or 0.5 <= rate.per_minute < 30
        assert (rate.per_minute is None) == (rate.lowered_at is None)


def test_against_a_server_of_thirty_a_minute_hardly_anything_is_refused_once_it_settled():
    # Ten hours: the rate creeps up until one message in excess is refused, and goes back.
    rate, now, sent, refused = Rate(), THEN, 0, 0
    for _ in range(10 * 60):
        now += timedelta(minutes=1)
        in_force = rate.per_minute or 60.0
        if in_force > 30:
            refused += 3
            rate = slowed(rate, 30.0, MINUTE, per_minute_set=60, now=now) or rate
            sent += 30
            continue
        sent += int(in_force)
        rate = raised_rate(rate, in_force, per_minute_set=60, now=now) or rate
    assert refused < 0.01 * sent
    assert sent > 0.9 * 30 * 600


def test_a_rate_that_was_refused_is_tried_again_after_ten_calm_minutes():
    near = replace(LOWERED, per_minute=29.0, before=31.0, steps=3)
    found = raised_rate(near, 29.0, per_minute_set=60, now=after(minutes=9))
    assert found is None or found.per_minute == near.per_minute
    raised = raised_rate(near, 29.0, per_minute_set=60, now=after(minutes=10))
    assert raised is not None
    assert raised.per_minute == pytest.approx(29.0 * 1.08)


# -- Connections

FEWER = Connections(4, lowered_at=THEN, failures=1)


@pytest.mark.parametrize(
    ("learned", "open_now", "connections_set", "at_greeting", "number"),
    [
        (Connections(), 10, 10, False, 5),
        (Connections(), 9, None, False, 4),
        (Connections(), 1, None, False, 1),
        (Connections(), 0, 10, False, 1),
        (Connections(), 3, 10, True, 3),  # those that are open were let in
        (Connections(), 10, 10, True, 9),
        (Connections(), 0, None, True, 1),
        (replace(FEWER, raised_at=after(minutes=2)), 4, 10, False, 3),  # the one that was tried
        (FEWER, 4, 10, False, 2),
    ],
)
def test_a_refusal_leaves_fewer_connections(learned, open_now, connections_set, at_greeting, number):
    now = after(minutes=3)
    found = fewer_connections(learned, open_now, connections_set=connections_set, at_greeting=at_greeting, now=now)
    assert found == Connections(number, lowered_at=now, failures=learned.failures + 1)


def test_connections_are_lowered_once_in_a_while_however_many_are_refused():
    few = replace(FEWER, lowered_at=THEN)
    assert fewer_connections(few, 4, connections_set=10, at_greeting=False, now=after(seconds=14)) is None
    assert fewer_connections(few, 4, connections_set=10, at_greeting=False, now=after(seconds=15)) is not None


@pytest.mark.parametrize(("learned", "connections_set"), [(Connections(), 1), (Connections(1, THEN, failures=3), 10)])
def test_one_connection_is_always_left(learned, connections_set):
    assert fewer_connections(learned, 1, connections_set=connections_set, at_greeting=False, now=after(hours=1)) is None


def test_one_more_is_tried_after_a_calm_while_that_doubles_with_each_failure():
    waits = [calm_of_connections(failures).total_seconds() / 60 for failures in (1, 2, 3, 4, 5, 6, 50)]
    assert waits == [2, 4, 8, 16, 32, 60, 60]
    assert all(one <= other for one, other in pairwise(waits))
    assert more_connections(FEWER, connections_set=10, is_rate_used_up=False, now=after(seconds=119)) is None
    more = more_connections(FEWER, connections_set=10, is_rate_used_up=False, now=after(minutes=2))
    assert more is not None
    assert more == replace(FEWER, connections=5, raised_at=after(minutes=2))
    assert more_connections(more, connections_set=10, is_rate_used_up=False, now=after(minutes=3)) is None


def test_no_connection_is_tried_in_vain_where_the_rate_is_what_holds_mail_up():
    for used_up, others in ((True, None), (False, 5)):
        more = more_connections(FEWER, connections_set=10, is_rate_used_up=used_up, now=after(hours=1))
        assert (more and more.connections) == others


@pytest.mark.parametrize(
    ("rate", "per_minute_set", "observed", "used_up"),
    [
        (Rate(), None, 1e6, False),
        (Rate(), 30, 24.0, True),
        (Rate(), 30, 23.0, False),
        (LOWERED, None, 22.0, True),
        (LOWERED, 10, 9.0, True),
        (LOWERED, 100, 20.0, False),
    ],
)
def test_a_rate_is_used_up_where_most_of_what_is_in_force_goes_out(rate, per_minute_set, observed, used_up):
    assert is_used_up(rate, observed, per_minute_set=per_minute_set) is used_up


def test_connections_that_reach_what_is_set_are_forgotten():
    assert more_connections(FEWER, connections_set=5, is_rate_used_up=False, now=after(minutes=2)) == Connections()
    assert more_connections(FEWER, connections_set=None, is_rate_used_up=False, now=after(minutes=2)) != Connections()
