"""The account of all rounds as a table, and its place in the docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.servers.faults.kinds import Doubling, doubling, explanation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.servers.faults.kinds import Fault
    from tests.servers.faults.report import Report

_COLUMNS = (
    "fault",
    "times",
    "jobs",
    "recipients",
    "sent",
    "failed",
    "unknown",
    "lost",
    "duplicates",
    "at most allowed",
    "explained by",
)
_HEADER = (f"| {' | '.join(_COLUMNS)} |", f"|---|{'--:|' * (len(_COLUMNS) - 2)}---|")


@dataclass(frozen=True, slots=True)
class Line:
    """A round in the table: its faults, how often they struck all in all, and what came of it."""

    faults: tuple[Fault, ...]
    times: int
    report: Report


def render(lines: Iterable[Line]) -> str:
    """Give the table in Markdown."""
    return "\n".join((*_HEADER, *(_row(line) for line in lines)))


def replace_table(page: str, name: str, table: str) -> str:
    """Give a page with another table between the markers of that name. Raises ValueError where they are missing."""
    begin, end = f"<!-- {name} begins -->", f"<!-- {name} ends -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no markers {begin} and {end}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def write_table(file: Path, name: str, table: str) -> None:
    """Write the table anew into a page. Raises OSError and ValueError."""
    file.write_text(replace_table(file.read_text(encoding="utf-8"), name, table), encoding="utf-8")


def _row(line: Line) -> str:
    report = line.report
    numbers = (
        line.times,
        report.jobs,
        report.recipients,
        report.sent,
        report.failed,
        report.unknown,
        report.lost,
        report.duplicates,
        report.allowed,
    )
    cells = (" + ".join(line.faults), *(f"{number:,}" for number in numbers), _explained(line.faults, report))
    return f"| {' | '.join(cells)} |"


def _explained(faults: Sequence[Fault], report: Report) -> str:
    if not report.duplicates:
        return "nothing to explain"
    return "; ".join(dict.fromkeys(explanation(fault) for fault in faults if doubling(fault) is not Doubling.NONE))
