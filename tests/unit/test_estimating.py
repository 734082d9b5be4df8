"""When mail will be through, from a mailbox's budget and backlog alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tocsin_schema.ledger.estimating import Estimate, Work, estimate_backlog, estimate_job, rounded_up, stretches_ahead
from tocsin_schema.ledger.mailbox_walk import Budget, Limit, MailboxWalk, RollingDay, Stretch, UsedMinute

NOW = datetime(2026, 11, 22, 2, 10, 20, tzinfo=UTC)
HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
URGENT, NORMAL, BULK = 0, 1, 2
FREE = Budget()
SLOW = Budget(messages_per_minute=30)


def individual(recipients: int, rank: int = NORMAL) -> Work:
    return Work(rank, recipients, recipients)


def shared(recipients: int, rank: int = NORMAL) -> Work:
    return Work(rank, recipients, -(-recipients // 50))


def used(recipients: int, *, ago: timedelta, urgent: int = 0) -> UsedMinute:
    return UsedMinute((NOW - ago).replace(second=0), recipients, urgent)


def estimate(own: Work, *others: Work, budget: Budget, hold: Limit | None = None) -> Estimate:
    return estimate_job(own, others, budget, now=NOW, hold=hold)


def minutes_until(found: Estimate) -> float:
    assert found.done_at is not None
    return (found.done_at - NOW) / MINUTE


# -- Rate and speed


def test_a_minute_of_a_rate_lasts_a_second_longer_as_senders_reserve_it():
    found = estimate(individual(30 * 60), budget=SLOW)
    assert found.limited_by is Limit.RATE
    assert minutes_until(found) == pytest.approx(61, abs=1)
    assert estimate(shared(50 * 30 * 60), budget=SLOW) == found


def test_without_a_rate_the_last_minute_shows_the_speed():
    found = estimate(individual(6000), budget=Budget(seen_per_minute=600))
    assert (found.limited_by, found.takes) == (Limit.CONNECTIONS_OR_SPEED, found.done_at and found.done_at - NOW)
    assert minutes_until(found) == pytest.approx(10, abs=1)


def test_a_speed_that_nothing_shows_is_not_made_up():
    assert estimate(individual(6000), budget=FREE) == Estimate(None, Limit.UNKNOWN_SPEED)
    assert estimate_backlog([individual(6000)], FREE, now=NOW) == Estimate(None, Limit.UNKNOWN_SPEED)


def test_without_a_speed_what_is_known_is_told_as_a_time_before_which_it_is_not_done():
    later = replace(individual(6000), begins_at=NOW + HOUR)
    found = estimate(later, budget=FREE)
    assert (found.done_at, found.limited_by, found.not_before) == (None, Limit.NOT_BEGUN, found.not_before)
    assert found.not_before is not None
    assert found.not_before >= NOW + HOUR
    assert found.is_after(NOW + MINUTE)
    assert not found.is_after(NOW + DAY)
    resting = estimate(individual(1), budget=Budget(parked_until=NOW + HOUR))
    assert (resting.done_at, resting.limited_by) == (None, Limit.PARKED)


# -- What holds it back


def test_what_costs_most_of_the_time_is_what_limits():
    resting = replace(SLOW, parked_until=NOW + HOUR)
    assert estimate(individual(30), budget=resting).limited_by is Limit.PARKED
    assert estimate(individual(30 * 90), budget=resting).limited_by is Limit.RATE
    assert minutes_until(estimate(individual(30 * 90), budget=resting)) == pytest.approx(60 + 91.5, abs=1)


def test_a_job_that_begins_later_ends_no_sooner_than_that():
    later = replace(individual(30), begins_at=NOW + HOUR)
    found = estimate(later, budget=SLOW)
    assert (found.limited_by, minutes_until(found)) == (Limit.NOT_BEGUN, pytest.approx(61, abs=1))
    behind = estimate(later, individual(30 * 120, URGENT), budget=SLOW)
    assert minutes_until(behind) == pytest.approx(122 + 1, abs=1)


def test_who_was_put_off_is_waited_for():
    put_off = replace(individual(30), deferred=2, deferred_until=NOW + HOUR)
    assert estimate(put_off, budget=SLOW).limited_by is Limit.RETRIES
    assert minutes_until(estimate(put_off, budget=SLOW)) == pytest.approx(60, abs=1)
    assert estimate(put_off, budget=FREE).done_at is None
    assert minutes_until(estimate(replace(put_off, deferred=30), budget=FREE)) == pytest.approx(60, abs=1)
    whole = estimate_backlog([individual(30), put_off], SLOW, now=NOW)
    assert whole is not None
    assert whole.limited_by is Limit.RETRIES


@pytest.mark.parametrize("hold", [Limit.PAUSED, Limit.HALTED, Limit.NO_WORKER, Limit.NOT_BEGUN])
def test_what_a_person_must_end_leaves_only_how_long_it_takes_then(hold: Limit):
    found = estimate(individual(30 * 60), budget=SLOW, hold=hold)
    assert (found.done_at, found.limited_by) == (None, hold)
    assert found.takes is not None
    assert found.takes / MINUTE == pytest.approx(61, abs=1)
    assert estimate(individual(30), budget=FREE, hold=hold) == Estimate(None, hold)


def test_a_backlog_of_nothing_has_no_estimate():
    assert estimate_backlog([], SLOW, now=NOW) is None
    assert estimate_backlog([Work(NORMAL, 0, 0)], SLOW, now=NOW) is None


# -- Ranks and shares


def test_better_ranks_go_first_and_worse_ones_are_not_in_the_way():
    alone = minutes_until(estimate(individual(300), budget=SLOW))
    assert minutes_until(estimate(individual(300), individual(9000, BULK), budget=SLOW)) == alone
    behind = estimate(individual(300), individual(900, URGENT), budget=SLOW)
    assert (minutes_until(behind), behind.ahead) == (pytest.approx(alone * 4, abs=3), 900)


def test_a_small_job_behind_a_big_one_of_its_rank_ends_early():
    found = estimate(individual(300), individual(1_000_000), individual(100), budget=SLOW)
    assert (minutes_until(found), found.ahead) == (pytest.approx(700 * 61 / 30 / 60, abs=1), 400)


def test_jobs_that_begin_after_it_are_not_in_its_way():
    later = replace(individual(9000, URGENT), begins_at=NOW + HOUR)
    assert estimate(individual(30), later, budget=SLOW) == estimate(individual(30), budget=SLOW)
    assert estimate(replace(individual(30), begins_at=NOW + 2 * HOUR), later, budget=SLOW).ahead == 9000


def test_a_share_of_a_shared_job_is_in_messages_too():
    (stretch,) = stretches_ahead(shared(100), [shared(1000), individual(1000)], NOW)
    assert (stretch.recipients, stretch.messages) == (200, 2 + 100)


# -- The rolling day


def full(*, ago: timedelta) -> Budget:
    return Budget(messages_per_minute=30, days=[RollingDay(10_000, used=(used(10_000, ago=ago),))])


def test_a_full_day_resumes_as_yesterdays_minutes_run_out():
    found = estimate(individual(30), budget=full(ago=timedelta(hours=23)))
    assert (found.limited_by, minutes_until(found)) == (Limit.DAY, pytest.approx(60 + 1 + 1, abs=1))


def test_what_is_left_of_the_day_is_used_first():
    budget = Budget(messages_per_minute=30, days=[RollingDay(10_000, used=(used(9_000, ago=timedelta(hours=23)),))])
    assert minutes_until(estimate(individual(900), budget=budget)) == pytest.approx(30.5, abs=1)
    assert minutes_until(estimate(individual(1_100), budget=budget)) == pytest.approx(60 + 1 + 100 / 29.5, abs=1)


@pytest.mark.parametrize("speed", [None, 6000])
def test_a_backlog_of_several_days_takes_a_day_and_a_minute_for_each_that_is_full(speed: int | None):
    budget = Budget(messages_per_minute=speed, days=[RollingDay(10_000)])
    found = estimate(shared(95_000), budget=budget)
    assert found.limited_by is Limit.DAY
    assert minutes_until(found) == pytest.approx(9 * 1441, abs=60)  # rounded up to an hour


def test_of_a_day_that_is_full_enough_a_speed_need_not_be_known():
    budget = Budget(days=[RollingDay(10_000)])
    assert estimate(shared(10_000), budget=budget) == Estimate(None, Limit.UNKNOWN_SPEED)
    assert estimate(shared(10_050), budget=budget).limited_by is Limit.DAY


def test_urgent_mail_may_use_what_is_kept_for_it():
    quota = RollingDay(10_000, kept_for_urgent=2_000, used=(used(8_000, ago=HOUR),))
    budget = Budget(messages_per_minute=30, days=[quota])
    assert minutes_until(estimate(individual(300, URGENT), budget=budget)) == pytest.approx(10, abs=1)
    assert minutes_until(estimate(individual(300, NORMAL), budget=budget)) == pytest.approx(23 * 60 + 10, abs=11)


def test_a_mailbox_that_rests_because_its_day_is_full_says_so():
    day = full(ago=timedelta(hours=23))
    assert estimate(individual(30), budget=replace(day, parked_until=NOW + HOUR)).limited_by is Limit.DAY


def test_a_message_that_no_day_has_room_for_is_never_sent():
    never = Budget(messages_per_minute=30, days=[RollingDay(40, used=(used(40, ago=HOUR),))])
    assert estimate(shared(500), budget=never) == Estimate(None, Limit.DAY, is_never=True)


def test_only_urgent_mail_goes_out_while_the_rest_of_the_day_is_kept_for_it():
    kept = replace(SLOW, kept_for_urgent_until=NOW + HOUR)
    assert minutes_until(estimate(individual(30, URGENT), budget=kept)) == pytest.approx(1, abs=1)
    assert minutes_until(estimate(individual(30, NORMAL), budget=kept)) == pytest.approx(61, abs=1)


def test_of_two_quotas_the_tighter_one_limits():
    own = RollingDay(10_000, used=(used(10_000, ago=timedelta(hours=23)),))
    tenant = RollingDay(5_000, used=(used(5_000, ago=timedelta(hours=20)),), limit=Limit.TENANT, part=0.5)
    both = replace(SLOW, days=[own, tenant])
    found = estimate(individual(300), budget=both)
    assert (found.limited_by, minutes_until(found)) == (Limit.TENANT, pytest.approx(4 * 60 + 10, abs=2))
    assert (
        estimate(individual(300), budget=replace(SLOW, days=[own, replace(tenant, part=0.0)])).limited_by is Limit.DAY
    )
    fits = replace(tenant, used=(used(4_850, ago=HOUR),))
    assert minutes_until(estimate(individual(300), budget=replace(SLOW, days=[fits]))) == pytest.approx(10, abs=1)
    assert estimate(individual(302), budget=replace(SLOW, days=[fits])).limited_by is Limit.TENANT


def test_a_backlog_of_years_is_walked_in_no_time():
    budget = Budget(messages_per_minute=30, days=[RollingDay(10_000, used=(used(10_000, ago=HOUR),))])
    found = estimate(individual(100_000_000), budget=budget)
    assert minutes_until(found) == pytest.approx(10_000 * 1441 + 23 * 60, rel=0.001)


# -- Properties

WORKS = st.builds(
    lambda rank, recipients, batch: Work(rank, recipients, -(-recipients // batch)),
    st.sampled_from([URGENT, NORMAL, BULK]),
    st.integers(1, 4000),
    st.sampled_from([1, 50]),
)
USED = st.lists(
    st.builds(lambda minutes, count: used(count, ago=minutes * MINUTE), st.integers(0, 1440), st.integers(1, 300)),
    max_size=5,
)
RATES = st.integers(1, 600)


def budgets() -> st.SearchStrategy[Budget]:
    days = st.builds(lambda of, minutes: RollingDay(of, of // 5, tuple(minutes)), st.integers(100, 3000), USED)
    parked = st.none() | st.integers(0, 300).map(lambda minutes: NOW + minutes * MINUTE)
    return st.builds(
        lambda rate, day, until: Budget(messages_per_minute=rate, days=day, parked_until=until),
        RATES, st.lists(days, max_size=1), parked,
    )  # fmt: skip


def end_of(own: Work, others: list[Work], budget: Budget) -> datetime:
    found = estimate_job(own, others, budget, now=NOW)
    assert found.done_at is not None
    assert found.done_at >= NOW
    return found.done_at


@given(own=WORKS, others=st.lists(WORKS, max_size=4), more=WORKS, size=st.sampled_from([1, 7, 50]), budget=budgets())
@settings(max_examples=60, deadline=None)
def test_more_backlog_never_ends_sooner(own: Work, others: list[Work], more: Work, size: int, budget: Budget):
    # Of one size: those of several are averaged, and a smaller average fits a full day better.
    own, more, *others = (replace(work, recipients=work.messages * size, deferred=0) for work in (own, more, *others))
    assert end_of(own, [*others, more], budget) >= end_of(own, others, budget)


@given(own=WORKS, budget=budgets())
@settings(max_examples=60, deadline=None)
def test_a_longer_job_never_ends_sooner(own: Work, budget: Budget):
    longer = replace(own, recipients=own.recipients * 3, messages=own.messages * 3)
    assert end_of(longer, [], budget) >= end_of(own, [], budget)


def simulated_end(messages: int, size: int, budget: Budget, *, is_urgent: bool) -> float:
    """Send message after message, and look at every minute of the last day before each: slow, and plain."""
    at = max(NOW, budget.parked_until or NOW).timestamp()
    counted = [(one.minute.timestamp(), one.recipients, one.urgent) for day in budget.days for one in day.used]
    for _ in range(messages):
        for day in budget.days:
            while True:
                counted = [one for one in counted if one[0] + 86_460 > at]
                ordinary = sum(one[1] - one[2] for one in counted)
                fits = sum(one[1] for one in counted) + size <= day.recipients
                if fits and (is_urgent or ordinary + size <= day.recipients - day.kept_for_urgent):
                    break
                at = min(one[0] for one in counted) + 86_460
        counted.append((at // 60 * 60, size, size if is_urgent else 0))
        at += 61.0 / (budget.messages_per_minute or 1)
    return at


@given(
    messages=st.integers(1, 400),
    size=st.sampled_from([1, 50]),
    budget=budgets(),
    rank=st.sampled_from([URGENT, NORMAL]),
)
@example(messages=198, size=50, budget=Budget(messages_per_minute=2, days=[RollingDay(188, 37)]), rank=URGENT)
@example(messages=322, size=1, budget=Budget(messages_per_minute=1, days=[RollingDay(100, 20)]), rank=NORMAL)
@settings(max_examples=40, deadline=None)
def test_a_simulation_of_every_message_agrees(messages: int, size: int, budget: Budget, rank: int):
    walk = MailboxWalk(budget, NOW)
    assert walk.go(Stretch(messages * size, messages, is_urgent=rank == URGENT))
    assert walk.at == pytest.approx(simulated_end(messages, size, budget, is_urgent=rank == URGENT), abs=1.0)


# -- Rounding


@pytest.mark.parametrize(
    ("away", "minutes"),
    [(timedelta(seconds=1), 40 / 60), (timedelta(seconds=41), 100 / 60), (7 * HOUR, 420 + 10 - 20 / 60)],
)
def test_a_time_is_rounded_up_and_the_more_the_further_off(away: timedelta, minutes: float):
    assert (rounded_up(NOW + away, NOW) - NOW) / MINUTE == pytest.approx(minutes)
    assert rounded_up(NOW + 3 * DAY, NOW) == datetime(2026, 11, 25, 3, tzinfo=UTC)
    assert rounded_up(NOW.replace(second=0), NOW.replace(second=0)) == NOW.replace(second=0)
