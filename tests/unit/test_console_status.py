"""What `tocsin status` says of profiles and workers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tocsin_console.commands.halt import last_halt_line
from tocsin_console.commands.profile_pausing import pause_line
from tocsin_console.commands.status import later_line, paused_line, state_of, unknown_line, workers_line
from tocsin_schema.ledger.sending_halt import HaltCause, LiftedHalt
from tocsin_schema.ledger.status import HeldJobs, ProfileStatus, UnknownFates, WorkersOfHost

QUIET = ProfileStatus(
    name="alerts",
    from_address="alerts@campus.example",
    auth="oauth",
    paused_at=None,
    paused_reason=None,
    paused_by=None,
    probe_at=None,
    parked_until=None,
    parked_reason=None,
    kept_for_urgent_until=None,
    kept_for_urgent_reason=None,
    open_jobs=0,
    due_recipients=0,
    waiting_recipients=0,
    paused_recipients=0,
    paused_jobs=0,
    connections_open=0,
    connections=3,
    messages_per_minute=30,
    token_failure=None,
)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PAUSED = replace(QUIET, paused_at=NOON, paused_reason="wrong secret")


def test_a_profile_without_mail_has_nothing_to_send():
    assert state_of(QUIET, has_workers=True) == "nothing to send"


def test_a_paused_profile_says_why_whatever_else_holds_it_up():
    paused = replace(PAUSED, token_failure="refused", due_recipients=7)
    assert state_of(paused, has_workers=True) == (
        "paused: wrong secret (since 2026-11-21T12:00:00Z); when mended: `tocsin profile resume alerts`"
    )


def test_a_pause_says_who_made_it_or_when_a_worker_tries_to_end_it():
    by_hand = replace(PAUSED, paused_reason="moving", paused_by="ada")
    assert state_of(by_hand, has_workers=True).startswith("paused: moving (by ada, since 2026-11-21T12:00:00Z); ")
    probed = replace(PAUSED, probe_at=NOON + timedelta(minutes=1))
    assert "(since 2026-11-21T12:00:00Z, tried again by itself at 2026-11-21T12:01:00Z)" in state_of(
        probed, has_workers=True
    )


def test_a_reason_that_is_a_sentence_has_no_full_stop_before_the_brackets():
    refused = replace(PAUSED, paused_reason="535 no. Give the right one: `tocsin profile replace-password alerts`.")
    assert "replace-password alerts` (since " in state_of(refused, has_workers=True)


def test_a_second_pause_tells_of_the_first_and_that_nothing_was_changed():
    moving = "moving (by ada, since 2026-11-21T12:00:00Z)"
    assert pause_line("news", was=None, changed=True) == "Sending profile 'news' is paused."
    assert pause_line("news", was=moving, changed=False) == (
        f"Sending profile 'news' was paused already: {moving}. Nothing was changed."
    )
    assert pause_line("news", was="535 no (since 2026-11-21T12:00:00Z)", changed=True) == (
        "Sending profile 'news' is paused until somebody resumes it."
        " It was paused before: 535 no (since 2026-11-21T12:00:00Z)."
    )


def test_a_resting_mailbox_says_until_when_and_why():
    resting = replace(QUIET, parked_until=datetime(2026, 11, 21, 12, tzinfo=UTC), parked_reason="too fast")
    assert state_of(resting, has_workers=True) == "resting until 2026-11-21T12:00:00Z: too fast"


def test_due_mail_without_a_worker_waits_for_one():
    due = replace(QUIET, due_recipients=3)
    assert state_of(due, has_workers=True) == "sending"
    assert state_of(due, has_workers=False) == "waiting for a worker"


def test_a_missing_token_is_told_even_if_mail_is_due():
    assert state_of(replace(QUIET, due_recipients=1, token_failure="no answer"), has_workers=True) == (
        "no access token: no answer"
    )


def test_without_workers_the_line_says_what_to_do():
    assert "tocsin up" in workers_line([])
    assert workers_line([WorkersOfHost("vm", "all", 2, 0.5)]) == "2 processes (all) on vm"


def test_mail_of_which_every_job_is_paused_says_so_and_not_that_it_waits_for_its_time():
    paused = replace(QUIET, waiting_recipients=9, paused_recipients=9, paused_jobs=1)
    assert state_of(paused, has_workers=True) == "its job is paused"
    assert state_of(replace(paused, paused_jobs=2), has_workers=True) == "its 2 jobs are paused"
    assert state_of(replace(paused, waiting_recipients=10), has_workers=True) == "waiting for a retry or its time"
    assert state_of(replace(paused, due_recipients=1), has_workers=True) == "sending"


def test_while_all_is_halted_nothing_is_sending():
    assert state_of(replace(QUIET, due_recipients=3), has_workers=True, is_halted=True) == "all sending is halted"


def test_paused_and_later_jobs_are_counted():
    held = HeldJobs(paused=1, scheduled=1, first_begins_at=datetime(2026, 11, 23, 7, tzinfo=UTC))
    assert paused_line(held).startswith("1 job is paused: `tocsin job resume")
    assert paused_line(replace(held, paused=2)).startswith("2 jobs are paused")
    assert later_line(held) == "1 begins at 2026-11-23T07:00:00Z"
    assert later_line(replace(held, scheduled=2)) == "2; the first begins at 2026-11-23T07:00:00Z"


def test_who_waits_for_a_person_is_told_with_what_the_person_does():
    job = UUID(int=7)
    assert unknown_line(UnknownFates(job, unknown=2, jobs=1, recipients=2)) == (
        f"2 recipients of 1 job wait for a person: `tocsin job recipients {job} --state unknown`, "
        f"then `tocsin job settle {job}`"
    )
    assert "1 recipient of 1 job waits" in unknown_line(UnknownFates(job, unknown=1, jobs=1, recipients=1))
    assert "3 recipients of 2 jobs wait for a person: the newest: `tocsin job rec" in unknown_line(
        UnknownFates(job, unknown=2, jobs=2, recipients=3)
    )


def test_the_last_halt_says_who_halted_when_and_why_and_who_resumed():
    begun, ended = datetime(2026, 11, 21, 12, tzinfo=UTC), datetime(2026, 11, 21, 13, tzinfo=UTC)
    halt = LiftedHalt(HaltCause.BY_HAND, "wrong list", "ada", begun, "root", ended)
    times = "from 2026-11-21T12:00:00Z to 2026-11-21T13:00:00Z"
    assert last_halt_line(halt) == f"All sending was halted by ada {times}: wrong list; resumed by root"
    assert last_halt_line(replace(halt, cause=HaltCause.RESTORED, actor=None)) == (
        f"All sending was halted {times}: the ledger was restored from a backup, or moved; resumed by root"
    )
