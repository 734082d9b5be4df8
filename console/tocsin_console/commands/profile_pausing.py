"""`tocsin profile pause` and `resume`."""

from typing import Annotated

import typer

from tocsin_console.commands.parameters import read_reason
from tocsin_console.commands.profile_options import Name
from tocsin_console.commands.profile_showing import told_of_pause
from tocsin_console.output import examples, say
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.errors import Scope
from tocsin_schema.ledger import pausing, sending_profiles
from tocsin_schema.ledger.actors import login_of_this_process
from tocsin_schema.ledger.estimates import MailboxBudget, read_mailboxes
from tocsin_schema.ledger.mailbox_walk import Limit
from tocsin_schema.ledger.sending_profiles import SendingProfile

PAUSE_EXAMPLES = examples('tocsin profile pause news --reason "mailbox is being moved"')
RESUME_EXAMPLES = examples("tocsin profile resume news")


def pause(
    name: Name,
    reason: Annotated[str, typer.Option(metavar="R", help="Why; `tocsin status` shows it.")] = "paused by hand",
) -> None:
    """Stop sending through a profile. Its mail waits in the ledger; all other profiles go on.

    Where somebody has paused it already, nothing is changed, and who it was and why is told.
    """
    why = read_reason(reason, scope=Scope.PROFILE)

    async def work(session: Session) -> tuple[SendingProfile, bool]:
        before = await sending_profiles.lock_profile(session.connection, name)
        paused = await pausing.pause_profile(
            session.connection,
            before.id,
            why,
            cause=pausing.PauseCause.BY_HAND,
            actor=login_of_this_process(),
        )
        return before, paused

    before, paused = in_session(work)
    say(pause_line(name, was=_told_before(before), changed=paused))


def resume(name: Name) -> None:
    """Let a paused profile, and its resting mailbox, go on."""

    async def work(session: Session) -> tuple[bool, str | None]:
        profile = await sending_profiles.read_profile(session.connection, name)
        [mailbox] = await read_mailboxes(session.connection, profile_id=profile.id)
        await pausing.resume_profile(session.connection, profile.id)
        held = (profile.paused_at, profile.parked_until, profile.kept_for_urgent_until)
        return any(one is not None for one in held), full_day_line(profile, mailbox)

    goes_on, full_day = in_session(work)
    if goes_on:
        say(f"Sending profile {name!r} goes on within seconds, if a worker runs.")
        if full_day is not None:
            say(full_day)
    else:
        say(f"Sending profile {name!r} is not paused; `tocsin status` says what holds its mail up, if anything does.")


def pause_line(name: str, *, was: str | None, changed: bool) -> str:
    """Say that a profile is paused; `was` tells of the pause that it was in before."""
    if was is None:
        return f"Sending profile {name!r} is paused."
    if changed:
        return f"Sending profile {name!r} is paused until somebody resumes it. It was paused before: {was}."
    return f"Sending profile {name!r} was paused already: {was}. Nothing was changed."


def _told_before(profile: SendingProfile) -> str | None:
    if profile.paused_reason is None:
        return None
    return told_of_pause(profile.paused_reason, by=profile.paused_by, since=profile.paused_at)


def full_day_line(profile: SendingProfile, mailbox: MailboxBudget) -> str | None:
    """Say that a day leaves too little room for a message of a job that is not urgent; None where it does not."""
    day = mailbox.left_of_the_day(is_urgent=False)
    largest = min(profile.batch_size, mailbox.most_in_a_message or profile.batch_size)
    if day is None or day[1] >= largest:
        return None
    limit, left, most = day
    whose, flag = (
        (f"the {most:,} external recipients of 24 hours of tenant {mailbox.tenant}", "--tenant-per-day")
        if limit is Limit.TENANT
        else (f"its {most:,} recipients of 24 hours", "--per-day")
    )
    return (
        f"But of {whose} only {max(0, left):,} are left for jobs that are not urgent: wait, or raise {flag}"
        f" (`tocsin profile set {profile.name} {flag} N`)."
    )
