"""`tocsin job cancel|pause|resume|retry|settle`: what a person may do to a job, written down with who and when."""

from collections.abc import Mapping
from typing import Annotated, assert_never

import typer

from tocsin_console.commands.job_showing import job_as_json
from tocsin_console.commands.parameters import JsonFlag, read_reason
from tocsin_console.output import agrees, counted, examples, is_somebody_there, moment, print_json, say
from tocsin_console.reading.session import Session, in_session, open_ledger
from tocsin_console.sending.request import read_time
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import job_controls, recipient_controls
from tocsin_schema.ledger.actors import login_of_this_process
from tocsin_schema.ledger.job_controls import Controlled
from tocsin_schema.ledger.job_reading import Job, find_job, read_job
from tocsin_schema.ledger.job_states import Hold, JobState
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
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; needed where nobody can be asked.")]


def cancel(name: JobName, reason: Reason = None, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Send nothing more of a job, for good.

    What is under way finishes, and nothing new begins. Cancelled once, a job cannot be taken up again; to stop it for
    a while, pause it.
    """
    why = read_reason(reason, scope=Scope.JOB)

    async def look(session: Session) -> Job:
        return await read_job(session.connection, name)

    async def work(session: Session) -> tuple[Controlled, Job]:
        number = await find_job(session.connection, name)
        done = await job_controls.cancel_job(session.connection, number, actor=login_of_this_process(), reason=why)
        return done, await read_job(session.connection, str(number))

    with open_ledger() as ledger:
        if not yes and (job := ledger.visit(look)).shown.state.is_open:
            _confirm(f"Cancel job {job.id} for good? {_told_before_cancelling(job)}")
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
    why = read_reason(reason, scope=Scope.JOB)

    async def work(session: Session) -> tuple[Controlled, Job]:
        number = await find_job(session.connection, name)
        done = await job_controls.pause_job(session.connection, number, actor=login_of_this_process(), reason=why)
        return done, await read_job(session.connection, str(number))

    done, job = in_session(work)
    if as_json:
        print_json({**job_as_json(job), "changed": done.changed})
    was = "is paused" if done.changed else f"was paused already ({job.state_reason})"
    say(f"Job {job.id} {was}. Its time goes on: it expires at {moment(job.expires_at)}.")


def resume(name: JobName, reason: Reason = None, as_json: JsonFlag = False) -> None:
    """Let a paused job go on where it was, unless something else holds it up."""
    why = read_reason(reason, scope=Scope.JOB)

    async def work(session: Session) -> tuple[Controlled, Job]:
        number = await find_job(session.connection, name)
        done = await job_controls.resume_job(session.connection, number, actor=login_of_this_process(), reason=why)
        return done, await read_job(session.connection, str(number))

    done, job = in_session(work)
    if as_json:
        print_json({**job_as_json(job), "changed": done.changed})
    if not done.changed:
        say(f"Job {job.id} is not paused; `tocsin job show {job.id}` says what holds it up, if anything does.")
        return
    goes_on = "goes on within seconds" if job.shown.hold is None else "is paused no more"
    say(f"Job {job.id} {goes_on}. It expires at {moment(job.expires_at)}.{_told_of_hold(job)}")


def retry(
    name: JobName,
    address: Addresses = None,
    expires_at: Annotated[
        str | None,
        typer.Option(metavar="T", help="A new end of its time; then who had expired is tried again too."),
    ] = None,
    reason: Reason = None,
    as_json: JsonFlag = False,
) -> None:
    """Try again whoever failed, at once; a finished job is opened again for that.

    Not those whose address is malformed: nothing was tried of them. Not those whose address is suppressed, as it is
    when a server has said that it does not exist: first `tocsin suppression remove ADDRESS`, then this. Who was
    suppressed and is so no more is tried too; an urgent job writes to everybody. A job whose time is over needs a new
    end of its time, and then whoever had expired is tried again as well. Interrupted, it goes on where it was when it
    is run again.
    """
    until = read_time(expires_at, "--expires-at")
    why = read_reason(reason, scope=Scope.JOB)

    async def work(session: Session) -> tuple[Retried, Job]:
        number = await find_job(session.connection, name)
        await session.connection.commit()
        done = await recipient_controls.retry_failed(
            session.connection,
            number,
            actor=login_of_this_process(),
            addresses=address or (),
            expires_at=until,
            reason=why,
        )
        return done, await read_job(session.connection, str(number))

    try:
        done, job = in_session(work)
    except KeyboardInterrupt:
        _tell_of_interruption()
        raise
    if as_json:
        print_json({**job_as_json(job), "retried": _retried_as_json(done)})
    say(_told_of_retry(done, job))


def settle(
    *,
    name: JobName,
    settlement: Annotated[Settlement, typer.Option("--as", help="What became of them: sent, failed; or send again.")],
    address: Addresses = None,
    reason: Reason = None,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Settle recipients whose fate is unknown: the message was written, and no reply came.

    As sent or failed that is final, until a retry. As pending they are sent to again at once, and may get the message
    twice. See them with `tocsin job recipients JOB --state unknown`.
    """
    why = read_reason(reason, scope=Scope.JOB)

    async def look(session: Session) -> Job:
        return await read_job(session.connection, name)

    async def work(session: Session) -> tuple[Settled, Job]:
        number = await find_job(session.connection, name)
        await session.connection.commit()
        done = await recipient_controls.settle_unknown(
            session.connection,
            number,
            settlement,
            actor=login_of_this_process(),
            addresses=address or (),
            reason=why,
        )
        return done, await read_job(session.connection, str(number))

    with open_ledger() as ledger:
        if not yes and (job := ledger.visit(look)).unknown:
            whom = counted(len(set(address)) if address else job.unknown, "recipient")
            twice = " They may get it twice." if settlement is Settlement.PENDING else ""
            _confirm(f"Settle {whom} of job {job.id}, whose fate is unknown, as {settlement.value}?{twice}")
        try:
            done, job = ledger.visit(work)
        except KeyboardInterrupt:
            _tell_of_interruption()
            raise
    if as_json:
        print_json({**job_as_json(job), "settled": done.recipients})
    if done.recipients:
        whom = counted(done.recipients, "recipient")
        say(f"{whom} of job {job.id} settled as {settlement.value}.{_told_of_hold(job)}")
    else:
        say(f"Job {job.id} has no recipient whose fate is unknown: nothing to do.")


def _confirm(question: str) -> None:
    """Ask before something that cannot be taken back. Raises UsageError where nobody can be asked, Exit for a no."""
    if not is_somebody_there():
        raise UsageError(
            "This cannot be taken back, and nobody is here to be asked.",
            fix="Nothing was changed. Give --yes to do it.",
            scope=Scope.JOB,
        )
    try:
        is_agreed = agrees(question)
    except KeyboardInterrupt:
        say("\nNothing was changed.")
        raise typer.Exit(INTERRUPTED) from None
    if not is_agreed:
        say("Nothing was changed.")
        raise typer.Exit(FAILED)


def _told_before_cancelling(job: Job) -> str:
    """Say what becomes of everybody."""
    others = job.failed + job.unknown + job.suppressed
    parts = [
        f"{job.sent:,} of {job.total:,} are sent",
        f"{job.in_flight:,} are under way" if job.in_flight else "",
        f"{others:,} are failed, unknown or suppressed" if others else "",
        f"{job.unsettled:,} will not be sent to",
    ]
    return f"{', '.join(part for part in parts if part)}."


def _retried_as_json(done: Retried) -> Mapping[str, int]:
    return {
        "failed": done.failed,
        "expired": done.expired,
        "suppressed": done.suppressed,
        "left_out": done.left_out,
    }


def _told_of_retry(done: Retried, job: Job) -> str:
    again = [
        counted(done.failed, "failed recipient") if done.failed else "",
        counted(done.suppressed, "recipient") + " no longer suppressed" if done.suppressed else "",
        f"{done.expired:,} who had expired" if done.expired else "",
    ]
    whom = " and ".join(one for one in again if one)
    if not whom:
        return _told_of_nobody(done, job)
    return (
        f"Job {job.id} tries {whom} again. It expires at {moment(job.expires_at)}."
        f"{_told_of_left_out(done)}{_told_of_hold(job)}"
    )


def _told_of_left_out(done: Retried) -> str:
    if not done.left_out:
        return ""
    which = counted(
        done.left_out, "failed recipient is suppressed and stays", "failed recipients are suppressed and stay"
    )
    return f" {which} as before: `tocsin suppression list` says why, `tocsin suppression remove ADDRESS` ends it."


def _told_of_nobody(done: Retried, job: Job) -> str:
    """Say why there was nothing to do, and what may be done for those who were not sent to."""
    if done.left_out:
        return f"Nobody of job {job.id} is tried again.{_told_of_left_out(done)}"
    others = [
        f"{counted(job.unknown, 'is', 'are')} unknown: `tocsin job settle {job.id} --as …`" if job.unknown else "",
        f"{counted(job.suppressed, 'is', 'are')} suppressed: `tocsin suppression remove ADDRESS`, then retry"
        if job.suppressed
        else "",
        f"the address of {job.failed:,} is malformed" if job.failed else "",
    ]
    told = "; ".join(other for other in others if other)
    return f"Nobody of job {job.id} failed in a try: nothing to do.{f' {told}.' if told else ''}"


def _told_of_hold(job: Job) -> str:
    """Say what keeps a job from going on at once, and what lets it; nothing where nothing does."""
    if job.shown.state is JobState.PAUSED:
        return f" The job is paused: `tocsin job resume {job.id}` lets it go on."
    hold, reason, until = job.shown.hold, job.shown.reason, job.shown.until
    then = "later" if until is None else f"at {moment(until)}"
    match hold:
        case None:
            told = ""
        case Hold.HALT:
            told = f" But {reason}. `tocsin resume` lets it go on."
        case Hold.PROFILE:
            told = f" But {reason}. `tocsin profile resume {job.profile}` lets it go on."
        case Hold.SEND_AFTER | Hold.MAILBOX | Hold.RETRIES:
            told = f" It goes on {then}: {reason}."
        case Hold.FIRST_PART:
            told = f" It {reason}."
        case Hold.WORKER:
            told = " No worker that sends is running: start `tocsin up` or `tocsin worker`."
        case _:
            assert_never(hold)
    return told


def _tell_of_interruption() -> None:
    say("Interrupted: what was done stays. Run it again to go on.")
