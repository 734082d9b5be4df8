"""`tocsin job`: what became of jobs and of every recipient."""

import sys
from contextlib import aclosing
from typing import Annotated

import typer

from tocsin_console.commands.parameters import JsonFlag, ListLimit
from tocsin_console.output import Cell, examples, print_facts, print_json, print_line, print_table, say
from tocsin_console.reading.progress import job_progress, state_line, watch_job
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.contract.part import Priority
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.job_reading import (
    RECIPIENT_STATES,
    Job,
    RecipientReading,
    find_job,
    read_job,
    read_jobs,
    read_recipients,
)
from tocsin_schema.ledger.job_states import JobState
from tocsin_schema.ledger.sending_profiles import read_profile

app = typer.Typer(help="Jobs, and what became of every recipient.", no_args_is_help=True)

INTERRUPTED = 130

Name = Annotated[str, typer.Argument(metavar="JOB", help="The job's id (a UUID) or its number.")]


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
        ("NUMBER", "ID", "STATE", "PROFILE", "PRIORITY", "RECIPIENTS", "DONE", "CREATED"),
        [
            (
                job.number,
                job.id,
                job.shown.state.value,
                job.profile,
                Priority.of_rank(job.rank).value,
                job.total,
                job.settled,
                job.created_at,
            )
            for job in jobs
        ],
    )


@app.command("show", epilog=examples("tocsin job show 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10 --json"))
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show a job: its state, and how many recipients are in which."""

    async def work(session: Session) -> Job:
        return await read_job(session.connection, name)

    job = in_session(work)
    if as_json:
        print_json(job_as_json(job))
    else:
        print_facts(job_as_facts(job))


@app.command("watch", epilog=examples("tocsin job watch 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10"))
def watch(name: Name, as_json: JsonFlag = False) -> None:
    """Follow a job until it is finished or cancelled. Ctrl-C stops the watching, not the job."""

    async def work(session: Session) -> Job:
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


@app.command(
    "recipients",
    epilog=examples(
        "tocsin job recipients 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10 --state failed",
        "tocsin job recipients 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10 --json > recipients.jsonl",
    ),
)
def recipients(
    name: Name,
    state: Annotated[
        str | None, typer.Option(metavar="S", help=f"Only recipients in this state: {', '.join(RECIPIENT_STATES)}.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print what became of every recipient, one a line, however many there are."""
    if state is not None and state not in RECIPIENT_STATES:
        raise UsageError(f"There is no recipient state {state!r}.", fix=f"They are: {', '.join(RECIPIENT_STATES)}.")

    async def work(session: Session) -> None:
        number = await find_job(session.connection, name)
        await read_job(session.connection, str(number))
        if not as_json:
            print_line(("ADDRESS", "STATE", "CODE", "ENHANCED", "ATTEMPTS", "REASON OR REPLY"))
        async with aclosing(read_recipients(session.connection, number, state=state)) as found:
            async for recipient in found:
                if as_json:
                    print_json(_recipient_as_json(recipient))
                else:
                    print_line(_recipient_as_row(recipient))
        sys.stdout.flush()

    in_session(work)


def job_as_json(job: Job) -> dict[str, object]:
    """Give all that may be known of a job, for programs."""
    shown = job.shown
    return {
        "id": job.id,
        "number": job.number,
        "state": shown.state.value,
        "state_reason": shown.reason,
        "state_until": shown.until,
        "profile": job.profile,
        "template": job.template,
        "template_version": job.template_version,
        "mode": job.mode,
        "priority": Priority.of_rank(job.rank).value,
        "on_unknown": job.on_unknown,
        "source": job.source,
        "key": job.key,
        "event": job.event,
        "correlation_id": job.correlation_id,
        "total": job.total,
        "recipients": job.counts,
        "parts": {"received": job.parts_received, "last": job.last_part},
        "duplicates_dropped": job.duplicates,
        "created_at": job.created_at,
        "send_after": job.send_after,
        "expires_at": job.expires_at,
        "finished_at": job.finished_at,
    }


def job_as_facts(job: Job) -> list[tuple[str, Cell]]:
    """Give all that may be known of a job, for people."""
    template = (
        None if job.template_version is None else f"{job.template or '(removed)'}, version {job.template_version}"
    )
    parts = f"{job.parts_received} of {job.last_part}" if job.last_part else f"{job.parts_received}, the last not yet"
    return [
        ("Job", job.id),
        ("Number", job.number),
        ("State", state_line(job)),
        ("Profile", job.profile or "(removed)"),
        ("Template", template),
        ("Mode", job.mode),
        ("Priority", Priority.of_rank(job.rank).value),
        ("When unknown", job.on_unknown),
        ("Source", job.source),
        ("Key", job.key),
        ("Event", job.event),
        ("Correlation id", job.correlation_id),
        ("Parts received", parts),
        ("Duplicates dropped", job.duplicates),
        ("Recipients", job.total),
        *[(f"  {state}", count) for state, count in job.counts.items()],
        ("Created", job.created_at),
        ("Send after", job.send_after),
        ("Expires", job.expires_at),
        ("Finished", job.finished_at),
    ]


def _recipient_as_json(recipient: RecipientReading) -> dict[str, object]:
    return {
        "address": recipient.address,
        "name": recipient.name,
        "state": recipient.state,
        "code": recipient.code,
        "enhanced_code": recipient.enhanced_code,
        "reply": recipient.reply,
        "attempts": recipient.attempts,
        "message_id": recipient.message_id,
        "reason": recipient.reason,
        "due_at": recipient.due_at,
    }


def _recipient_as_row(recipient: RecipientReading) -> tuple[Cell, ...]:
    return (
        recipient.address,
        recipient.state,
        recipient.code,
        recipient.enhanced_code,
        recipient.attempts,
        recipient.reason or recipient.reply,
    )
