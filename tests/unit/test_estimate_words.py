"""What a person reads of an estimate and of a mailbox's budget, at night."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tocsin_console.commands.mailbox_showing import as_row, in_force, notes, sharing, used_of_the_day
from tocsin_console.reading.estimate_words import about, estimate_as_json, estimate_line, length, paused_profile
from tocsin_schema.ledger.estimates import MailboxBudget, Outlook, messages_of
from tocsin_schema.ledger.estimating import Estimate
from tocsin_schema.ledger.mailbox_walk import Limit
from tocsin_schema.ledger.status import ProfileStatus

NOW = datetime(2026, 11, 22, 23, 10, 20, tzinfo=UTC)
SOON = datetime(2026, 11, 22, 23, 35, tzinfo=UTC)
TOMORROW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
MAILBOX = MailboxBudget(
    id=1, host="smtp.example.org", login="board@example.org", profiles=["alerts"], connections=3, connections_set=3,
    connections_lowered_at=None, connections_reason=None, connections_open=1, messages_per_minute=30.0,
    per_minute_set=30, per_minute_lowered_at=None, per_minute_reason=None, recipients_per_message=None,
    recipients_per_day=10_000, recipients_of_the_day=0, urgent_of_the_day=0, share_for_urgent=2_000, frees_at=None,
    tenant=None, tenant_recipients_per_day=None, tenant_recipients_of_the_day=0, tenant_urgent_of_the_day=0,
    tenant_share_for_urgent=None, tenant_frees_at=None, parked_until=None, parked_reason=None,
    kept_for_urgent_until=None, kept_for_urgent_reason=None, messages_last_minute=29, recipients_last_minute=1450,
    seen_per_minute=29.4, read_at=NOW,
)  # fmt: skip
SLOWED = replace(
    MAILBOX, messages_per_minute=11.83, per_minute_lowered_at=NOW, per_minute_reason="421 4.4.2 slow down",
    connections=2, connections_lowered_at=NOW, connections_reason="432 4.3.2 too many",
)  # fmt: skip
QUIET = ProfileStatus(
    name="alerts", from_address="board@example.org", auth="oauth", paused_at=None, paused_reason=None, paused_by=None,
    probe_at=None, parked_until=None, parked_reason=None, kept_for_urgent_until=None, kept_for_urgent_reason=None,
    open_jobs=1, due_recipients=0, waiting_recipients=9, paused_recipients=0, paused_jobs=0, connections_open=0,
    connections=3, messages_per_minute=30, token_failure=None,
)  # fmt: skip


def line(estimate: Estimate, mailbox: MailboxBudget = MAILBOX, expires_at: datetime | None = None) -> str | None:
    return estimate_line(Outlook(mailbox, 100, estimate), expires_at=expires_at)


def test_a_time_says_its_zone_its_day_if_it_is_another_and_how_far_off_it_is():
    assert about(SOON, NOW) == "about 23:35 UTC (in 25 min)"
    assert about(TOMORROW, NOW) == "about 2026-11-23 08:00 UTC (in 8 h 50 min)"
    assert about(NOW + timedelta(days=3), NOW) == "about 2026-11-25 23:10 UTC (in 3 d)"
    assert about(NOW + timedelta(seconds=40), NOW) == "within a minute"
    assert length(timedelta(minutes=89)) == "89 min"
    assert length(timedelta(minutes=90)) == "1 h 30 min"


def test_when_and_why_stand_in_one_line():
    assert line(Estimate(SOON, Limit.RATE)) == (
        "about 23:35 UTC (in 25 min); at 30 messages a minute, its mailbox's limit"
    )
    assert line(Estimate(SOON, Limit.RATE), SLOWED) == (
        "about 23:35 UTC (in 25 min); at the 12 messages a minute that its server was seen to take"
    )
    assert "10,000 recipients in 24 hours, 2,000 of them for urgent jobs" in (line(Estimate(TOMORROW, Limit.DAY)) or "")
    assert "at the speed of the last minute, 29 messages a minute" in (
        line(Estimate(SOON, Limit.CONNECTIONS_OR_SPEED)) or ""
    )
    resting = replace(MAILBOX, parked_until=SOON, parked_reason="432 4.3.2 slow down")
    assert "rests until 2026-11-22T23:35:00Z: 432 4.3.2 slow down" in (
        line(Estimate(SOON, Limit.PARKED), resting) or ""
    )


def test_an_end_after_the_expiry_says_so():
    late = line(Estimate(TOMORROW, Limit.DAY), expires_at=SOON)
    assert late is not None
    assert late.endswith("; that is after it expires (2026-11-22T23:35:00Z)")
    assert "expires" not in (line(Estimate(SOON, Limit.DAY), expires_at=TOMORROW) or "")


@pytest.mark.parametrize(
    ("estimate", "told"),
    [
        (Estimate(None, Limit.UNKNOWN_SPEED), "not known yet: no rate is set"),
        (Estimate(None, Limit.PAUSED, takes=timedelta(minutes=25)), "not while it is paused; then about 25 min"),
        (Estimate(None, Limit.HALTED, takes=timedelta(seconds=9)), "is halted (`tocsin resume`); then less than a min"),
        (Estimate(None, Limit.NO_WORKER), "start `tocsin up` or `tocsin worker`; how long it takes then is not known"),
        (
            Estimate(None, Limit.NOT_BEGUN, not_before=TOMORROW),
            "not before about 2026-11-23 08:00 UTC (in 8 h 50 min);",
        ),
        (Estimate(None, Limit.DAY, is_never=True), "never: one message has more recipients"),
    ],
)
def test_what_nobody_can_know_is_said_with_what_is_known(estimate: Estimate, told: str):
    assert told in (line(estimate) or "")


def test_what_is_paused_is_named_with_the_command_that_lets_it_go_on():
    paused = Outlook(MAILBOX, 100, Estimate(None, Limit.PAUSED, takes=timedelta(minutes=25)))
    assert estimate_line(paused, paused=paused_profile("parks")) == (
        "not while profile parks is paused (`tocsin profile resume parks`); then about 25 min"
    )


def test_what_is_kept_for_urgent_jobs_is_no_limit_of_an_urgent_one():
    urgent = Outlook(MAILBOX, 100, Estimate(TOMORROW, Limit.DAY), is_urgent=True)
    assert (estimate_line(urgent) or "").endswith("its mailbox may send to 10,000 recipients in 24 hours")


def test_one_message_and_one_recipient_are_singular():
    one = replace(MAILBOX, messages_per_minute=1.0, recipients_per_day=1, share_for_urgent=0)
    assert "at 1 message a minute, its" in (line(Estimate(SOON, Limit.RATE), one) or "")
    assert "may send to 1 recipient in" in (line(Estimate(SOON, Limit.DAY), one) or "")


def test_what_is_never_sent_is_after_any_expiry_and_told_of_its_mailbox():
    never = Outlook(MAILBOX, 100, Estimate(None, Limit.DAY, is_never=True))
    assert (estimate_as_json(never, expires_at=TOMORROW) or {})["is_after_expiry"] is True
    assert as_row(never, [])[6] == "never"
    assert list(notes(never, [])) == [
        "its backlog will be through never: one message has more recipients than may be sent to in 24 hours"
    ]


def test_a_day_that_is_full_is_told_once():
    kept = replace(MAILBOX, kept_for_urgent_until=TOMORROW, kept_for_urgent_reason="kept")
    assert list(notes(Outlook(kept, 0, None), [])) == ["only urgent jobs are sent until 2026-11-23T08:00:00Z: kept"]
    assert not list(notes(Outlook(replace(kept, parked_until=SOON, parked_reason="full"), 0, None), []))


def test_a_shared_message_is_cut_as_the_senders_cut_it():
    assert MAILBOX.most_in_a_message == 8_000
    assert replace(MAILBOX, recipients_per_message=30).most_in_a_message == 30
    assert replace(MAILBOX, recipients_per_day=1, share_for_urgent=1).most_in_a_message == 1
    of_tenant = replace(MAILBOX, tenant="acme", tenant_recipients_per_day=20, tenant_share_for_urgent=4)
    assert of_tenant.most_in_a_message == 16
    assert replace(MAILBOX, recipients_per_day=None, share_for_urgent=None).most_in_a_message is None


def test_the_tighter_day_is_told_with_what_is_left_of_it():
    used = replace(MAILBOX, recipients_of_the_day=7_990)
    assert used.left_of_the_day(is_urgent=False) == (Limit.DAY, 10, 10_000)
    of_tenant = replace(used, tenant="acme", tenant_recipients_per_day=20, tenant_recipients_of_the_day=20)
    assert of_tenant.left_of_the_day(is_urgent=True) == (Limit.TENANT, 0, 20)
    assert replace(MAILBOX, recipients_per_day=None).left_of_the_day(is_urgent=True) is None


def test_programs_get_the_same_in_fields():
    found = estimate_as_json(Outlook(MAILBOX, 100, Estimate(TOMORROW, Limit.DAY, ahead=40)), expires_at=SOON)
    assert found is not None
    assert (found["done_at"], found["limited_by"], found["recipients_ahead"]) == (TOMORROW, "day", 40)
    assert found["is_after_expiry"] is True
    assert estimate_as_json(Outlook(MAILBOX, 0, None)) is None
    assert estimate_as_json(None) is None


def test_a_mailbox_is_a_row_of_what_it_may_use_has_used_and_has_before_it():
    assert as_row(Outlook(MAILBOX, 100, Estimate(SOON, Limit.RATE)), []) == (
        "board@example.org at smtp.example.org", "30", "29", "0 of 10,000", 100, 0, "about 23:35 UTC (in 25 min)",
        "rate",
    )  # fmt: skip
    assert as_row(Outlook(MAILBOX, 100, Estimate(None, Limit.UNKNOWN_SPEED)), [])[6:] == ("not known", "unknown speed")
    assert as_row(Outlook(MAILBOX, 0, None), [])[4:] == (0, 0, None, None)
    assert in_force(replace(MAILBOX, messages_per_minute=None, per_minute_set=None)) == "no limit"


def test_what_waits_in_a_pause_stands_beside_the_backlog_with_what_ends_it():
    mailbox = replace(MAILBOX, profiles=["alerts", "news"])
    paused = replace(QUIET, paused_at=NOW, paused_reason="moving", paused_by="ada")
    of_a_job = replace(QUIET, name="news", paused_recipients=2, paused_jobs=1)
    profiles = sharing(mailbox, [paused, of_a_job, replace(paused, name="of another mailbox")])
    idle, busy = Outlook(mailbox, 0, None), Outlook(mailbox, 100, Estimate(NOW, Limit.RATE))
    assert as_row(idle, profiles)[4:] == (0, 9 + 2, "not known", "paused")
    assert as_row(busy, profiles)[4:] == (100, 9 + 2, "within a minute", "rate")
    assert list(notes(idle, profiles)) == [
        "9 recipients wait while profile alerts is paused (`tocsin profile resume alerts`)",
        "2 recipients wait while 1 job of profile news is paused (`tocsin job resume JOB`)",
    ]
    assert as_row(idle, [QUIET])[4:] == (0, 0, None, None)


def test_a_limit_that_was_learned_says_so_with_the_servers_words():
    assert in_force(SLOWED) == "12 (set: 30)"
    assert list(notes(Outlook(SLOWED, 0, None), [])) == [
        "slowed to 12 messages a minute since 2026-11-22T23:10:20Z: 421 4.4.2 slow down",
        "down to 2 of 3 connections since 2026-11-22T23:10:20Z: 432 4.3.2 too many",
    ]
    recovered = replace(SLOWED, messages_per_minute=30.0, connections=3)
    assert in_force(recovered) == "30"
    assert not list(notes(Outlook(recovered, 0, None), []))


def test_a_full_day_says_until_when():
    day = replace(MAILBOX, recipients_of_the_day=10_000, frees_at=TOMORROW)
    assert used_of_the_day(day) == "10,000 of 10,000: full until 2026-11-23T08:00:00Z"
    assert used_of_the_day(replace(day, recipients_of_the_day=8_100, urgent_of_the_day=100)) == (
        "8,100 of 10,000: the rest is for urgent mail until 2026-11-23T08:00:00Z"
    )
    assert used_of_the_day(replace(day, recipients_of_the_day=7_900)) == "7,900 of 10,000"


@pytest.mark.parametrize(
    ("recipients", "batch_size", "most", "messages"),
    [
        (120, None, None, 120),
        (120, 50, None, 3),
        (100, 50, None, 2),
        (120, 50, 30, 5),
        (120, 50, 500, 3),
        (0, 50, 3, 0),
    ],
)
def test_a_message_holds_a_batch_or_what_the_server_takes(
    recipients: int, batch_size: int | None, most: int | None, messages: int
):
    assert messages_of(recipients, batch_size, most) == messages
