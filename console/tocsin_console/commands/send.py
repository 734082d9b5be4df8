"""`tocsin send`: a job from the command line."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from tocsin_console.commands.job import INTERRUPTED
from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import counted, examples, listed, say
from tocsin_console.reading.progress import job_progress
from tocsin_console.reading.session import ledger_url, run_to_end
from tocsin_console.sending.plan import JobPlan, plan_job
from tocsin_console.sending.preflight import LedgerFindings, ask_ledger, check_message
from tocsin_console.sending.progress import counting, passing
from tocsin_console.sending.recipient_list import RecipientList, mode_of, open_recipients
from tocsin_console.sending.request import SendRequest, check_flags, job_template, read_time
from tocsin_console.sending.showing import show_dry_run, show_ended, show_published
from tocsin_console.sending.waiting import Waited, newest_letter, wait_for_job
from tocsin_producers import JobPart, Mode, OnUnknown, Priority, Publisher
from tocsin_schema.errors import LedgerError, MessageBrokerError, TocsinError, UsageError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.dead_letters import DeadLetterLine
from tocsin_schema.settings import Settings, read_settings
from tocsin_workers.tracing import traced

app = typer.Typer()

NOT_EVERYONE, FAILED = 3, 1

ASKED_BEYOND = 1000
"""More recipients than this are confirmed on a terminal first."""


@app.command(
    "send",
    epilog=examples(
        "tocsin send --profile news --template outage --data service=E-mail --recipients staff.csv --dry-run",
        "tocsin send --profile news --template loan --recipients loans.csv --source library --key due-0421 --wait",
        "tocsin send --profile news --subject 'Test' --text-file test.txt --to ann@example.org --to bob@example.org",
    ),
)
def send(
    *,
    profile: Annotated[str, typer.Option(metavar="P", help="The sending profile.")],
    template: Annotated[str | None, typer.Option(metavar="T", help="A stored template.")] = None,
    subject: Annotated[str | None, typer.Option(metavar="S", help="Or a subject; tags allowed.")] = None,
    text_file: Annotated[
        str | None, typer.Option(metavar="F|-", help="File with the plain text; tags allowed.")
    ] = None,
    html_file: Annotated[str | None, typer.Option(metavar="F|-", help="File with the HTML; tags allowed.")] = None,
    recipients: Annotated[
        str | None,
        typer.Option(metavar="FILE.csv|-", help="CSV with a header line: address, maybe name, and data columns."),
    ] = None,
    to: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="A recipient; may be repeated.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Data that all recipients share; may be repeated.")
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(help="One message for all, or one each; default: individual if the CSV has more than addresses."),
    ] = None,
    priority: Annotated[Priority, typer.Option(help="How soon.")] = Priority.NORMAL,
    job_id: Annotated[
        UUID | None, typer.Option("--id", metavar="UUID", help="The job's id, so that it can be published again.")
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="S", help="Or who asks, with --key.")] = None,
    key: Annotated[str | None, typer.Option(metavar="K", help="And the asker's own name for this job.")] = None,
    attach: Annotated[list[Path] | None, typer.Option(metavar="F", help="A file to attach; may be repeated.")] = None,
    send_after: Annotated[str | None, typer.Option(metavar="TIME", help="Not before, as 2026-11-21T08:00:00Z.")] = None,
    expires_at: Annotated[str | None, typer.Option(metavar="TIME", help="Not after, as 2026-11-22T08:00:00Z.")] = None,
    on_unknown: Annotated[
        OnUnknown, typer.Option(help="When a message was written and no reply came.")
    ] = OnUnknown.RESEND,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and show it; publish nothing.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the job is finished; exit 3 if not everyone was sent to.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Wait no longer than this; exit 1 then.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, however many recipients there are.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send a message to many: publish a job, whole, once everything about it is checked.

    Running the same command again with the same --id, or --source and --key, sends nobody a second message.
    """
    request = SendRequest(
        profile=profile,
        template=template,
        subject=subject,
        text_file=text_file,
        html_file=html_file,
        recipients=recipients,
        to=tuple(to or ()),
        data=tuple(data or ()),
        mode=mode,
        priority=priority,
        id=job_id,
        source=source,
        key=key,
        attach=tuple(attach or ()),
        send_after=read_time(send_after, "--send-after"),
        expires_at=read_time(expires_at, "--expires-at"),
        on_unknown=on_unknown,
        dry_run=dry_run,
        wait=wait,
        timeout=timeout,
    )
    check_flags(request, datetime.now(UTC))
    settings = read_settings()
    with open_recipients(request) as people:
        order = _planned(request, people)
        with _reachable_ledger(settings) as url:
            findings = _asked(settings, url, order)
            message = check_message(order.plan, findings, people.columns, for_preview=dry_run)
            _warn_of_the_expiry(findings)
            if dry_run:
                show_dry_run(order.plan, findings, message, as_json=as_json)
                return
            _confirm(order.plan, yes=yes)
            letter = _letter_before(url, order.plan) if wait else None
            _publish(settings, url, order)
            _tell_who_sends(settings, findings)
            if not wait:
                show_published(order.plan, findings, as_json=as_json)
                return
            waited = _waited(_patience(settings, findings, timeout), url, order.plan, letter)
            show_ended(waited, order.plan, as_json=as_json)
            _end_with_what_became_of_it(waited, order.plan)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be published, and to whom."""

    request: SendRequest
    people: RecipientList
    job: JobPart
    plan: JobPlan


def _planned(request: SendRequest, people: RecipientList) -> _Order:
    """Read the list once, to the end: an error in its last line shall not leave half a job behind."""
    mode = mode_of(request.mode, people)
    job = job_template(request, mode)
    with counting("Checking") as report:
        plan = plan_job(job, passing(people.read(mode), report))
    if mode is Mode.SHARED and people.data_columns:
        say(f"In shared mode all get the same message; not used: {listed(people.data_columns)}.")
    return _Order(request, people, job, replace(plan, duplicates=plan.duplicates + people.duplicates))


@contextmanager
def _reachable_ledger(settings: Settings) -> Generator[str | None]:
    """Give the ledger's URL; None on a machine that only publishes to RabbitMQ and has no ledger of its own."""
    if settings.broker_url is not None and settings.is_embedded:
        # Imported late: the embedded Postgres is an extra.
        from tocsin_console.embedded.postgres import EmbeddedPostgres  # noqa: PLC0415  # see above

        if not EmbeddedPostgres(settings.data_dir).home.exists():
            yield None
            return
    with ledger_url(settings, needs_key=False) as url:
        yield url


def _asked(settings: Settings, url: str | None, order: _Order) -> LedgerFindings | None:
    """Ask the ledger about the job; where it is away, the job can go to RabbitMQ all the same."""

    async def ask(url: str) -> LedgerFindings:
        async with connect(url) as connection:
            return await ask_ledger(connection, order.plan)

    if url is None:
        if order.request.wait:
            raise UsageError("--wait looks into the ledger.", fix="Set TOCSIN_DATABASE_URL, or leave --wait out.")
        say("There is no ledger here, so the sending profile and the template are not checked.")
        return None
    try:
        return run_to_end(ask(url))
    except LedgerError as error:
        if settings.broker_url is None or order.request.wait:
            raise
        say(f"{error.problem} So the sending profile and the template are not checked.")
        return None


def _warn_of_the_expiry(findings: LedgerFindings | None) -> None:
    if findings is not None and findings.forecast is not None and findings.forecast.warning is not None:
        say(findings.forecast.warning)


def _confirm(plan: JobPlan, *, yes: bool) -> None:
    if yes or plan.recipients <= ASKED_BEYOND or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    question = f"Send to {counted(plan.recipients, 'recipient')}, as {plan.first.part.mode} mail?"
    if not typer.confirm(question, err=True):
        say("Nothing was published.")
        raise typer.Exit(FAILED)


def _letter_before(url: str | None, plan: JobPlan) -> DeadLetterLine | None:
    async def look(url: str) -> DeadLetterLine | None:
        async with connect(url) as connection:
            return await newest_letter(connection, plan.id)

    assert url is not None
    return run_to_end(look(url))


def _publish(settings: Settings, url: str | None, order: _Order) -> None:
    """Publish all of it. What fails in the middle says how to go on without sending anybody a second message."""
    job_id, people = order.plan.id, order.people
    again = "Run the same command again" + ("" if order.request.has_own_identity else f" with --id {job_id}")
    with (
        traced(settings, service="tocsin"),
        Publisher.from_settings(settings, url) as publisher,
        counting("Publishing", order.plan.recipients) as report,
    ):
        try:
            publisher.publish(order.job, recipients=passing(people.read(order.job.mode), report))
        except MessageBrokerError as error:
            raise MessageBrokerError(
                f"{error} Job {job_id} may have been kept in part.", fix=f"{again}: nobody is sent to twice by it."
            ) from error
        except KeyboardInterrupt:
            say(f"Interrupted: job {job_id} may have been kept in part. {again} to complete it.")
            raise


def _tell_who_sends(settings: Settings, findings: LedgerFindings | None) -> None:
    if findings is None:
        return
    if findings.is_repeated:
        say("This job was published before, and all of it was taken in: nothing changes.")
    if not findings.has_workers:
        start = "tocsin up" if settings.is_embedded else "tocsin worker"
        say(f"The job is stored, but nothing is sending now: start `{start}`.")


def _patience(settings: Settings, findings: LedgerFindings | None, timeout: float | None) -> float | None:
    """Say for how many seconds to wait: not at all where all is on this machine and nothing works on it."""
    has_workers = findings is not None and findings.has_workers
    return 0 if settings.is_embedded and not has_workers else timeout


def _waited(patience: float | None, url: str | None, plan: JobPlan, letter_before: DeadLetterLine | None) -> Waited:
    async def work(url: str) -> Waited:
        async with connect(url) as connection:
            with job_progress() as report:
                return await wait_for_job(
                    connection, plan.id, letter_before=letter_before, report=report, timeout_seconds=patience
                )

    assert url is not None
    try:
        return run_to_end(work(url))
    except KeyboardInterrupt:
        say(f"Stopped waiting. The job goes on; see `tocsin job show {plan.id}`.")
        raise typer.Exit(INTERRUPTED) from None
    except LedgerError as error:
        raise LedgerError(f"{error.problem} The job goes on.", fix=f"See `tocsin job show {plan.id}` later.") from error


def _end_with_what_became_of_it(waited: Waited, plan: JobPlan) -> None:
    """Say what is missing, and end with the exit code for it."""
    if waited.is_over:
        if not waited.everyone_was_sent_to:
            say(f"Not everyone was sent to. See `tocsin job recipients {plan.id}`.")
            raise typer.Exit(NOT_EVERYONE)
        return
    if waited.refused is not None:
        raise TocsinError(
            f"Intake refused the job, or a part of it: {waited.refused.reason}",
            fix=f"See `tocsin dead-letter show {waited.refused.id}`.",
        )
    say(f"The job is not finished. See `tocsin job watch {plan.id}`.")
    raise typer.Exit(FAILED)
