"""Counting what passes, for a person who waits: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tocsin_console.output import say

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

Item = TypeVar("Item")

_STEP = 1000
_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def counting(doing: str, total: int | None = None) -> Generator[Callable[[int], None]]:
    """Give what is told how many have passed; `doing` says what happens to them."""
    if not sys.stderr.isatty():
        yield _lines(doing, total)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda passed: bar.update(task, completed=passed)


def passing(items: Iterable[Item], report: Callable[[int], None]) -> Iterator[Item]:
    """Yield the items, and report every thousandth."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % _STEP == 0:
            report(number)


def _lines(doing: str, total: int | None) -> Callable[[int], None]:
    last = time.monotonic()

    def report(passed: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{doing}: {passed:,}" + (f" of {total:,}" if total is not None else ""))

    return report
