"""`tocsin status`: whether mail is going out, and if not, why."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import typer

from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import (
    brief_state,
    counted,
    examples,
    moment,
    print_facts,
    print_json,
    print_table,
    print_whole_states,
)
from tocsin_console.reading.credential_ends import told
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.errors import MessageBrokerError
from tocsin_schema.ledger.credential_expiry import CredentialEnd, read_known_ends, soon
from tocsin_schema.ledger.depths import LedgerDepths, ledger_depths
from tocsin_schema.ledger.status import ProfileStatus, WorkersOfHost, read_profiles, read_workers
from tocsin_schema.message_broker import amqp
from tocsin_schema.settings import Settings

app = typer.Typer()


@dataclass(frozen=True, slots=True)
class Status:
    """The installation at a glance."""

    ledger: str
    message_broker: str
    workers: list[WorkersOfHost]
    depths: LedgerDepths
    profiles: list[ProfileStatus]
    credential_ends: list[CredentialEnd]


@app.command(epilog=examples("tocsin status", "tocsin status --json"))
def status(as_json: JsonFlag = False) -> None:
    """Tell whether mail is going out, and if not, why."""

    async def work(session: Session) -> Status:
        return Status(
            ledger="embedded Postgres" if session.settings.is_embedded else "Postgres server",
            message_broker=message_broker_line(session.settings),
            workers=await read_workers(session.connection),
            depths=await ledger_depths(session.connection),
            profiles=await read_profiles(session.connection),
            credential_ends=await read_known_ends(session.connection),
        )

    found = in_session(work)
    now = datetime.now(UTC)
    if as_json:
        print_json(asdict(found))
        return
    print_facts(
        [
            ("ledger", found.ledger),
            ("message broker", found.message_broker),
            ("workers", workers_line(found.workers)),
            ("open jobs", found.depths.open_jobs),
            ("batches", f"{found.depths.due:,} due, {found.depths.leased:,} in work, {found.depths.waiting:,} waiting"),
            ("dead letters", found.depths.dead_letters),
            *(("credentials", told(end, now=now)) for end in soon(found.credential_ends, now=now)),
        ]
    )
    states = {profile.name: state_of(profile, has_workers=bool(found.workers)) for profile in found.profiles}
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


def workers_line(workers: list[WorkersOfHost]) -> str:
    """Say who works; where nobody does, what to do about it."""
    if not workers:
        return "none: nothing is sent; start `tocsin up` or `tocsin worker`"
    return ", ".join(f"{counted(one.processes, 'process', 'processes')} ({one.role}) on {one.host}" for one in workers)


def state_of(profile: ProfileStatus, *, has_workers: bool) -> str:
    """Say what a profile is doing, or what holds it up."""
    if profile.paused_reason is not None:
        again = "" if profile.probe_at is None else f" (tried again by itself at {moment(profile.probe_at)})"
        return f"paused: {profile.paused_reason}{again}"
    if profile.parked_until is not None:
        return f"resting until {moment(profile.parked_until)}: {profile.parked_reason}"
    if profile.token_failure is not None:
        return f"no access token: {profile.token_failure}"
    if profile.due_recipients:
        return "sending" if has_workers else "waiting for a worker"
    return "waiting for a retry or its time" if profile.waiting_recipients else "nothing to send"


def message_broker_line(settings: Settings) -> str:
    """Say whether the message broker is there; it is tried, and nothing is declared on it."""
    if settings.broker_url is None:
        return "in the ledger's Postgres"
    try:
        amqp.close(amqp.connect(amqp.connection_parameters(settings.broker_url.get_secret_value(), name="status")))
    except MessageBrokerError as error:
        return f"RabbitMQ: {error}"
    return "RabbitMQ answers"
