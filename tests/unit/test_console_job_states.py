"""What a job and a recipient are shown as follows from their rows alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tocsin_console.reading.progress import job_progress, state_line
from tocsin_schema.ledger.job_reading import Job
from tocsin_schema.ledger.job_states import Hold, JobState, shown_state
from tocsin_schema.ledger.recipient_story import Acceptance, RecipientRow, Try, by_ordinal, reading

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)

RUNNING = Job(
    number=1, id=UUID(int=1), state="running", state_reason=None, profile="news", template=None,
    template_version=None, mode="shared", rank=1, on_unknown="resend", source=None, key=None, event=None,
    correlation_id=None, last_part=1, created_at=NOW, send_after=None, expires_at=LATER, finished_at=None, total=10,
    sent=4, in_flight=1, failed=2, unknown=0, suppressed=0, unsettled=3, unsettled_state="pending", parts_received=1,
    lacks_first_part=False, duplicates=0, next_due_at=NOW, is_worked_on=True, profile_is_paused=False,
    paused_reason=None, parked_until=None, parked_reason=None, halted_reason=None, has_senders=True,
    read_at=NOW,
)  # fmt: skip


def test_a_job_that_nothing_holds_up_runs() -> None:
    assert shown_state(RUNNING, NOW).state is JobState.RUNNING


@pytest.mark.parametrize("stored", ["receiving", "running"])
def test_a_job_is_scheduled_until_its_time_has_come(stored: str) -> None:
    job = replace(RUNNING, state=stored, send_after=LATER)
    assert (shown_state(job, NOW).state, shown_state(job, NOW).until) == (JobState.SCHEDULED, LATER)
    assert shown_state(job, LATER).state.value == stored


def test_a_job_of_a_paused_profile_waits_and_says_why() -> None:
    job = replace(RUNNING, profile_is_paused=True, paused_reason="the password was refused")
    shown = shown_state(job, NOW)
    assert shown.state is JobState.WAITING
    assert "the password was refused" in (shown.reason or "")
    assert shown.until is None


def test_that_all_sending_is_halted_comes_before_what_holds_up_one_profile() -> None:
    job = replace(RUNNING, halted_reason="the ledger was restored", profile_is_paused=True, paused_reason="x")
    assert state_line(job) == "waiting (all sending is halted: the ledger was restored)"
    assert shown_state(replace(job, unsettled=0), NOW).state is JobState.RUNNING


def test_a_job_of_a_parked_mailbox_waits_until_the_mailbox_is_free() -> None:
    job = replace(RUNNING, parked_until=LATER, parked_reason="432 4.3.2 too many connections")
    shown = shown_state(job, NOW)
    assert (shown.state, shown.until) == (JobState.WAITING, LATER)
    assert "432 4.3.2" in (shown.reason or "")
    assert shown_state(job, LATER).state is JobState.RUNNING


def test_a_job_with_nothing_but_retries_left_waits_for_the_first() -> None:
    job = replace(RUNNING, is_worked_on=False, next_due_at=LATER, in_flight=0)
    assert (shown_state(job, NOW).state, shown_state(job, NOW).until) == (JobState.WAITING, LATER)
    assert shown_state(replace(job, is_worked_on=True), NOW).state is JobState.RUNNING


def test_a_job_that_is_due_waits_for_a_worker_where_none_sends() -> None:
    job = replace(RUNNING, is_worked_on=False, in_flight=0, has_senders=False)
    assert shown_state(job, NOW).hold is Hold.WORKER
    assert state_line(job) == ("waiting for a worker: none that sends is running; start `tocsin up` or `tocsin worker`")
    assert shown_state(replace(job, is_worked_on=True), NOW).state is JobState.RUNNING
    assert shown_state(replace(job, next_due_at=LATER), NOW).hold is Hold.RETRIES
    assert shown_state(replace(job, unsettled=0), NOW).state is JobState.RUNNING


def test_a_receiving_job_that_has_sent_all_it_has_is_still_receiving() -> None:
    job = replace(RUNNING, state="receiving", unsettled=0, profile_is_paused=True, paused_reason="x", next_due_at=None)
    assert shown_state(job, NOW).state is JobState.RECEIVING


def test_a_job_without_its_part_1_waits_for_that_whatever_else_would_hold_it_up() -> None:
    job = replace(
        RUNNING, state="receiving", lacks_first_part=True, next_due_at=None, is_worked_on=False, send_after=LATER,
        profile_is_paused=True, paused_reason="x",
    )  # fmt: skip
    assert state_line(job) == "receiving (waits for part 1)"


@pytest.mark.parametrize("stored", ["paused", "cancelled", "finished"])
def test_an_ended_or_paused_job_says_its_own_reason_whatever_its_profile_does(stored: str) -> None:
    job = replace(
        RUNNING, state=stored, state_reason="by hand", send_after=LATER, profile_is_paused=True, paused_reason="x"
    )
    shown = shown_state(job, NOW)
    assert (shown.state.value, shown.reason) == (stored, "by hand")
    assert shown.state.is_open is (stored == "paused")


def test_the_state_line_tells_state_time_and_reason() -> None:
    job = replace(RUNNING, parked_until=LATER, parked_reason="throttled")
    assert state_line(job) == "waiting until 2026-11-21T13:00:00Z (the mailbox rests: throttled)"
    kept = replace(job, is_kept_for_urgent=True)
    assert state_line(kept) == "waiting until 2026-11-21T13:00:00Z (only urgent jobs are sent: throttled)"


@pytest.mark.parametrize(("state", "word"), [("paused", "paused"), ("cancelled", "cancelled")])
def test_the_state_line_says_who_stopped_a_job_and_the_word_once(state: str, word: str) -> None:
    assert state_line(replace(RUNNING, state=state, state_reason=f"{word} by ada: late")) == f"{word} by ada: late"
    assert state_line(replace(RUNNING, state="finished", state_reason="expired")) == "finished (expired)"


def test_counts_name_only_states_that_occur_and_add_up_to_the_total() -> None:
    assert RUNNING.counts == {"pending": 3, "in_flight": 1, "sent": 4, "failed": 2}
    assert sum(RUNNING.counts.values()) == RUNNING.total
    assert RUNNING.settled == 6


def test_whom_an_ended_job_left_over_are_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    job = replace(RUNNING, state="cancelled", in_flight=0, unsettled=4, unsettled_state="cancelled")
    assert job.counts["cancelled"] == 4
    assert job.settled == 6
    with job_progress() as report:
        report(job)
    assert capsys.readouterr().err == "6 of 10 done; cancelled; 4 sent, 2 failed, 4 cancelled\n"


def row(**fields: object) -> RecipientRow:
    values: dict[str, object] = {
        "ordinal": 0, "batch_number": 0, "address": "a@example.org", "name": None, "state": "pending",
        "exception_attempts": 0, "due_at": None, "code": None, "enhanced_code": None, "reply": None, "reason": None,
    }  # fmt: skip
    return RecipientRow(**{**values, **fields})  # pyright: ignore[reportArgumentType]  # the fields are named by the test


ACCEPTED = Acceptance(100, "01010", NOW, 250, "2.0.0", "Ok", "<1@example.org>", lease_epoch=2)
DEFERRED = Try(NOW, "pending", "rcpt", 451, "4.7.1", "later", "the recipient was deferred", lease_epoch=1)


def test_each_bit_of_a_copy_is_one_recipient() -> None:
    assert by_ordinal([ACCEPTED]) == {101: [ACCEPTED], 103: [ACCEPTED]}
    assert by_ordinal([]) == {}


def test_who_got_it_twice_has_both_acceptances_told_and_the_later_shown() -> None:
    later = replace(ACCEPTED, recipients="01000", message_id="<2@example.org>", lease_epoch=3)
    accepted = by_ordinal([ACCEPTED, later])[101]
    shown = reading(row(state="sent"), accepted)
    assert (shown.message_id, shown.attempts) == ("<2@example.org>", 2)
    assert [one.state for one in shown.tries] == ["sent", "sent"]


def test_who_was_sent_to_again_after_a_try_in_doubt_has_both_told_though_no_exception_says_so() -> None:
    doubt = Try(NOW, "pending", "final", None, None, None, "the worker stopped", lease_epoch=1)
    shown = reading(row(state="sent"), [replace(ACCEPTED, lease_epoch=3)], [doubt])
    assert [(one.state, one.code) for one in shown.tries] == [("pending", None), ("sent", 250)]
    assert shown.attempts == 2
    assert reading(row(state="pending"), (), [doubt]).attempts == 1
    assert reading(row(state="in_flight"), (), [doubt]).attempts == 2


def test_a_try_in_doubt_whose_acceptance_came_late_is_one_try() -> None:
    doubt = Try(NOW, "pending", "final", None, None, None, "the worker stopped", lease_epoch=1)
    shown = reading(row(state="sent"), [replace(ACCEPTED, lease_epoch=1)], [doubt])
    assert ([one.state for one in shown.tries], shown.attempts) == (["sent"], 1)


def test_a_sent_recipient_shows_the_providers_answer_and_not_its_earlier_trouble() -> None:
    trouble = row(state="sent", exception_attempts=2, code=451, reply="later", reason="deferred", due_at=NOW)
    shown = reading(trouble, [ACCEPTED])
    assert (shown.code, shown.reply, shown.message_id, shown.attempts) == (250, "Ok", "<1@example.org>", 3)
    assert (shown.reason, shown.due_at) == (None, None)


def test_the_tries_of_a_sent_recipient_end_with_the_acceptance() -> None:
    shown = reading(row(state="sent", exception_attempts=1, reason="deferred"), [ACCEPTED], [DEFERRED])
    assert [(one.state, one.phase, one.code) for one in shown.tries] == [
        ("pending", "rcpt", 451),
        ("sent", "final", 250),
    ]
    assert [one.state for one in reading(row(state="failed", reason="x"), (), [DEFERRED]).tries] == ["pending"]


def test_who_was_settled_as_sent_by_a_person_shows_by_whom_and_no_reply() -> None:
    shown = reading(row(state="sent", reason="settled as sent, by ada"))
    assert (shown.reason, shown.reply, shown.message_id, shown.attempts) == ("settled as sent, by ada", None, None, 1)


def test_a_deferred_recipient_shows_when_it_is_tried_again() -> None:
    shown = reading(row(exception_attempts=1, code=451, reply="later", reason="deferred", due_at=NOW))
    assert (shown.state, shown.attempts, shown.due_at, shown.code) == ("pending", 1, NOW, 451)


def test_the_try_that_runs_counts() -> None:
    assert reading(row(state="in_flight")).attempts == 1
    assert reading(row(state="pending")).attempts == 0
