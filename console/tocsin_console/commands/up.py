"""`tocsin up` and `tocsin down`: everything on one machine."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, assert_never

import structlog
import typer

from tocsin_console.output import examples, say
from tocsin_console.reading.session import ledger_url, run_to_end
from tocsin_schema.errors import ConfigurationError, LedgerError, TocsinError, UsageError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.migrate import check_schema
from tocsin_schema.ledger.status import read_workers
from tocsin_schema.message_broker.topology import Role
from tocsin_schema.sealing import load_sealer
from tocsin_schema.settings import LogFormat, Settings, read_settings
from tocsin_workers.logging_setup import set_up_logging
from tocsin_workers.supervising.running import run_workers

app = typer.Typer()
_log = structlog.get_logger(__name__)

READY_SECONDS = 60.0
#: From when on `up --detach` says what it waits for.
TOLD_AFTER_SECONDS = 2.0
#: What `down` waits beyond the workers' own grace period.
DOWN_MARGIN_SECONDS = 15.0


@app.command(epilog=examples("tocsin up", "tocsin up --detach"))
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return once it runs; `tocsin down` ends it.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Worker processes; default: TOCSIN_WORKER_PROCESSES.")
    ] = None,
) -> None:
    """Run everything on this machine: the embedded Postgres (unless there is another one) and the workers."""
    settings = read_settings()
    if detach:
        _start_in_background(settings, processes)
        return
    set_up_logging(settings)
    with _only_one(settings), ledger_url(settings) as url:
        run_workers(
            settings,
            url,
            Role.ALL,
            processes=processes or settings.worker_processes,
            beginning=lambda: _tell(settings, "Tocsin is up. Ctrl-C, or `tocsin down` elsewhere, ends it."),
        )
    _tell(settings, "Tocsin is down. What was not sent yet stands in the ledger and goes out after the next `up`.")


@app.command(epilog=examples("tocsin down"))
def down() -> None:
    """End what `tocsin up` started on this machine, in good order."""
    settings = read_settings()
    process_id = _running(settings)
    if process_id is None:
        say("Tocsin is not up here.")
        return
    os.kill(process_id, signal.SIGTERM)
    deadline = time.monotonic() + settings.shutdown_grace_seconds + DOWN_MARGIN_SECONDS
    while _running(settings) is not None:
        if time.monotonic() > deadline:
            raise TocsinError(
                f"Process {process_id} has not ended yet.", fix="Wait a little, or end it with `kill -9`."
            )
        time.sleep(0.1)
    say("Tocsin is down.")


def _tell(settings: Settings, text: str) -> None:
    """Tell it as everything else is told where this logs to: standard error holds JSON only, or lines for people."""
    match settings.log_format:
        case LogFormat.JSON:
            _log.info(text)
        case LogFormat.CONSOLE:
            say(text)
        case _:
            assert_never(settings.log_format)


def _start_in_background(settings: Settings, processes: int | None) -> None:
    if (process_id := _running(settings)) is not None:
        raise _up_already(settings, process_id)
    log = settings.data_dir / "up.log"
    command = [sys.executable, "-m", "tocsin_console", "up"]
    if processes is not None:
        command += ["--processes", str(processes)]
    with _told_if_unusable(settings):
        settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        output = log.open("ab")
    with output:
        begins = output.tell()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        missing = _wait_for_workers(settings, process)
    except KeyboardInterrupt:
        say(f"\nTocsin is not up yet: ending process {process.pid} …")
        process.send_signal(signal.SIGINT)
        process.wait()
        say("Tocsin is down.")
        raise
    if process.returncode is not None:
        raise TocsinError(
            f"Tocsin did not come up. {_last_words(log, begins) or 'It did not say why.'}",
            fix=f"The whole story is in {log}.",
        )
    if missing is not None:
        raise TocsinError(
            f"Process {process.pid} runs, but has no workers yet: {missing}",
            fix=f"It goes on trying, with the variables that it was started with; `tocsin down` ends it. See {log}.",
        )
    say(f"Tocsin is up (process {process.pid}). It logs to {log}.")


def _wait_for_workers(settings: Settings, process: subprocess.Popen[bytes]) -> str | None:
    """Wait for them, but not for ever, nor for a process that has ended; give what is missing still."""
    begun = time.monotonic()
    missing = told = "It is still starting."
    while process.poll() is None and time.monotonic() < begun + READY_SECONDS:
        if _running(settings) == process.pid:
            missing = _missing_for_workers(settings)
            if missing is None:
                return None
        if missing != told and time.monotonic() > begun + TOLD_AFTER_SECONDS:
            say(f"No workers yet: {missing}")
            told = missing
        time.sleep(0.2)
    return missing


def _missing_for_workers(settings: Settings) -> str | None:
    """Say what keeps the workers from being ready, by trying what they try; None where there are some."""

    async def look(url: str) -> str | None:
        async with connect(url) as connection:
            if await read_workers(connection):
                return None
            await check_schema(connection)
            await load_sealer(connection, settings)
            return "They are still starting."

    try:
        with ledger_url(settings, migrated=False) as url:
            return run_to_end(look(url))
    except LedgerError as error:
        # `up` sets the embedded one up by itself, and ends where that fails.
        return "The embedded ledger is not ready." if settings.is_embedded else str(error)
    except TocsinError as error:
        return str(error)


def _last_words(log: Path, begins: int) -> str:
    """Give what a process said last of its end, in what the log has from that byte on."""
    said = log.read_bytes()[begins:].decode(errors="replace").splitlines()
    return next((line for line in reversed(said) if line.startswith("tocsin: ")), "").removeprefix("tocsin: ")


@contextmanager
def _told_if_unusable(settings: Settings) -> Generator[None]:
    """Raise ConfigurationError in place of an OSError that the data directory is the cause of."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"Tocsin cannot use {error.filename or settings.data_dir}: {error.strerror}.",
            fix="Make that possible, or set TOCSIN_DATA_DIR to a directory of your own.",
        ) from None


@contextmanager
def _only_one(settings: Settings) -> Generator[None]:
    """Hold the file that says who is up, for as long as we are. Raises UsageError where somebody else is."""
    with _told_if_unusable(settings):
        settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        opened = _pid_file(settings).open("a+")
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _up_already(settings, _running(settings)) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def _up_already(settings: Settings, process_id: int | None) -> UsageError:
    missing = _missing_for_workers(settings)
    up_already = "Tocsin is up already" if process_id is None else f"Tocsin is up already (process {process_id})"
    if missing is None:
        return UsageError(f"{up_already}.", fix="`tocsin status` shows it, `tocsin down` ends it.")
    return UsageError(
        f"{up_already}, but has no workers yet: {missing}", fix="Its log says more, and `tocsin down` ends it."
    )


def _running(settings: Settings) -> int | None:
    """Give the process that is up here; None where the file is not locked, whatever stands in it.

    Raises ConfigurationError where the data directory cannot be used.
    """
    with _told_if_unusable(settings):
        try:
            opened = _pid_file(settings).open()
        except FileNotFoundError:
            return None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0) or None
    return None


def _pid_file(settings: Settings) -> Path:
    return settings.data_dir / "up.pid"
