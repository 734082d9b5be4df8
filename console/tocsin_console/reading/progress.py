"""Watching a job: its progress as a bar on a terminal, and as plain lines elsewhere, on standard error."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tocsin_console.output import harmless, moment, say
from tocsin_console.reading.estimate_words import estimate_line
from tocsin_schema.ledger.estimates import read_job_outlook
from tocsin_schema.ledger.job_reading import read_job
from tocsin_schema.ledger.job_states import standing_hold

if TYPE_CHECKING:
    from collections.abc import Generator

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.job_reading import Job


class Report(Protocol):
    """Shows how far a job is and, where that is known, when it will be through."""

    def __call__(self, job: Job, estimate: str | None = None) -> None:
        """Show it as it was just seen."""
        ...


_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_ESTIMATES = 10.0


async def watch_job(connection: Connection, name: str, *, report: Report, timeout_seconds: float | None = None) -> Job:
    """Look at a job every second until it is finished or cancelled, or the time is up; give it as last seen.

    Each look is a transaction of its own, so that watching for hours holds nothing up. Raises UsageError where
    there is no such job.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    estimate, estimated_at = None, float("-inf")
    while True:
        job = await read_job(connection, name)
        if time.monotonic() - estimated_at >= _SECONDS_BETWEEN_ESTIMATES:
            estimate, estimated_at = await _estimate(connection, job), time.monotonic()
        await connection.commit()
        report(job, estimate if job.shown.state.is_open else None)
        if not job.shown.state.is_open or (deadline is not None and time.monotonic() >= deadline):
            return job
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


async def _estimate(connection: Connection, job: Job) -> str | None:
    """Say when a job will be through, where that is known. What holds it back is told by its state."""
    if not job.shown.state.is_open:
        return None
    outlook = await read_job_outlook(connection, job.number, hold=standing_hold(job))
    if outlook is None or outlook.estimate is None or outlook.estimate.done_at is None:
        return None
    return estimate_line(outlook, expires_at=job.expires_at)


@contextmanager
def job_progress() -> Generator[Report]:
    """Give what shows a job's progress: a bar, or lines at every change and every few seconds."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), refresh_per_second=4) as bar:
        task = bar.add_task("", total=None)

        def redraw(job: Job, estimate: str | None = None) -> None:
            description = harmless(_state_and_estimate(job, estimate))
            bar.update(task, description=description, completed=job.settled, total=job.total or None)

        yield redraw


def state_line(job: Job) -> str:
    """Say in a few words what state a job is in, why, and until when."""
    shown = job.shown
    if shown.reason is not None and shown.reason.startswith((f"{shown.state.value} by ", f"{shown.state.value} for ")):
        return shown.reason  # "paused by ada: why" needs no "paused" before it, nor "waiting for a worker" a "waiting"
    reason = f" ({shown.reason})" if shown.reason else ""
    until = f" until {moment(shown.until)}" if shown.until else ""
    return f"{shown.state.value}{until}{reason}"


def _state_and_estimate(job: Job, estimate: str | None) -> str:
    """Write both as there is room for beside a bar: of the estimate only when, not why."""
    return state_line(job) if estimate is None else f"{state_line(job)}, through {estimate.partition(';')[0]}"


class _Lines:
    """Writes a line when the state changed or some seconds have gone by."""

    def __init__(self) -> None:
        self._last_state: str | None = None
        self._last_at = 0.0

    def __call__(self, job: Job, estimate: str | None = None) -> None:
        state, now = state_line(job), time.monotonic()
        if state == self._last_state and now - self._last_at < _SECONDS_BETWEEN_LINES:
            return
        self._last_state, self._last_at = state, now
        counts = ", ".join(f"{count:,} {name}" for name, count in job.counts.items())
        through = "" if estimate is None else f"; through {estimate}"
        say(f"{job.settled:,} of {job.total:,} done; {state}; {counts or 'no recipients yet'}{through}")
