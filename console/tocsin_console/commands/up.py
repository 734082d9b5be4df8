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
from tocsin_schema.errors import TocsinError, UsageError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.status import read_workers
from tocsin_schema.message_broker.topology import Role
from tocsin_schema.settings import LogFormat, Settings, read_settings
from tocsin_workers.logging_setup import set_up_logging
from tocsin_workers.supervising.running import run_workers

app = typer.Typer()
_log = structlog.get_logger(__name__)

READY_SECONDS = 60.0
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
    if _running(settings) is not None:
        raise UsageError("Tocsin is up already.", fix="`tocsin status` shows it, `tocsin down` ends it.")
    settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    log = settings.data_dir / "up.log"
    command = [sys.executable, "-m", "tocsin_console", "up"]
    if processes is not None:
        command += ["--processes", str(processes)]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if _running(settings) == process.pid and _has_workers(settings):
            say(f"Tocsin is up (process {process.pid}). It logs to {log}.")
            return
        time.sleep(0.2)
    raise TocsinError(f"Tocsin did not come up. {_last_words(log)}", fix=f"The whole story is in {log}.")


def _has_workers(settings: Settings) -> bool:
    async def look(url: str) -> bool:
        async with connect(url) as connection:
            return bool(await read_workers(connection))

    try:
        with ledger_url(settings, migrated=False) as url:
            return run_to_end(look(url))
    except TocsinError:
        return False


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("tocsin: ")), "").removeprefix("tocsin: ")


@contextmanager
def _only_one(settings: Settings) -> Generator[None]:
    """Hold the file that says who is up, for as long as we are. Raises UsageError where somebody else is."""
    settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    with _pid_file(settings).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError("Tocsin is up already.", fix="`tocsin status` shows it, `tocsin down` ends it.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def _running(settings: Settings) -> int | None:
    """Give the process that is up here; None where the file is not locked, whatever stands in it."""
    try:
        with _pid_file(settings).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def _pid_file(settings: Settings) -> Path:
    return settings.data_dir / "up.pid"
