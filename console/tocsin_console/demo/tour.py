"""The demo: what an operator would do, done here by the same commands, and then checked against what arrived."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, chdir, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tocsin_console.demo.comparison import compare
from tocsin_console.demo.mail_sink import read_received
from tocsin_console.demo.outcome import Outcome
from tocsin_console.demo.servers import DemoServers, RunningServers, ServersConfiguration
from tocsin_console.demo.summary import print_summary
from tocsin_console.demo.token_endpoint import read_token_requests
from tocsin_console.demo.watching import watch_jobs
from tocsin_console.output import say
from tocsin_console.reading.session import in_session, ledger_url
from tocsin_schema.contract.identity import id_from_key
from tocsin_schema.errors import TocsinError, UsageError
from tocsin_schema.ledger.deliveries import has_jobs, read_deliveries, read_sent_recipients
from tocsin_schema.ledger.job_reading import read_recipients
from tocsin_schema.ledger.status import read_workers
from tocsin_schema.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import FrameType

    from tocsin_console.reading.session import Session
    from tocsin_schema.settings import Settings

RunCommand: TypeAlias = "Callable[[Sequence[str]], None]"

SHARED_RECIPIENTS = 10_000
CLIENT_ID = "11111111-2222-4333-8444-555555555555"
TENANT_ID = "99999999-8888-4777-8666-555555555555"
SENDER = "alerts@campus.example"
WORKER_PROCESSES = 2
#: Grey-listed recipients come back after this time instead of half a minute: nobody wants to watch that.
RETRY_SECONDS = 2
DEADLINE_SECONDS = 180.0
START_SECONDS = 60.0

#: What the mail server of the demo says to a few people in `recipients.csv`.
AWKWARD = {
    "moved.away@campus.example": ["550 5.1.6 Moved away, address unknown"],
    "no.such.user@campus.example": ["550 5.1.1 No such user"],
    "retired@campus.example": ["550 5.2.1 Mailbox disabled"],
    "greylisted.1@campus.example": ["451 4.7.1 Greylisted, try again later", "250 2.1.5 Recipient OK"],
    "greylisted.2@campus.example": ["451 4.7.1 Greylisted, try again later", "250 2.1.5 Recipient OK"],
    "greylisted.3@campus.example": ["451 4.7.1 Greylisted, try again later", "250 2.1.5 Recipient OK"],
}

SHARED_TEXT = """\
{{ data.what }} at {{ data.where }}.

Leave the building by the nearest exit and wait at the assembly point until you are told otherwise.
"""
INDIVIDUAL_TEXT = """\
Dear {{ recipient.name }},

{{ data.what }} at {{ data.where }}. Your office, room {{ recipient.room }} in {{ recipient.building }}, stays closed
today. Please do not come in.
"""


def run_tour(directory: Path | None, *, keep: bool, run: RunCommand) -> bool:
    """Run the demo in a directory, or a temporary one; whether the ledger and the mail server agree.

    `run` runs a `tocsin` command and raises where it fails. Raises UsageError where the directory is not empty.

    Whatever happens, also at Ctrl-C, no process stays behind, and no data unless `keep` says so.
    """
    with _signals_as_interrupts(), _home(directory, keep=keep) as home:
        os.environ.update({"TOCSIN_DATA_DIR": str(home / "data"), "TOCSIN_METRICS_PORT": "0"})
        secret = secrets.token_urlsafe(24)
        tocsin = _shown(run)
        with ExitStack() as running:
            say("Starting a mail server and a token endpoint that stand in for your provider …")
            servers = running.enter_context(
                DemoServers(
                    home / "servers",
                    ServersConfiguration(client_id=CLIENT_ID, client_secret=secret, recipients=AWKWARD),
                )
            )
            say("Starting the ledger …")
            running.enter_context(ledger_url(read_settings()))
            _set_up_ledger(read_settings(), tocsin)
            say("Starting the workers …\n")
            tocsin("setting", "set", "RetryFirstDelaySeconds", str(RETRY_SECONDS))
            running.enter_context(_workers(home))
            _wait_for_workers(home)
            # The commands below name files as a person in that directory would.
            running.enter_context(chdir(_write_files(home, secret)))
            outcome = _tour(servers, tocsin)
        print_summary(outcome)
        _say_where_next(home, keep=keep)
    return outcome.comparison.agree


def _tour(servers: RunningServers, tocsin: Callable[..., None]) -> Outcome:
    ca_file = os.path.relpath(servers.ca_file)
    tocsin(
        "oauth", "add", "campus", "--provider", "custom", "--token-endpoint", servers.token_endpoint,
        "--scope", "https://mail.campus.example/.default", "--tenant-id", TENANT_ID, "--client-id", CLIENT_ID,
        "--client-secret-file", "secret",
        "--ca-file", ca_file,
    )  # fmt: skip
    tocsin(
        "profile", "add", "alerts", "--provider", "custom", "--host", servers.smtp_host,
        "--port", str(servers.smtp_port), "--from", SENDER, "--auth", "oauth", "--oauth", "campus",
        "--ca-file", ca_file,
    )  # fmt: skip
    tocsin(
        "template", "add", "evacuation", "--subject", "{{ data.what }} at {{ data.where }}",
        "--text-file", "shared.txt", "--reply-to", "desk@campus.example", "--from-name", "Campus Safety",
    )  # fmt: skip
    tocsin(
        "template", "add", "closed-office", "--subject", "{{ recipient.name }}: room {{ recipient.room }} stays closed",
        "--text-file", "individual.txt", "--reply-to", "desk@campus.example",
        "--from-name", "Campus Safety",
    )  # fmt: skip
    started = time.monotonic()
    common = ("--profile", "alerts", "--data", "what=Water damage", "--data", "where=the library", "--source", "demo")
    tocsin(
        "send", *common, "--key", "evacuation", "--template", "evacuation", "--mode", "shared",
        "--recipients", "everyone.csv", "--yes",
    )  # fmt: skip
    tocsin(
        "send", *common, "--key", "closed-office", "--template", "closed-office", "--mode", "individual",
        "--recipients", "recipients.csv", "--yes",
    )  # fmt: skip
    say("")
    ids = [str(id_from_key("demo", key)) for key in ("evacuation", "closed-office")]
    jobs = watch_jobs(ids, ["to everyone, shared", "to each, individual"], timeout_seconds=DEADLINE_SECONDS)
    seconds = time.monotonic() - started

    async def read(session: Session) -> Outcome:
        numbers = [job.number for job in jobs]
        awkward = [
            recipient
            for job in jobs
            async for recipient in read_recipients(session.connection, job.number)
            if recipient.state != "sent" or recipient.attempts > 1
        ]
        comparison = compare(
            await read_deliveries(session.connection, numbers),
            await read_sent_recipients(session.connection, numbers),
            read_received(servers.received_file),
        )
        return Outcome(jobs, awkward, comparison, len(read_token_requests(servers.token_requests_file)), seconds)

    return in_session(read)


def _shown(run: RunCommand) -> Callable[..., None]:
    """Give what runs a command as an operator would, and shows it."""

    def tocsin(*arguments: str) -> None:
        say(f"$ tocsin {' '.join(_quoted(argument) for argument in arguments)}")
        run(arguments)

    return tocsin


def _quoted(argument: str) -> str:
    return f'"{argument}"' if " " in argument else argument


def _write_files(home: Path, secret: str) -> Path:
    """Write what the commands read; give the directory."""
    everyone = "\n".join(["address", *(f"member{number:05d}@campus.example" for number in range(SHARED_RECIPIENTS))])
    contents = {
        "secret": secret,
        "shared.txt": SHARED_TEXT,
        "individual.txt": INDIVIDUAL_TEXT,
        "everyone.csv": everyone + "\n",
        "recipients.csv": resources.files("tocsin_console.demo").joinpath("recipients.csv").read_text("utf-8"),
    }
    files = home / "files"
    files.mkdir(mode=0o700)
    for name, content in contents.items():
        (files / name).write_text(content, encoding="utf-8")
    return files


def _set_up_ledger(settings: Settings, tocsin: Callable[..., None]) -> None:
    """Do by command what the embedded mode does by itself, and refuse a ledger that is in use."""
    if not settings.is_embedded:
        if settings.master_key is None and not settings.key_file.exists():
            tocsin("key", "init")
        tocsin("migrate")
    _refuse_used_ledger()


def _refuse_used_ledger() -> None:
    async def is_used(session: Session) -> bool:
        return await has_jobs(session.connection)

    if in_session(is_used):
        raise UsageError(
            "The ledger has been used already, and the demo wants one of its own.",
            fix="Unset TOCSIN_DATABASE_URL, or give it an empty database.",
        )


@contextmanager
def _workers(home: Path) -> Generator[None]:
    command = [sys.executable, "-m", "tocsin_console", "worker", "--processes", str(WORKER_PROCESSES)]
    with (home / "workers.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for_workers(home: Path) -> None:
    async def count(session: Session) -> int:
        return sum(one.processes for one in await read_workers(session.connection))

    deadline = time.monotonic() + START_SECONDS
    while in_session(count) < WORKER_PROCESSES:
        if time.monotonic() > deadline:
            raise TocsinError("The workers of the demo do not start.", fix=f"See {home / 'workers.log'}.")
        time.sleep(0.1)


@contextmanager
def _home(directory: Path | None, *, keep: bool) -> Generator[Path]:
    home, is_ours = _make_home(directory)
    try:
        yield home
    finally:
        if not keep:
            _destroy(home, is_ours=is_ours)


def _make_home(directory: Path | None) -> tuple[Path, bool]:
    """Give an empty directory, and whether it was made here. Raises UsageError."""
    where = "a temporary directory" if directory is None else directory
    try:
        home = Path(tempfile.mkdtemp(prefix="tocsin-demo-")) if directory is None else directory.absolute()
        if directory is not None and home.exists():
            _refuse_unless_empty(home)
            return home, False
        home.mkdir(parents=True, exist_ok=directory is None)
        # Postgres does not run as root, and its own user has to find its way to its files.
        home.chmod(0o711)
    except OSError as error:
        raise UsageError(
            f"The demo cannot use {where}: {error.strerror}.", fix="Name another --directory, one that it can make."
        ) from None
    return home, True


def _refuse_unless_empty(home: Path) -> None:
    """Leave alone what may be an installation. Raises UsageError, OSError."""
    if any(home.iterdir()):
        raise UsageError(
            f"{home} is not empty, and the demo wants a directory of its own.",
            fix="Name another --directory, one that is empty or not there yet.",
        )
    if not os.access(home, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _destroy(home: Path, *, is_ours: bool) -> None:
    from tocsin_console.embedded.postgres import EmbeddedPostgres  # noqa: PLC0415 - an extra

    if read_settings().is_embedded and (home / "data").exists():
        EmbeddedPostgres(home / "data").destroy()
    for name in ("data", "servers", "files"):
        shutil.rmtree(home / name, ignore_errors=True)
    (home / "workers.log").unlink(missing_ok=True)
    if is_ours and not any(home.iterdir()):
        home.rmdir()


@contextmanager
def _signals_as_interrupts() -> Generator[None]:
    """Let SIGTERM end the demo as Ctrl-C does; while it cleans up, a second Ctrl-C changes nothing."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's signature
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Not by `say`: this may come in the middle of a line of ours, and Python's streams let nobody in again then.
        with suppress(OSError):
            os.write(2, "\nEnding the demo …\n".encode())
        raise KeyboardInterrupt

    before = [signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


def _say_where_next(home: Path, *, keep: bool) -> None:
    if keep:
        say(f"\nThe demo's ledger is kept. Look around in it:\n  export TOCSIN_DATA_DIR={home / 'data'}")
        say("  tocsin job list\n  tocsin job recipients JOB --state failed\n  tocsin copy list --job JOB")
    else:
        say("\nTo look around in its ledger afterwards: tocsin demo --keep --directory /tmp/tocsin-demo")
    say("Your own first mail: README.md. What holds when something breaks: docs/architecture.md.")
