"""An estimate, and what a mailbox may use, in words. Nothing is more exact than it is known."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, assert_never

from tocsin_console.output import counted, moment
from tocsin_schema.ledger.mailbox_walk import Limit

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.estimates import MailboxBudget, Outlook
    from tocsin_schema.ledger.estimating import Estimate

NEVER = "never: one message has more recipients than may be sent to in 24 hours"

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def paused_profile(name: str) -> str:
    """Say that a sending profile is paused, and how it goes on."""
    return f"profile {name} is paused (`tocsin profile resume {name}`)"


def estimate_line(outlook: Outlook, *, expires_at: datetime | None = None, paused: str = "it is paused") -> str | None:
    """Say when the work will be through and what holds it most; None where nothing is left to do.

    `paused` says what is paused, for work that waits for it.
    """
    estimate, mailbox = outlook.estimate, outlook.mailbox
    if estimate is None:
        return None
    late = ""
    if expires_at is not None and estimate.is_after(expires_at):
        late = f"; that is after it expires ({moment(expires_at)})"
    if estimate.done_at is not None:
        why = because(estimate.limited_by, mailbox, is_urgent=outlook.is_urgent)
        return f"{about(estimate.done_at, mailbox.read_at)}; {why}{late}"
    if estimate.not_before is not None:
        return f"not before {about(estimate.not_before, mailbox.read_at)}; how fast it then goes is not known yet{late}"
    return _unknown_line(estimate, mailbox, paused)


def about(at: datetime, now: datetime) -> str:
    """Write a time that is estimated: `about 14:35 UTC (in 25 min)`."""
    away = at - now
    if away <= _MINUTE:
        return "within a minute"
    return f"about {clock(at, now)} (in {length(away)})"


def clock(at: datetime, now: datetime) -> str:
    """Write a time to the minute, with its day where that is not today's: `14:35 UTC`."""
    there = at.astimezone(UTC)
    day = "" if there.date() == now.astimezone(UTC).date() else f"{there:%Y-%m-%d} "
    return f"{day}{there:%H:%M} UTC"


def length(time: timedelta) -> str:
    """Write how long something takes, rounded up: `25 min`, `3 h 20 min`, `2 d 3 h`.

    >>> length(timedelta(minutes=24, seconds=10)), length(timedelta(hours=3, minutes=11)), length(timedelta(hours=51))
    ('25 min', '3 h 20 min', '2 d 3 h')
    """
    minutes = -(-time // _MINUTE)
    if minutes < 90:  # noqa: PLR2004  # "85 min" reads better than "1 h 30 min"
        return f"{minutes} min"
    if time <= 2 * _DAY:
        hours, minutes = divmod(-(-minutes // 10) * 10, 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(-(-time // _HOUR), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def because(  # noqa: C901, PLR0911  # one answer a limit
    limit: Limit, mailbox: MailboxBudget, *, is_urgent: bool = False
) -> str:
    """Say what costs most of the time, with its figure. What is kept for urgent jobs is no limit for one."""
    match limit:
        case Limit.RATE:
            rate = messages_a_minute(mailbox.messages_per_minute or 0)
            is_learned = mailbox.per_minute_lowered_at is not None
            return (
                f"at the {rate} that its server was seen to take" if is_learned else f"at {rate}, its mailbox's limit"
            )
        case Limit.DAY:
            share = 0 if is_urgent else mailbox.share_for_urgent or 0
            kept = f", {share:,} of them for urgent jobs" if share else ""
            return f"its mailbox may send to {counted(mailbox.recipients_per_day or 0, 'recipient')} in 24 hours{kept}"
        case Limit.TENANT:
            most = counted(mailbox.tenant_recipients_per_day or 0, "external recipient")
            return f"its tenant {mailbox.tenant} may send to {most} in 24 hours"
        case Limit.CONNECTIONS_OR_SPEED:
            return f"at the speed of the last minute, {messages_a_minute(mailbox.seen_per_minute or 0)}"
        case Limit.UNKNOWN_SPEED:
            return "no rate is set, and nothing was sent in the last minute that would show a speed"
        case Limit.PARKED:
            return _resting(mailbox)
        case Limit.RETRIES:
            return "whom the server put off is tried again then"
        case Limit.NOT_BEGUN:
            return "it does not begin before"
        case Limit.PAUSED:
            return "it is paused"
        case Limit.HALTED:
            return "all sending is halted"
        case Limit.NO_WORKER:
            return "no worker that sends is running"
        case _:
            assert_never(limit)


def _resting(mailbox: MailboxBudget) -> str:
    if mailbox.parked_until is None and mailbox.kept_for_urgent_until is not None:
        return only_urgent(mailbox)
    until = "" if mailbox.parked_until is None else f" until {moment(mailbox.parked_until)}"
    return f"the mailbox rests{until}: {mailbox.parked_reason or 'its provider asked us to slow down'}"


def only_urgent(mailbox: MailboxBudget) -> str:
    """Say that only urgent jobs may use what is left of the day, until when and why."""
    until = "" if mailbox.kept_for_urgent_until is None else f" until {moment(mailbox.kept_for_urgent_until)}"
    return (
        f"only urgent jobs are sent{until}: {mailbox.kept_for_urgent_reason or 'the rest of the day is kept for them'}"
    )


def messages_a_minute(rate: float) -> str:
    """Write a rate with its unit.

    >>> messages_a_minute(1), messages_a_minute(7.46)
    ('1 message a minute', '7.5 messages a minute')
    """
    written = per_minute(rate)
    return f"{written} {'message' if written == '1' else 'messages'} a minute"


def per_minute(rate: float) -> str:
    """Write a rate: learned ones need not be whole.

    >>> per_minute(30), per_minute(7.46), per_minute(1234.5)
    ('30', '7.5', '1,234')
    """
    return f"{rate:,.0f}" if rate >= 100 or rate == int(rate) else f"{rate:.2g}"  # noqa: PLR2004  # a fraction is noise


def estimate_as_json(
    outlook: Outlook | None, *, expires_at: datetime | None = None, paused: str = "it is paused"
) -> dict[str, object] | None:
    """Give an estimate for programs; None where there is nothing to estimate."""
    estimate = None if outlook is None else outlook.estimate
    if outlook is None or estimate is None:
        return None
    return {
        "done_at": estimate.done_at,
        "limited_by": estimate.limited_by.value,
        "not_before": estimate.not_before,
        "takes_seconds": None if estimate.takes is None else round(estimate.takes.total_seconds()),
        "recipients_ahead": estimate.ahead,
        "words": estimate_line(outlook, expires_at=expires_at, paused=paused),
        **({} if expires_at is None else {"is_after_expiry": estimate.is_after(expires_at)}),
    }


def _unknown_line(estimate: Estimate, mailbox: MailboxBudget, paused: str) -> str:
    if estimate.is_never:
        return NEVER
    how_long = "how long it takes then is not known yet" if estimate.takes is None else f"then {_takes(estimate.takes)}"
    match estimate.limited_by:
        case Limit.PAUSED:
            return f"not while {paused}; {how_long}"
        case Limit.HALTED:
            return f"not while all sending is halted (`tocsin resume`); {how_long}"
        case Limit.NO_WORKER:
            return f"not without a worker, start `tocsin up` or `tocsin worker`; {how_long}"
        case Limit.NOT_BEGUN:
            return f"not before its part 1 has come; {how_long}"
        case _:
            return f"not known yet: {because(estimate.limited_by, mailbox)}"


def _takes(time: timedelta) -> str:
    return "less than a minute" if time <= _MINUTE else f"about {length(time)}"
