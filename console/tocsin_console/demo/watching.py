"""Progress of several jobs at once: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tocsin_console.output import say
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.errors import TocsinError, UsageError
from tocsin_schema.ledger.job_reading import Job, read_job

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_BETWEEN_LINES = 2.0

Show = Callable[[int, Job], None]


def watch_jobs(ids: Sequence[str], titles: Sequence[str], *, timeout_seconds: float) -> list[Job]:
    """Watch jobs until all have ended; give them as they ended. Raises TocsinError when the time is over."""

    async def watch(session: Session) -> list[Job]:
        deadline = time.monotonic() + timeout_seconds
        with _progress(titles) as show:
            while True:
                jobs = [job for job in [await _read(session, name) for name in ids] if job is not None]
                for place, job in enumerate(jobs):
                    show(place, job)
                if len(jobs) == len(ids) and not any(job.shown.state.is_open for job in jobs):
                    return jobs
                if time.monotonic() > deadline:
                    raise TocsinError(
                        f"The jobs did not end within {timeout_seconds:.0f} s.", fix="See `tocsin status`."
                    )
                await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    return in_session(watch)


async def _read(session: Session, name: str) -> Job | None:
    try:
        return await read_job(session.connection, name)
    except UsageError:
        return None  # still on its way to intake
    finally:
        await session.connection.commit()


@contextmanager
def _progress(titles: Sequence[str]) -> Generator[Show]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(titles)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=8) as bars:
        tasks = [bars.add_task(title, total=None) for title in titles]

        def redraw(place: int, job: Job) -> None:
            bars.update(tasks[place], completed=job.settled, total=job.total or None)

        yield redraw


class _Lines:
    def __init__(self, titles: Sequence[str]) -> None:
        self._titles = titles
        self._shown: dict[int, tuple[int, float]] = {}

    def __call__(self, place: int, job: Job) -> None:
        now = time.monotonic()
        settled, at = self._shown.get(place, (-1, float("-inf")))
        ended = not job.shown.state.is_open
        if settled == job.settled or (now - at < SECONDS_BETWEEN_LINES and not ended):
            return
        self._shown[place] = (job.settled, now)
        say(f"{self._titles[place]}: {job.settled:,} of {job.total:,}")
