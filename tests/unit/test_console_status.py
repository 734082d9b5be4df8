"""What `tocsin status` says of profiles and workers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from tocsin_console.commands.status import state_of, workers_line
from tocsin_schema.ledger.status import ProfileStatus, WorkersOfHost

QUIET = ProfileStatus(
    name="alerts",
    from_address="alerts@campus.example",
    auth="oauth",
    paused_reason=None,
    probe_at=None,
    parked_until=None,
    parked_reason=None,
    open_jobs=0,
    due_recipients=0,
    waiting_recipients=0,
    connections_open=0,
    connections=3,
    messages_per_minute=30,
    token_failure=None,
)


def test_a_profile_without_mail_has_nothing_to_send():
    assert state_of(QUIET, has_workers=True) == "nothing to send"


def test_a_paused_profile_says_why_whatever_else_holds_it_up():
    paused = replace(QUIET, paused_reason="wrong secret", token_failure="refused", due_recipients=7)
    assert state_of(paused, has_workers=True) == "paused: wrong secret"


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
