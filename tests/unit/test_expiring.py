"""What is said to hold up a job that expires soon."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tocsin_schema.ledger.expiring import ExpiringJob, holds

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
JOB = ExpiringJob(
    number=1,
    id=UUID(int=1),
    profile="news",
    state="running",
    state_reason=None,
    expires_at=NOW + timedelta(minutes=5),
    unsettled=7,
    next_due_at=NOW,
    is_worked_on=False,
    paused_reason=None,
    parked_until=None,
    parked_reason=None,
    kept_for_urgent_until=None,
    kept_for_urgent_reason=None,
    halted_reason=None,
    read_at=NOW,
)


def test_everything_that_holds_it_up_is_told_the_widest_first() -> None:
    job = replace(
        JOB,
        state="paused",
        state_reason="wrong list",
        halted_reason="fire drill",
        paused_reason="wrong secret",
        parked_until=NOW + timedelta(minutes=1),
    )
    assert holds(job) == [
        "all sending is halted: fire drill",
        "the sending profile is paused: wrong secret",
        "the mailbox rests until 2026-11-22T12:01:00Z: its provider asked us to slow down",
        "the job is paused: wrong list",
    ]


def test_what_is_kept_for_urgent_jobs_is_told_where_the_rest_ends_before() -> None:
    why = "its 100 recipients of 24 hours are used up but for those that are kept for urgent jobs"
    kept = replace(JOB, kept_for_urgent_until=NOW + timedelta(hours=2), kept_for_urgent_reason=why)
    told = f"the mailbox is for urgent jobs only until 2026-11-22T14:00:00Z: {why}"
    assert holds(kept) == [told]
    rests = "the mailbox rests until {}: its provider asked us to slow down"
    assert holds(replace(kept, parked_until=NOW + timedelta(hours=1))) == [rests.format("2026-11-22T13:00:00Z"), told]
    assert holds(replace(kept, parked_until=NOW + timedelta(hours=2))) == [rests.format("2026-11-22T14:00:00Z")]


def test_a_job_without_its_last_part_says_so() -> None:
    assert holds(replace(JOB, state="receiving")) == ["its last part has not come"]


def test_a_job_of_nothing_but_retries_says_when_the_next_one_is() -> None:
    later = replace(JOB, next_due_at=NOW + timedelta(minutes=3))
    assert holds(later) == ["what is left is tried again at 2026-11-22T12:03:00Z"]
    assert holds(replace(later, is_worked_on=True)) != holds(later)


def test_a_job_that_nothing_holds_up_is_late_all_the_same() -> None:
    assert holds(JOB) == ["more is to be sent than gets through in time"]
