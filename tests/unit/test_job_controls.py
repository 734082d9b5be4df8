"""What may be done to a job, and what is said of it, follows from its row alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tocsin_console.commands.event_words import event_line
from tocsin_console.commands.job_showing import recipient_rows
from tocsin_console.commands.parameters import LONGEST_REASON, read_reason
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.actors import Actor, ActorKind
from tocsin_schema.ledger.job_controls import LockedJob, may_cancel, may_pause, may_resume, told
from tocsin_schema.ledger.job_events import RecordedEvent
from tocsin_schema.ledger.job_states import JobState
from tocsin_schema.ledger.recipient_control_rules import (
    Settlement,
    Standing,
    check_called,
    check_none_left_over,
    check_retry,
    check_settle,
    forms,
)
from tocsin_schema.ledger.recipient_story import RecipientReading, Try

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
ADA = Actor(ActorKind.LOGIN, "ada")
RUNNING = LockedJob(1, UUID(int=1), "running", None, expires_at=LATER, read_at=NOW)


def job(state: str, *, expires_at: datetime = LATER) -> LockedJob:
    return replace(RUNNING, state=state, expires_at=expires_at)


@pytest.mark.parametrize("state", ["receiving", "running", "paused"])
def test_an_open_job_can_be_cancelled_even_when_its_time_is_over(state: str) -> None:
    assert may_cancel(job(state))
    assert may_cancel(job(state, expires_at=EARLIER))


def test_cancelling_twice_is_harmless_and_a_finished_job_cannot_be_cancelled() -> None:
    assert not may_cancel(job("cancelled"))
    with pytest.raises(UsageError, match="is finished: there is nothing left to cancel"):
        may_cancel(job("finished"))


def test_what_is_paused_stays_so_and_what_is_not_is_not_resumed() -> None:
    assert (may_pause(job("running")), may_pause(job("receiving")), may_pause(job("paused"))) == (True, True, False)
    assert (may_resume(job("paused")), may_resume(job("running")), may_resume(job("receiving"))) == (True, False, False)


@pytest.mark.parametrize(
    ("ended", "why"),
    [(job("finished"), "is finished"), (job("cancelled"), "is cancelled"), (job("running", expires_at=NOW), "expired")],
    ids=["finished", "cancelled", "expired"],
)
def test_what_has_ended_is_neither_paused_nor_resumed(ended: LockedJob, why: str) -> None:
    for may in (may_pause, may_resume):
        with pytest.raises(UsageError, match=why):
            may(ended)


def test_who_and_why_is_told_in_one_line() -> None:
    assert told(JobState.PAUSED, ADA, "help desk closed") == "paused by ada: help desk closed"
    assert told(JobState.CANCELLED, ADA, None) == "cancelled by ada"


def test_a_finished_job_is_retried_and_one_whose_time_is_over_only_with_a_new_time() -> None:
    check_retry(job("finished"), None)
    check_retry(job("finished", expires_at=EARLIER), LATER)
    with pytest.raises(UsageError, match=r"was over at 2026-11-21T11:00:00Z.*--expires-at; then who expired"):
        check_retry(job("finished", expires_at=EARLIER), None)
    with pytest.raises(UsageError, match="has gone by"):
        check_retry(job("running"), NOW)
    with pytest.raises(UsageError, match="is cancelled"):
        check_retry(job("cancelled"), LATER)


def test_an_ended_jobs_unknown_are_settled_but_not_sent_again() -> None:
    for settlement in (Settlement.SENT, Settlement.FAILED):
        check_settle(job("cancelled", expires_at=EARLIER), settlement)
    check_settle(job("finished"), Settlement.PENDING)
    with pytest.raises(UsageError, match="sent or failed"):
        check_settle(job("cancelled"), Settlement.PENDING)
    with pytest.raises(UsageError, match="--expires-at"):
        check_settle(job("finished", expires_at=EARLIER), Settlement.PENDING)


def test_some_cannot_be_called_out_of_those_who_expired() -> None:
    check_none_left_over(RUNNING, 0)
    with pytest.raises(UsageError, match=r"had expired \(3\) comes back"):
        check_none_left_over(RUNNING, 3)


KNOWN = [
    Standing(0, 0, "Ada@example.org", "failed", is_malformed=False, is_suppressed=False),
    Standing(1, 0, "ben@example.org", "sent", is_malformed=False, is_suppressed=False),
    Standing(2, 0, "no address", "failed", is_malformed=True, is_suppressed=False),
    Standing(9, 3, "ben@example.org", "failed", is_malformed=False, is_suppressed=False),
    Standing(10, 3, "eve@example.org", "failed", is_malformed=False, is_suppressed=True),
]
FAILED_ONES = ("failed", "suppressed")


def test_recipients_are_called_in_any_spelling_of_their_domain_and_only_those_in_the_state_are_meant() -> None:
    meant = check_called(RUNNING, ["Ada@EXAMPLE.org", "ben@example.org", "Ada@example.org"], KNOWN, FAILED_ONES)
    assert {one.ordinal for one in meant} == {0, 9}
    assert forms("not one") == ("not one",)


def test_every_address_that_does_not_fit_is_named_with_the_reason() -> None:
    called = ["Ada@example.org", "ada@example.org", "no address", "zoe@example.org"]
    with pytest.raises(UsageError) as refused:
        check_called(RUNNING, called, KNOWN, FAILED_ONES)
    assert refused.value.problem == (
        "ada@example.org is not in this job; no address is malformed and was never tried; zoe@example.org is not in"
        " this job. Nothing was changed."
    )
    with pytest.raises(UsageError, match=r"ben@example\.org is sent, not unknown"):
        check_called(RUNNING, ["ben@example.org"], KNOWN[:2], ["unknown"])


def test_who_is_called_and_still_suppressed_is_refused_with_the_command_that_ends_it() -> None:
    with pytest.raises(UsageError, match=r"eve@example\.org is suppressed and would not be sent to") as refused:
        check_called(RUNNING, ["Ada@example.org", "eve@example.org"], KNOWN, FAILED_ONES)
    assert refused.value.fix == "`tocsin suppression remove eve@example.org` first, then try it again."


def test_of_very_many_wrong_addresses_some_are_named() -> None:
    with pytest.raises(UsageError, match=r"; and 90 more\."):
        check_called(RUNNING, [f"r{n}@example.org" for n in range(100)], [], ["failed"])


def an_event(event: str, actor: str | None, **details: object) -> RecordedEvent:
    return RecordedEvent(1, event, NOW, None if actor is None else "login", actor, details)


def test_an_event_is_told_with_who_why_and_how_many() -> None:
    cancelled = an_event("cancelled", "ada", reason="wrong text", sent=1000, in_flight=0, not_sent=2)
    assert event_line(cancelled) == "cancelled by ada: wrong text (1,000 sent, 2 not sent to)"
    assert event_line(an_event("resumed", "ada")) == "resumed by ada"
    settled = an_event("settled", "ada", **{"as": "sent", "recipients": 3})
    assert event_line(settled) == "settled by ada (3 recipients as sent)"
    retried = an_event("retried", "ada", failed=2, suppressed=1, expired=3, expires_at="2026-11-22T04:49:49+00:00")
    assert event_line(retried) == (
        "retried by ada (2 failed recipients and 1 no longer suppressed and 3 who had expired;"
        " expires at 2026-11-22T04:49:49Z)"
    )


def test_what_tocsin_itself_tells_of_a_job_is_told_in_words_too() -> None:
    assert event_line(an_event("expired", None, total=3, recipients={"expired": 3})) == (
        "expired (3 of 3 recipients not sent to)"
    )
    assert event_line(an_event("incomplete", None, total=5, recipients={"sent": 2, "in_flight": 1, "expired": 2})) == (
        "incomplete (2 of 5 recipients not sent to, 2 sent, 1 under way)"
    )
    soon = an_event("expires_soon", None, unsettled=7, expires_at="2026-11-22T04:49:49.123+00:00", holds=["a", "b"])
    assert event_line(soon) == "expires soon (7 not done; a; b; expires at 2026-11-22T04:49:49Z)"


TWICE = (
    Try(EARLIER, "pending", "rcpt", 452, "4.2.2", "Mailbox full", "452 4.2.2 Mailbox full (the mailbox is full)"),
    Try(NOW, "failed", "final", 550, "5.7.1", "Spam", "the message was refused"),
)
FAILED = RecipientReading(
    0, "a@example.org", None, "failed", 550, "5.7.1", "Spam", 2, None, "the message was refused", None, TWICE
)


def test_whoever_took_several_tries_to_fail_has_each_told_below_in_words_and_nothing_twice() -> None:
    line, *tries = recipient_rows(FAILED, all_tries=False)
    assert line == ("a@example.org", "failed", 550, "5.7.1", 2, "the message was refused")
    full = "452 4.2.2 Mailbox full (the mailbox is full)"
    assert tries == [
        ("  2026-11-21T11:00:00Z", "tried again", 452, "4.2.2", "at the address", full),
        ("  2026-11-21T12:00:00Z", "failed", 550, "5.7.1", "after the message", "the message was refused: Spam"),
    ]


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ("the server closed the connection (final)",
         "the server closed the connection after the message, without a reply: it may have been sent"),
        ("the server closed the connection (auth)", "the server closed the connection (at the log-in)"),
        ("421 4.3.2 Bye (final)", "421 4.3.2 Bye (after the message)"),
        ("550 no (see our rules)", "550 no (see our rules)"),
    ],
)  # fmt: skip
def test_where_a_session_broke_is_told_in_words(stored: str, told: str) -> None:
    assert recipient_rows(replace(FAILED, reason=stored, tries=()), all_tries=False)[0][-1] == told


@pytest.mark.parametrize(
    ("state", "told"), [("pending", "pending"), ("in_flight", "tried again"), ("expired", "deferred")]
)
def test_a_last_try_that_left_somebody_pending_says_what_came_of_that(state: str, told: str) -> None:
    _, row = recipient_rows(replace(FAILED, state=state, tries=TWICE[:1]), all_tries=True)
    assert row[1] == told


def test_one_try_says_no_more_than_the_line_and_is_told_when_asked_for() -> None:
    for recipient in (replace(FAILED, tries=TWICE[1:]), replace(FAILED, state="sent")):
        assert len(recipient_rows(recipient, all_tries=False)) == 1
        assert len(recipient_rows(recipient, all_tries=True)) == 1 + len(recipient.tries)


def test_a_reason_is_one_line_of_bounded_length() -> None:
    assert read_reason(None) is None
    assert read_reason("  wrong\n text ") == "wrong text"
    for bad in (" ", "x" * (LONGEST_REASON + 1), "a\x1b[2J"):
        with pytest.raises(UsageError):
            read_reason(bad)
