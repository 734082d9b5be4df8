"""`tocsin job`: what became of jobs and of every recipient; its controls are in `job_controls`."""

import sys
from contextlib import aclosing
from typing import Annotated

import typer

from tocsin_console.commands import job_controls
from tocsin_console.commands.job_controls import JobName
from tocsin_console.commands.job_showing import (
    events_as_facts,
    events_as_json,
    job_as_facts,
    job_as_json,
    outlook_as_facts,
    outlook_as_json,
    recipient_as_json,
    recipient_headings,
    recipient_rows,
)
from tocsin_console.commands.parameters import JsonFlag, ListLimit
from tocsin_console.output import examples, print_facts, print_json, print_line, print_table, say
from tocsin_console.reading.progress import job_progress, watch_job
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.contract.part import Priority
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.estimates import Outlook, read_job_outlook
from tocsin_schema.ledger.job_events import RecordedEvent, read_events
from tocsin_schema.ledger.job_reading import RECIPIENT_STATES, Job, find_job, read_job, read_jobs, read_recipients
from tocsin_schema.ledger.job_states import JobState, standing_hold
from tocsin_schema.ledger.sending_profiles import read_profile

app = typer.Typer(help="Jobs, and what became of every recipient.", no_args_is_help=True)

NOT_EVERYONE, INTERRUPTED = 3, 130

EVENTS_SHOWN = 20
"""Of so many events of a job, the newest, is told."""


@app.command("list", epilog=examples("tocsin job list", "tocsin job list --state waiting --profile news --json"))
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    profile: Annotated[str | None, typer.Option(metavar="P", help="Only jobs of this sending profile.")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only jobs that may still send something.")] = False,
    limit: ListLimit = 50,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""

    async def work(session: Session) -> list[Job]:
        if profile is not None:
            await read_profile(session.connection, profile)
        return await read_jobs(session.connection, profile=profile, state=state, only_open=only_open, limit=limit)

    jobs = in_session(work)
    if as_json:
        for job in jobs:
            print_json(job_as_json(job))
        return
    print_table(
        ("NUMBER", "ID", "STATE", "PROFILE", "PRIORITY", "RECIPIENTS", "SENT", "CREATED"),
        [
            (
                job.number,
                job.id,
                job.shown.state.value,
                job.profile,
                Priority.of_rank(job.rank).value,
                job.total,
                job.sent,
                job.created_at,
            )
            for job in jobs
        ],
    )


@app.command("show", epilog=examples("tocsin job show 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10 --json"))
def show(name: JobName, as_json: JsonFlag = False) -> None:
    """Show a job: its state, how many recipients are in which, when it will be through, and what was done to it."""

    async def work(session: Session) -> tuple[Job, Outlook | None, list[RecordedEvent]]:
        job = await read_job(session.connection, name)
        events = await read_events(session.connection, job.number, limit=EVENTS_SHOWN)
        if not job.shown.state.is_open:
            return job, None, events
        return job, await read_job_outlook(session.connection, job.number, hold=standing_hold(job)), events

    job, outlook, events = in_session(work)
    if as_json:
        print_json({**job_as_json(job), "estimate": outlook_as_json(job, outlook), "events": events_as_json(events)})
    else:
        print_facts([*job_as_facts(job), *outlook_as_facts(job, outlook), *events_as_facts(events)])


@app.command("watch", epilog=examples("tocsin job watch 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10"))
def watch(name: JobName, as_json: JsonFlag = False) -> None:
    """Follow a job until it is finished or cancelled. Ctrl-C stops the watching, not the job.

    With --json two lines: the job as it is now, with its estimate, and as it ended.
    Exit code 3: it has ended, and not everyone was sent to.
    """

    async def work(session: Session) -> Job:
        if as_json:
            await _print_as_it_is(session, name)
        with job_progress() as report:
            return await watch_job(session.connection, name, report=report)

    try:
        job = in_session(work)
    except KeyboardInterrupt:
        say(f"Stopped watching. The job goes on; see `tocsin job show {name}`.")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(job_as_json(job))
    else:
        print_facts(job_as_facts(job))
    if not job.everyone_was_sent_to:
        say(f"Not everyone was sent to. See `tocsin job recipients {job.id}`.")
        raise typer.Exit(NOT_EVERYONE)


async def _print_as_it_is(session: Session, name: str) -> None:
    """Print an open job and its estimate at once: its end may be hours away."""
    job = await read_job(session.connection, name)
    if job.shown.state.is_open:
        outlook = await read_job_outlook(session.connection, job.number, hold=standing_hold(job))
        print_json({**job_as_json(job), "estimate": outlook_as_json(job, outlook)})
        sys.stdout.flush()
    await session.connection.commit()


@app.command(
    "recipients",
    epilog=examples(
        "tocsin job recipients 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10 --state failed",
        "tocsin job recipients 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10 --json > recipients.jsonl",
    ),
)
def recipients(
    name: JobName,
    state: Annotated[
        str | None, typer.Option(metavar="S", help=f"Only recipients in this state: {', '.join(RECIPIENT_STATES)}.")
    ] = None,
    tries: Annotated[bool, typer.Option("--tries", help="Tell every try of everybody.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print what became of every recipient, one a line, however many there are.

    Who was tried more than once and not sent to has each try told below: when it was, what became of it, and what the
    server said. With --json everybody has.
    """
    if state is not None and state not in RECIPIENT_STATES:
        raise UsageError(f"There is no recipient state {state!r}.", fix=f"They are: {', '.join(RECIPIENT_STATES)}.")

    async def work(session: Session) -> None:
        number = await find_job(session.connection, name)
        await read_job(session.connection, str(number))
        if not as_json:
            print_line(recipient_headings())
        async with aclosing(read_recipients(session.connection, number, state=state)) as found:
            async for recipient in found:
                if as_json:
                    print_json(recipient_as_json(recipient))
                    continue
                for row in recipient_rows(recipient, all_tries=tries):
                    print_line(row)
        sys.stdout.flush()

    in_session(work)


app.command("cancel", epilog=job_controls.CANCEL_EXAMPLES)(job_controls.cancel)
app.command("pause", epilog=job_controls.PAUSE_EXAMPLES)(job_controls.pause)
app.command("resume", epilog=job_controls.RESUME_EXAMPLES)(job_controls.resume)
app.command("retry", epilog=job_controls.RETRY_EXAMPLES)(job_controls.retry)
app.command("settle", epilog=job_controls.SETTLE_EXAMPLES)(job_controls.settle)
