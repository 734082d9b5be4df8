"""Watching a job: its progress as a bar on a terminal, and as plain lines elsewhere, on standard error."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tocsin_console.output import harmless, moment, say
from tocsin_schema.ledger.job_reading import read_job

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.job_reading import Job

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LINES = 5.0


async def watch_job(
    connection: Connection, name: str, *, report: Callable[[Job], None], timeout_seconds: float | None = None
) -> Job:
    """Look at a job every second until it is finished or cancelled, or the time is up; give it as last seen.

    Each look is a transaction of its own, so that watching for hours holds nothing up. Raises UsageError where
    there is no such job.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        job = await read_job(connection, name)
        await connection.commit()
        report(job)
        if not job.shown.state.is_open or (deadline is not None and time.monotonic() >= deadline):
            return job
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


@contextmanager
def job_progress() -> Generator[Callable[[Job], None]]:
    """Give what shows a job's progress: a bar, or lines at every change and every few seconds."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), refresh_per_second=4) as bar:
        task = bar.add_task("", total=None)

        def redraw(job: Job) -> None:
            bar.update(task, description=harmless(state_line(job)), completed=job.settled, total=job.total or None)

        yield redraw


def state_line(job: Job) -> str:
    """Say in a few words what state a job is in, why, and until when."""
    shown = job.shown
    if shown.reason is not None and shown.reason.startswith((f"{shown.state.value} by ", f"{shown.state.value} for ")):
        return shown.reason  # "paused by ada: why" needs no "paused" before it, nor "waiting for a worker" a "waiting"
    reason = f" ({shown.reason})" if shown.reason else ""
    until = f" until {moment(shown.until)}" if shown.until else ""
    return f"{shown.state.value}{until}{reason}"


class _Lines:
    """Writes a line when the state changed or some seconds have gone by."""

    def __init__(self) -> None:
        self._last_state: str | None = None
        self._last_at = 0.0

    def __call__(self, job: Job) -> None:
        state, now = state_line(job), time.monotonic()
        if state == self._last_state and now - self._last_at < _SECONDS_BETWEEN_LINES:
            return
        self._last_state, self._last_at = state, now
        counts = ", ".join(f"{count:,} {name}" for name, count in job.counts.items())
        say(f"{job.settled:,} of {job.total:,} done; {state}; {counts or 'no recipients yet'}")
