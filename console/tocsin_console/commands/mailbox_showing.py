"""How a mailbox's budget and backlog look: as a row, as lines that say what was learned, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tocsin_console.output import counted, moment
from tocsin_console.reading.estimate_words import (
    NEVER,
    about,
    because,
    estimate_as_json,
    messages_a_minute,
    only_urgent,
    paused_profile,
    per_minute,
)
from tocsin_schema.ledger.mailbox_walk import Limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tocsin_console.output import Cell
    from tocsin_schema.ledger.estimates import MailboxBudget, Outlook
    from tocsin_schema.ledger.status import ProfileStatus


def headings() -> tuple[str, ...]:
    """Name the columns of `as_row`."""
    return ("MAILBOX", "A MINUTE", "LAST MINUTE", "LAST 24 HOURS", "BACKLOG", "PAUSED", "THROUGH", "LIMIT")


def sharing(mailbox: MailboxBudget, profiles: Sequence[ProfileStatus]) -> list[ProfileStatus]:
    """Pick the profiles that share a mailbox."""
    return [profile for profile in profiles if profile.name in mailbox.profiles]


def as_row(outlook: Outlook, profiles: Sequence[ProfileStatus]) -> tuple[Cell, ...]:
    """Give a mailbox as a row: what it may use, what it has used, what is left and when that will be through.

    What waits in a pause of its `profiles`, or of a job of theirs, is not in the backlog: nobody knows when it goes on.
    """
    mailbox, estimate = outlook.mailbox, outlook.estimate
    paused = _in_a_pause(profiles)
    limit = None if estimate is None else estimate.limited_by
    if limit is None and paused:
        limit = Limit.PAUSED
    through = None if limit is None else "not known"
    if estimate is not None and estimate.is_never:
        through = "never"
    elif estimate is not None and estimate.done_at is not None:
        through = about(estimate.done_at, mailbox.read_at)
    return (
        name(mailbox),
        in_force(mailbox),
        f"{mailbox.messages_last_minute:,}",
        used_of_the_day(mailbox),
        outlook.backlog,
        paused,
        through,
        None if limit is None else limit.value.replace("_", " "),
    )


def name(mailbox: MailboxBudget) -> str:
    """Name a mailbox: whom it logs in as, and where."""
    return f"{mailbox.login} at {mailbox.host}"


def in_force(mailbox: MailboxBudget) -> str:
    """Say how many messages a minute are in force, and how many are set where that is more."""
    if mailbox.messages_per_minute is None:
        return "no limit"
    if mailbox.per_minute_lowered_at is None or mailbox.messages_per_minute == mailbox.per_minute_set:
        return per_minute(mailbox.messages_per_minute)
    most = "no limit" if mailbox.per_minute_set is None else f"{mailbox.per_minute_set:,}"
    return f"{per_minute(mailbox.messages_per_minute)} (set: {most})"


def used_of_the_day(mailbox: MailboxBudget) -> str:
    """Say how many of the day's recipients are used, and where that is all, when there is room again."""
    if mailbox.recipients_per_day is None:
        return "no limit"
    used = f"{mailbox.recipients_of_the_day:,} of {mailbox.recipients_per_day:,}"
    if mailbox.frees_at is None:
        return used
    frees = moment(mailbox.frees_at)
    if mailbox.recipients_of_the_day >= mailbox.recipients_per_day:
        return f"{used}: full until {frees}"
    kept = max(0, (mailbox.share_for_urgent or 0) - mailbox.urgent_of_the_day)
    if mailbox.recipients_of_the_day + kept >= mailbox.recipients_per_day:
        return f"{used}: the rest is for urgent mail until {frees}"
    return used


def notes(outlook: Outlook, profiles: Sequence[ProfileStatus]) -> Iterator[str]:
    """Give what there is no room for in the row: limits that were learned, the tenant's, what holds it up."""
    mailbox, estimate = outlook.mailbox, outlook.estimate
    yield from (_paused_note(profile) for profile in profiles if profile.recipients_in_a_pause)
    if mailbox.per_minute_lowered_at is not None and mailbox.messages_per_minute != mailbox.per_minute_set:
        yield (
            f"slowed to {messages_a_minute(mailbox.messages_per_minute or 0)} since"
            f" {moment(mailbox.per_minute_lowered_at)}{_said(mailbox.per_minute_reason)}"
        )
    if mailbox.connections_lowered_at is not None and mailbox.connections != mailbox.connections_set:
        yield (
            f"down to {mailbox.connections} of {mailbox.connections_set or 'any number of'} connections since"
            f" {moment(mailbox.connections_lowered_at)}{_said(mailbox.connections_reason)}"
        )
    if mailbox.recipients_per_message is not None:
        yield f"its server takes {counted(mailbox.recipients_per_message, 'recipient')} a message"
    if mailbox.tenant_recipients_per_day is not None:
        used = f"{mailbox.tenant_recipients_of_the_day:,} of {mailbox.tenant_recipients_per_day:,}"
        yield f"its tenant {mailbox.tenant} has used {used} external recipients in 24 hours"
    if mailbox.kept_for_urgent_until is not None and mailbox.parked_until is None:
        yield only_urgent(mailbox)
    if estimate is not None and estimate.is_never:
        yield f"its backlog will be through {NEVER}"
    elif estimate is not None and estimate.done_at is None and estimate.limited_by is not Limit.PARKED:
        # That it rests, and why, is told of its profiles.
        yield because(estimate.limited_by, mailbox)


def as_json_object(outlook: Outlook, profiles: Sequence[ProfileStatus]) -> dict[str, object]:
    """Give a mailbox's budget, backlog, what waits in a pause, and estimate, for programs."""
    rates = {
        name: None if rate is None else round(rate, 2)
        for name, rate in (
            ("messages_per_minute", outlook.mailbox.messages_per_minute),
            ("seen_per_minute", outlook.mailbox.seen_per_minute),
        )
    }
    return {
        **asdict(outlook.mailbox),
        **rates,
        "backlog": outlook.backlog,
        "paused": _in_a_pause(profiles),
        "estimate": estimate_as_json(outlook),
    }


def _in_a_pause(profiles: Sequence[ProfileStatus]) -> int:
    return sum(profile.recipients_in_a_pause for profile in profiles)


def _paused_note(profile: ProfileStatus) -> str:
    wait = counted(profile.recipients_in_a_pause, "recipient waits", "recipients wait")
    if profile.paused_reason is not None:
        return f"{wait} while {paused_profile(profile.name)}"
    jobs = counted(profile.paused_jobs, "job")
    are = "is" if profile.paused_jobs == 1 else "are"
    return f"{wait} while {jobs} of profile {profile.name} {are} paused (`tocsin job resume JOB`)"


def _said(reason: str | None) -> str:
    return "" if reason is None else f": {reason}"
