"""What the command prints, and how it keeps a terminal safe.

Answers go to standard output, in one of three dresses: JSON (one object a line), a table on a terminal, plain
tab-separated lines elsewhere. Everything else (confirmations, advice, progress) goes to standard error, so that
`--json` output holds JSON and nothing but.

Most of what is shown was written by somebody else: subjects, replies of mail servers, job keys. It passes through
`harmless` before it reaches a terminal.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Cell = str | int | datetime | UUID | None

_NOTHING = "-"
_BEFORE_OPTIONS = re.compile(r" (?=--|[<>] )")
# What 80 columns leave beside the help's indentation and a backslash.
_EXAMPLE_COLUMNS = 74
# Joiners belong to ordinary writing (Persian, emoji); the other format characters can turn text around or hide it.
_JOINERS = {"\u200c", "\u200d"}
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def harmless(text: str) -> str:
    """Escape what could steer a terminal or mislead its reader: control, format and direction characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _is_unsafe(character) else character for character in text)


def harmless_lines(text: str) -> str:
    """Do as `harmless` does, but keep line ends, for texts that are shown as a block."""
    return "\n".join(harmless(line) for line in text.replace("\r\n", "\n").split("\n"))


def moment(value: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the second, as people read it in tables."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON object on a line of its own.

    Only ASCII is written and the rest escaped, so a piped and a displayed object are equally harmless.
    """
    sys.stdout.write(json.dumps(value, default=_json_value, separators=(", ", ": ")) + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print rows: a table on a terminal, tab-separated lines with one line of headings elsewhere."""
    if not sys.stdout.isatty():
        print_line(headings)
        for row in rows:
            print_line(row)
        return
    from rich.console import Console  # noqa: PLC0415  # slow to load, and of no use but here
    from rich.table import Table  # noqa: PLC0415  # the same
    from rich.text import Text  # noqa: PLC0415  # the same

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")  # an id that is cut short is of no use
    for row in rows:
        table.add_row(*(Text(_as_text(cell)) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)


def print_line(cells: Sequence[Cell]) -> None:
    """Print one tab-separated line; for answers that are too long to be held as a table."""
    sys.stdout.write("\t".join(_as_text(cell) for cell in cells) + "\n")


def print_facts(facts: Iterable[tuple[str, Cell]]) -> None:
    """Print what is known of one thing, a fact a line."""
    known = list(facts)
    width = max((len(label) for label, _ in known), default=0) + 1
    for label, value in known:
        sys.stdout.write(f"{f'{label}:':<{width}} {_as_text(value)}\n")


def print_block(heading: str, text: str) -> None:
    """Print a text of several lines under its heading."""
    sys.stdout.write(f"\n{heading}:\n{harmless_lines(text)}\n")


def print_whole_states(states: Mapping[str, str]) -> None:
    """Print, below a table, the states of which it has room for the beginning only."""
    for name, state in states.items():
        if brief_state(state)[1] is not None:
            sys.stdout.write(f"{harmless(name)}: {harmless(state)}\n")


def print_bytes(content: bytes) -> None:
    """Write bytes exactly as they are, for `--raw`."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Tell the person something that is not the answer: on standard error, made harmless."""
    sys.stderr.write(harmless_lines(text) + "\n")
    sys.stderr.flush()


def is_somebody_there() -> bool:
    """Whether a person sits at the terminal who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agrees(question: str) -> bool:
    """Ask a person at the terminal; anything but a yes is a no, Ctrl-D too. Ctrl-C raises KeyboardInterrupt."""
    sys.stderr.write(f"{harmless(question)} [y/N]: ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
    return answer.strip().lower() in {"y", "yes"}


def examples(*commands: str) -> str:
    """Write the examples that stand at the end of a command's `--help`."""
    # \b keeps the lines of a paragraph as they are.
    heading = "Example:" if len(commands) == 1 else "Examples:"
    return "\b\n" + "\n".join([heading, *(f"  {_folded(command)}" for command in commands)])


def brief_state(state: str) -> tuple[str, str | None]:
    """Give a state as a cell of a table has room for it, and whole where there is more of it: `paused: why`."""
    brief, colon, _ = state.partition(": ")
    return brief, state if colon else None


def counted(number: int, one: str, several: str | None = None) -> str:
    """Write a number with its noun: `1 recipient`, `50 recipients`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def listed(values: Iterable[str], show: Callable[[str], str] = harmless) -> str:
    """Write names one after the other: `a, b, c`."""
    return ", ".join(show(value) for value in values)


def _folded(command: str) -> str:
    """Write a command on several lines where it is too long for a terminal, broken before its options."""
    ends = " \\" if command.endswith(" \\") else ""
    first, *pieces = _BEFORE_OPTIONS.split(command.removesuffix(" \\"))
    lines = [first]
    for piece in pieces:
        if len(lines[-1]) + len(piece) < _EXAMPLE_COLUMNS:
            lines[-1] += f" {piece}"
        else:
            lines.append(f"       {piece}")
    return " \\\n  ".join(lines) + ends


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE_CATEGORIES and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _as_text(cell: Cell) -> str:
    match cell:
        case None | "":
            return _NOTHING
        case datetime():
            return moment(cell)
        case _:
            return harmless(str(cell))


def _json_value(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")
