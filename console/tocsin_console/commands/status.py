"""`tocsin status`: whether mail is going out, and if not, why."""

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_never

import typer

from tocsin_console.commands import mailbox_showing
from tocsin_console.commands.halt import last_halt_line
from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.commands.profile_showing import told_of_pause
from tocsin_console.output import (
    Cell,
    brief_state,
    counted,
    examples,
    moment,
    print_facts,
    print_json,
    print_line,
    print_table,
    print_whole_states,
)
from tocsin_console.reading.credential_ends import told
from tocsin_console.reading.session import Session, open_ledger
from tocsin_schema.errors import TocsinError
from tocsin_schema.ledger.credential_expiry import CredentialEnd, read_known_ends, soon
from tocsin_schema.ledger.depths import LedgerDepths, ledger_depths
from tocsin_schema.ledger.estimates import Outlook, read_outlooks
from tocsin_schema.ledger.expiring import ExpiringJob, holds, read_expiring_jobs
from tocsin_schema.ledger.mailbox_walk import Limit
from tocsin_schema.ledger.sending_halt import Halt, HaltCause, LiftedHalt, read_halt, read_last_halt
from tocsin_schema.ledger.status import (
    HeldJobs,
    PausedJob,
    ProfileStatus,
    UnknownFates,
    WorkersOfHost,
    read_held_jobs,
    read_paused_jobs,
    read_profiles,
    read_unknown_fates,
    read_workers,
)
from tocsin_schema.message_broker.depths import queue_depths
from tocsin_schema.message_broker.topology import INTAKE_QUEUES
from tocsin_schema.settings import Settings
from tocsin_workers.supervising.asking import Question

app = typer.Typer()

#: Jobs that expire soon of which it tells; those that expire first.
MOST_EXPIRING = 20
#: Paused jobs that it lists; the newest.
MOST_PAUSED = 20
#: A halt that was lifted longer ago is not told of any more.
LAST_HALT_WITHIN = timedelta(days=7)
#: How long the message broker may take; it is asked while the ledger is read.
BROKER_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class MessageBroker:
    """Whether the message broker is there, in words, and how many parts of jobs lie on its intake queues.

    `waiting_parts` is None where it does not tell.
    """

    told: str
    waiting_parts: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The installation at a glance."""

    halt: Halt | None
    last_halt: LiftedHalt | None
    """One that was lifted in the last `LAST_HALT_WITHIN`."""
    ledger: str
    workers: list[WorkersOfHost]
    depths: LedgerDepths
    profiles: list[ProfileStatus]
    mailboxes: list[Outlook]
    """What each may use, and when it will be through its backlog."""
    credential_ends: list[CredentialEnd]
    expiring_jobs: list[ExpiringJob]
    """The first of those that expire soon."""
    held_jobs: HeldJobs
    paused_jobs: list[PausedJob]
    """The newest of them."""
    unknown: UnknownFates | None


@app.command(epilog=examples("tocsin status", "tocsin status --json"))
def status(as_json: JsonFlag = False) -> None:
    """Tell whether mail is going out, and if not, why."""

    async def work(session: Session) -> Status:
        halt, workers = await read_halt(session.connection), await read_workers(session.connection)
        return Status(
            halt=halt,
            last_halt=await read_last_halt(session.connection, within=LAST_HALT_WITHIN),
            ledger="embedded Postgres" if session.settings.is_embedded else "Postgres server",
            workers=workers,
            depths=await ledger_depths(session.connection),
            profiles=await read_profiles(session.connection),
            mailboxes=await read_outlooks(session.connection, hold=hold_of_all(halt, workers)),
            credential_ends=await read_known_ends(session.connection),
            expiring_jobs=await read_expiring_jobs(session.connection, only_untold=False, limit=MOST_EXPIRING),
            held_jobs=await read_held_jobs(session.connection),
            paused_jobs=await read_paused_jobs(session.connection, limit=MOST_PAUSED),
            unknown=await read_unknown_fates(session.connection),
        )

    with open_ledger() as ledger:
        asking = _asking(ledger.settings, ledger.url)
        asked = asking.begin()
        found = ledger.visit(work)
        broker = asking.result(asked, by=time.monotonic() + BROKER_SECONDS)
    now = datetime.now(UTC)
    if as_json:
        print_json(_as_json(found, broker))
        return
    print_facts(facts(found, broker, now=now))
    _print_profiles(found)
    _print_mailboxes(found)
    if found.paused_jobs:
        print_table(
            ("PAUSED JOB", "PROFILE", "BY", "SINCE", "UNSETTLED", "WHY"),
            [(job.id, job.profile, job.actor, job.since, job.unsettled, job.reason) for job in found.paused_jobs],
        )
    if found.expiring_jobs:
        print_table(
            ("JOB THAT EXPIRES SOON", "PROFILE", "EXPIRES", "UNSETTLED", "WHY"),
            [
                (job.id, job.profile, job.expires_at, job.unsettled, "; ".join(brief_holds(job)))
                for job in found.expiring_jobs
            ],
        )


def facts(found: Status, broker: MessageBroker, *, now: datetime) -> list[tuple[str, Cell]]:
    """Give what is true of the whole installation, a fact a line; what is as it should be is left out."""
    depths, held = found.depths, found.held_jobs
    return [
        *(() if found.halt is None else (("sending", halt_line(found.halt)),)),
        ("ledger", found.ledger),
        ("message broker", message_broker_line(broker)),
        ("workers", workers_line(found.workers)),
        ("open jobs", depths.open_jobs),
        *((("paused jobs", paused_line(held)),) if held.paused else ()),
        *((("later jobs", later_line(held)),) if held.scheduled else ()),
        ("batches", f"{depths.due:,} due, {depths.leased:,} in work, {depths.waiting:,} waiting"),
        *(() if found.unknown is None else (("unknown", unknown_line(found.unknown)),)),
        ("dead letters", dead_letters_line(depths.dead_letters)),
        *(("credentials", told(end, now=now)) for end in soon(found.credential_ends, now=now)),
        *(() if found.last_halt is None else (("last halt", last_halt_line(found.last_halt)),)),
    ]


def _print_profiles(found: Status) -> None:
    states = {
        profile.name: state_of(profile, has_workers=bool(found.workers), is_halted=found.halt is not None)
        for profile in found.profiles
    }
    if found.profiles:
        print_table(
            ("PROFILE", "FROM", "OPEN JOBS", "DUE", "WAITING", "CONNECTIONS", "STATE"),
            [
                (
                    profile.name,
                    profile.from_address,
                    profile.open_jobs,
                    profile.due_recipients,
                    profile.waiting_recipients,
                    f"{profile.connections_open} of {profile.connections or 'any number'}",
                    brief_state(states[profile.name])[0],
                )
                for profile in found.profiles
            ],
        )
    print_whole_states(states)


def _print_mailboxes(found: Status) -> None:
    if not found.mailboxes:
        return
    mailboxes = _with_profiles(found)
    print_table(mailbox_showing.headings(), [mailbox_showing.as_row(*mailbox) for mailbox in mailboxes])
    for outlook, profiles in mailboxes:
        for note in mailbox_showing.notes(outlook, profiles):
            print_line([f"{mailbox_showing.name(outlook.mailbox)}: {note}"])


def hold_of_all(halt: Halt | None, workers: list[WorkersOfHost]) -> Limit | None:
    """Say what keeps all mail back, so that no time can be told."""
    if halt is not None:
        return Limit.HALTED
    return None if any(one.role in {"sender", "all"} for one in workers) else Limit.NO_WORKER


def halt_line(halt: Halt) -> str:
    """Say that nothing is sent: since when, by whom, why, and what to do."""
    since = "" if halt.halted_at is None else f" since {moment(halt.halted_at)}"
    reason = halt.reason.removesuffix(".")
    match halt.cause:
        case HaltCause.BY_HAND:
            return f"ALL HALTED{since}, by {halt.actor}: {reason}. To let it go on: `tocsin resume`."
        case HaltCause.RESTORED:
            return f"ALL HALTED{since}. {reason}. Then let it go on: `tocsin resume`."
        case _:
            assert_never(halt.cause)


def paused_line(held: HeldJobs) -> str:
    """Count the paused jobs, and say how one goes on."""
    jobs = "1 job is paused" if held.paused == 1 else f"{held.paused:,} jobs are paused"
    return f"{jobs}: `tocsin job resume JOB` lets one go on"


def later_line(held: HeldJobs) -> str:
    """Count the jobs that have a time to begin, and say when the first begins."""
    begins = "" if held.first_begins_at is None else moment(held.first_begins_at)
    return f"1 begins at {begins}" if held.scheduled == 1 else f"{held.scheduled:,}; the first begins at {begins}"


def unknown_line(fates: UnknownFates) -> str:
    """Count the recipients who wait for a person, and say what the person does; of several jobs the newest."""
    whom = counted(fates.recipients, "recipient")
    waits = "waits" if fates.recipients == 1 else "wait"
    first = "" if fates.jobs == 1 else "the newest: "
    return (
        f"{whom} of {counted(fates.jobs, 'job')} {waits} for a person: {first}"
        f"`tocsin job recipients {fates.id} --state unknown`, then `tocsin job settle {fates.id}`"
    )


def dead_letters_line(kept: int) -> str:
    """Count the dead letters that wait for a person; where there are any, say where to look."""
    return f"{kept:,} to look at: `tocsin dead-letter list`" if kept else "0"


def brief_holds(job: ExpiringJob) -> list[str]:
    """Say what holds a job up, as a table has room for it; what stands above it need not be said again."""
    return [brief_state(hold)[0] for hold in holds(job)]


def workers_line(workers: list[WorkersOfHost]) -> str:
    """Say who works; where nobody does, what to do about it."""
    if not workers:
        return "none: nothing is sent; start `tocsin up` or `tocsin worker`"
    return ", ".join(f"{counted(one.processes, 'process', 'processes')} ({one.role}) on {one.host}" for one in workers)


def state_of(  # noqa: PLR0911  # one answer a state
    profile: ProfileStatus, *, has_workers: bool, is_halted: bool = False
) -> str:
    """Say what a profile is doing, or what holds it up."""
    if is_halted:
        return "all sending is halted"
    if profile.paused_reason is not None:
        pause = told_of_pause(
            profile.paused_reason, by=profile.paused_by, since=profile.paused_at, probe_at=profile.probe_at
        )
        return f"paused: {pause}; when mended: `tocsin profile resume {profile.name}`"
    if profile.parked_until is not None:
        return f"resting until {moment(profile.parked_until)}: {profile.parked_reason}"
    if profile.kept_for_urgent_until is not None:
        return f"only urgent jobs until {moment(profile.kept_for_urgent_until)}: {profile.kept_for_urgent_reason}"
    if profile.token_failure is not None:
        return f"no access token: {profile.token_failure}"
    if profile.due_recipients:
        return "sending" if has_workers else "waiting for a worker"
    if not profile.waiting_recipients:
        return "nothing to send"
    if profile.paused_recipients == profile.waiting_recipients:
        return "its job is paused" if profile.paused_jobs == 1 else f"its {profile.paused_jobs} jobs are paused"
    return "waiting for a retry or its time"


def _with_profiles(found: Status) -> list[tuple[Outlook, list[ProfileStatus]]]:
    """Put beside each mailbox the profiles that share it."""
    return [(outlook, mailbox_showing.sharing(outlook.mailbox, found.profiles)) for outlook in found.mailboxes]


def _as_json(found: Status, broker: MessageBroker) -> dict[str, object]:
    expiring = [{**asdict(job), "holds": holds(job)} for job in found.expiring_jobs]
    mailboxes = [mailbox_showing.as_json_object(*mailbox) for mailbox in _with_profiles(found)]
    profiles = [{**asdict(one), "messages_per_minute": _rounded(one.messages_per_minute)} for one in found.profiles]
    on_queue = {"message_broker": broker.told, "waiting_parts": broker.waiting_parts}
    return {**asdict(found), **on_queue, "profiles": profiles, "expiring_jobs": expiring, "mailboxes": mailboxes}


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 2)


def message_broker_line(broker: MessageBroker) -> str:
    """Say whether the message broker is there, and how many parts wait on it, if any do."""
    if not broker.waiting_parts:
        return broker.told
    wait = "waits" if broker.waiting_parts == 1 else "wait"
    return f"{broker.told}; {counted(broker.waiting_parts, 'part')} {wait} to be taken in"


def ask_message_broker(settings: Settings, database_url: str) -> MessageBroker:
    """Try the message broker and count what waits there; nothing is declared on it. Raises TocsinError."""
    broker_url = None if settings.broker_url is None else settings.broker_url.get_secret_value()
    depths = queue_depths(broker_url=broker_url, database_url=database_url)
    here = "in the ledger's Postgres" if broker_url is None else "RabbitMQ answers"
    return MessageBroker(here, sum(depths[queue] for queue in INTAKE_QUEUES) if depths else None)


def _asking(settings: Settings, database_url: str) -> Question[MessageBroker]:
    """Ask in a thread of its own: a server may go silent in the middle of an answer."""

    def failed(error: Exception) -> MessageBroker:
        if isinstance(error, TocsinError):
            return MessageBroker(str(error))
        return MessageBroker(f"could not be asked ({type(error).__name__})")

    return Question(
        lambda: ask_message_broker(settings, database_url),
        good_seconds=lambda _: 0.0,
        failed=failed,
        unanswered=MessageBroker(f"no answer within {BROKER_SECONDS:g} s"),
    )
