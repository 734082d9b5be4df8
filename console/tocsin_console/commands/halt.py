"""`tocsin pause` and `tocsin resume`: halt all sending of the whole installation, and let it go on."""

import sys
from typing import Annotated, assert_never

import typer

from tocsin_console.commands.parameters import read_reason
from tocsin_console.output import counted, examples, moment, say
from tocsin_console.reading.session import Session, in_session, open_ledger
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.actors import login_of_this_process
from tocsin_schema.ledger.sending_halt import (
    Halt,
    HaltCause,
    LiftedHalt,
    count_open_jobs,
    halt_by_hand,
    read_halt,
    read_last_halt,
    resume_sending,
)

app = typer.Typer()

FAILED = 1


@app.command("pause", epilog=examples("tocsin pause", 'tocsin pause --reason "wrong list was imported"'))
def pause(
    reason: Annotated[str, typer.Option(metavar="R", help="Why; `tocsin status` shows it.")] = "paused by hand",
) -> None:
    """Halt all sending of all profiles at once: the emergency brake.

    No new message is begun by any worker within a second. Jobs are taken in as before and wait in the ledger until
    `tocsin resume`. A single profile, or a single job, is paused with `tocsin profile pause` or `tocsin job pause`.
    """
    checked = read_reason(reason.rstrip("."))

    async def work(session: Session) -> Halt | None:
        actor = login_of_this_process()
        # Asked first: on a ledger that was just restored, and has met no sweeper yet, that is what halts it.
        before = await read_halt(session.connection)
        is_restored = before is not None and before.cause is HaltCause.RESTORED
        if is_restored or not await halt_by_hand(session.connection, checked, actor):
            return before or await read_halt(session.connection)
        return None

    before = in_session(work)
    if before is None:
        say("All sending is halted. Nothing goes out until `tocsin resume`.")
    else:
        say(f"All sending was halted already: {_told(before)}")


@app.command("resume", epilog=examples("tocsin resume", "tocsin resume --yes"))
def resume(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, also where the ledger was restored.")] = False,
) -> None:
    """Let sending go on that `tocsin pause`, or a restored ledger, has halted.

    A ledger that was restored from a backup does not know what was sent since: look at its open jobs first
    (`tocsin job list --open`), and cancel what went out already.
    """

    async def look(session: Session) -> tuple[Halt | None, int, LiftedHalt | None]:
        return (
            await read_halt(session.connection),
            await count_open_jobs(session.connection),
            await read_last_halt(session.connection),
        )

    async def work(session: Session) -> Halt | None:
        lifted = await resume_sending(session.connection, login_of_this_process())
        if halt is not None and lifted is not None and lifted.cause is not halt.cause:
            raise UsageError("Sending was halted for another reason meanwhile.", fix="Nothing was done. Run it again.")
        return lifted

    with open_ledger() as ledger:
        halt, open_jobs, last = ledger.visit(look)
        if halt is None:
            say("Sending is not halted; `tocsin status` says what holds mail up, if anything does.")
            if last is not None:
                say(f"{last_halt_line(last)}.")
            return
        if halt.cause is HaltCause.RESTORED:
            _confirm(halt, open_jobs, yes=yes)
        lifted = ledger.visit(work)
    if lifted is None:
        say("Somebody else let it go on meanwhile.")
        return
    say(f"Sending goes on within seconds, if a worker runs: {counted(open_jobs, 'open job')}.")
    if lifted.cause is HaltCause.RESTORED:
        say("Where the ledger is now is its home from here on.")


def last_halt_line(halt: LiftedHalt) -> str:
    """Say who had halted all sending, from when to when, why, and who let it go on."""
    times = f"from {moment(halt.halted_at)} to {moment(halt.lifted_at)}"
    match halt.cause:
        case HaltCause.BY_HAND:
            why = f"All sending was halted by {halt.actor} {times}: {halt.reason}"
        case HaltCause.RESTORED:
            why = f"All sending was halted {times}: the ledger was restored from a backup, or moved"
        case _:
            assert_never(halt.cause)
    return f"{why}; resumed by {halt.lifted_by}"


def _confirm(halt: Halt, open_jobs: int, *, yes: bool) -> None:
    """Ask before jobs go on of which nobody knows how much was sent. Raises UsageError where nobody can be asked."""
    say(halt.reason)
    say(f"It has {counted(open_jobs, 'open job')}: see `tocsin job list --open`.")
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "This ledger was restored, and nobody is here to be asked.",
            fix="Look at its open jobs, and give --yes to let them go on.",
        )
    if not typer.confirm("Let all of them go on?", err=True):
        say("Sending stays halted.")
        raise typer.Exit(FAILED)


def _told(halt: Halt) -> str:
    since = "" if halt.halted_at is None else f"since {moment(halt.halted_at)}"
    by = "" if halt.actor is None else f" by {halt.actor}"
    return f"{since}{by}: {halt.reason}" if since or by else halt.reason
