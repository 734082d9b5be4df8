"""`tocsin job cancel|pause|resume|retry|settle`: what a person may do to a job, written down with who and when."""

import sys
from typing import Annotated

import typer

from tocsin_console.commands.job_showing import job_as_json
from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import counted, examples, moment, print_json, say
from tocsin_console.reading.session import Session, in_session, open_ledger
from tocsin_console.sending.request import read_time
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import job_controls, recipient_controls
from tocsin_schema.ledger.actors import login_of_this_process
from tocsin_schema.ledger.job_controls import LONGEST_REASON, Controlled
from tocsin_schema.ledger.job_reading import Job, find_job, read_job
from tocsin_schema.ledger.job_states import JobState
from tocsin_schema.ledger.recipient_control_rules import Settlement
from tocsin_schema.ledger.recipient_controls import Retried, Settled

FAILED, INTERRUPTED = 1, 130

_JOB = "0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10"
CANCEL_EXAMPLES = examples(f'tocsin job cancel {_JOB} --reason "wrong building"', f"tocsin job cancel {_JOB} --yes")
PAUSE_EXAMPLES = examples(f'tocsin job pause {_JOB} --reason "the help desk is not staffed yet"')
RESUME_EXAMPLES = examples(f"tocsin job resume {_JOB}")
RETRY_EXAMPLES = examples(
    f"tocsin job retry {_JOB}",
    f"tocsin job retry {_JOB} --address ada@example.org --address ben@example.org",
    f"tocsin job retry {_JOB} --expires-at 2099-12-31T18:00:00Z",
)
SETTLE_EXAMPLES = examples(
    f"tocsin job settle {_JOB} --as pending", f"tocsin job settle {_JOB} --as sent --address ada@example.org --yes"
)

JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job's id (a UUID) or its number.")]
Reason = Annotated[str | None, typer.Option(metavar="R", help="Why; `tocsin job show` tells it.")]
Addresses = Annotated[
    list[str] | None, typer.Option("--address", metavar="A", help="Only this recipient; give it again for more.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def cancel(name: JobName, reason: Reason = None, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Send nothing more of a job, for good.

    What is under way finishes, and nothing new begins. Cancelled once, a job cannot be taken up again; to stop it for
    a while, pause it.
    """
    why = read_reason(reason)

    async def look(session: Session) -> Job:
        return await read_job(session.connection, name)

    async def work(session: Session) -> tuple[Controlled, Job]:
        number = await find_job(session.connection, name)
        done = await job_controls.cancel_job(session.connection, number, actor=login_of_this_process(), reason=why)
        return done, await read_job(session.connection, str(number))

    with open_ledger() as ledger:
        if _asks(yes=yes) and (job := ledger.visit(look)).shown.state.is_open:
            left = f"{counted(job.unsettled, 'recipient')} will not be sent to"
            _confirm(f"Cancel job {job.id} for good? {job.sent:,} of {job.total:,} are sent; {left}.")
        done, job = ledger.visit(work)
    if as_json:
        print_json({**job_as_json(job), "changed": done.changed})
    if not done.changed:
        say(f"Job {job.id} was cancelled already ({job.state_reason}).")
        return
    counts = done.counts
    under_way = counted(counts.in_flight, "recipient is", "recipients are")
    rest = f" {under_way} under way and may still be sent to." if counts.in_flight else ""
    say(
        f"Job {job.id} is cancelled. {counted(counts.sent, 'recipient')} had been sent to; "
        f"{counts.unsettled:,} will not be.{rest}"
    )


def pause(name: JobName, reason: Reason = None, as_json: JsonFlag = False) -> None:
    """Begin nothing new of a job until it is resumed; what is under way finishes.

    Parts of it still come in and wait. Its time goes on: what is not sent when the job expires will not be.
    """
    why = read_reason(reason)

    async def work(session: Session) -> tuple[Controlled, Job]:
        number = await find_job(session.connection, name)
        done = await job_controls.pause_job(session.connection, number, actor=login_of_this_process(), reason=why)
        return done, await read_job(session.connection, str(number))

    done, job = in_session(work)
    if as_json:
        print_json({**job_as_json(job), "changed": done.changed})
    was = "is paused" if done.changed else f"was paused already ({job.state_reason})"
    say(f"Job {job.id} {was}. Its time goes on: it expires at {moment(job.expires_at)}.")


def resume(name: JobName, as_json: JsonFlag = False) -> None:
    """Let a paused job go on where it was."""

    async def work(session: Session) -> tuple[Controlled, Job]:
        number = await find_job(session.connection, name)
        done = await job_controls.resume_job(session.connection, number, actor=login_of_this_process())
        return done, await read_job(session.connection, str(number))

    done, job = in_session(work)
    if as_json:
        print_json({**job_as_json(job), "changed": done.changed})
    if not done.changed:
        say(f"Job {job.id} is not paused; `tocsin job show {job.id}` says what holds it up, if anything does.")
        return
    say(f"Job {job.id} goes on within seconds, if a worker runs. It expires at {moment(job.expires_at)}.")


def retry(
    name: JobName,
    address: Addresses = None,
    expires_at: Annotated[
        str | None,
        typer.Option(metavar="T", help="A new end of its time; then who had expired is tried again too."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Try again whoever failed, at once; a finished job is opened again for that.

    Not those whose address is malformed: nothing was tried of them. A job whose time is over needs a new end of its
    time, and then whoever had expired is tried again as well. A suppressed address is suppressed again. Interrupted,
    it goes on where it was when it is run again.
    """
    until = read_time(expires_at, "--expires-at")

    async def work(session: Session) -> tuple[Retried, Job]:
        number = await find_job(session.connection, name)
        await session.connection.commit()
        done = await recipient_controls.retry_failed(
            session.connection,
            number,
            actor=login_of_this_process(),
            addresses=address or (),
            expires_at=until,
        )
        return done, await read_job(session.connection, str(number))

    try:
        done, job = in_session(work)
    except KeyboardInterrupt:
        _tell_of_interruption()
        raise
    if as_json:
        print_json({**job_as_json(job), "retried": {"failed": done.failed, "expired": done.expired}})
    say(_told_of_retry(done, job))


def settle(
    name: JobName,
    settlement: Annotated[Settlement, typer.Option("--as", help="What became of them: sent, failed; or send again.")],
    address: Addresses = None,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Settle recipients whose fate is unknown: the message was written, and no reply came.

    As sent or failed that is final, until a retry. As pending they are sent to again at once, and may get the message
    twice. See them with `tocsin job recipients JOB --state unknown`.
    """

    async def look(session: Session) -> Job:
        return await read_job(session.connection, name)

    async def work(session: Session) -> tuple[Settled, Job]:
        number = await find_job(session.connection, name)
        await session.connection.commit()
        done = await recipient_controls.settle_unknown(
            session.connection, number, settlement, actor=login_of_this_process(), addresses=address or ()
        )
        return done, await read_job(session.connection, str(number))

    with open_ledger() as ledger:
        if _asks(yes=yes) and (job := ledger.visit(look)).unknown:
            whom = counted(len(address) if address else job.unknown, "recipient")
            _confirm(f"Settle {whom} of job {job.id}, whose fate is unknown, as {settlement.value}?")
        try:
            done, job = ledger.visit(work)
        except KeyboardInterrupt:
            _tell_of_interruption()
            raise
    if as_json:
        print_json({**job_as_json(job), "settled": done.recipients})
    if done.recipients:
        whom = counted(done.recipients, "recipient")
        say(f"{whom} of job {job.id} settled as {settlement.value}.{_told_if_paused(job)}")
    else:
        say(f"Job {job.id} has no recipient whose fate is unknown: nothing to do.")


def read_reason(text: str | None) -> str | None:
    """Give a reason on one line; None where there is none. Raises UsageError."""
    if text is None:
        return None
    reason = " ".join(text.split())
    if not reason:
        raise UsageError("--reason is empty.", fix="Say why, or leave it out.", scope=Scope.JOB)
    if len(reason) > LONGEST_REASON:
        raise UsageError(
            f"--reason is longer than {LONGEST_REASON} characters.", fix="Say it shorter.", scope=Scope.JOB
        )
    return reason


def _asks(*, yes: bool) -> bool:
    return not yes and sys.stdin.isatty() and sys.stderr.isatty()


def _confirm(question: str) -> None:
    if not typer.confirm(question, err=True):
        say("Nothing was changed.")
        raise typer.Exit(FAILED)


def _told_of_retry(done: Retried, job: Job) -> str:
    if not done.failed and not done.expired:
        malformed = f" The address of {counted(job.failed, 'recipient')} is malformed." if job.failed else ""
        return f"Nobody of job {job.id} failed in a try: nothing to do.{malformed}"
    expired = f" and {done.expired:,} who had expired" if done.expired else ""
    whom = f"{counted(done.failed, 'failed recipient')}{expired}"
    return f"Job {job.id} tries {whom} again. It expires at {moment(job.expires_at)}.{_told_if_paused(job)}"


def _told_if_paused(job: Job) -> str:
    paused = job.shown.state is JobState.PAUSED
    return f" The job is paused: `tocsin job resume {job.id}` lets it go on." if paused else ""


def _tell_of_interruption() -> None:
    say("Interrupted: what was done stays. Run it again to go on.")
