"""The code blocks and commands of README.md and docs/, as the tests of the documentation read them.

A shell block is fenced with `sh`. One that a test really runs has a comment on the line before it:

    <!-- run -->                run, in the order of the page, by tests/acceptance/test_docs_commands.py
    <!-- run last -->           the same, after everything else of all pages
    <!-- run: file.py -->       not a command but a file, which the test writes under that name
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = ("sh", "bash", "shell")

_FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,})(?P<language>\S*)")
_MARK = re.compile(r"^<!-- run(?P<how>.*?) *-->$")
_INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_HERE_DOCUMENT = re.compile(r"<<-?\s*'?(\w+)'?")
_OPERATORS = "|&;()<>"


@dataclass(frozen=True)
class Block:
    """A fenced block: of which page, at which line, in which language, and whether it is marked as one to run."""

    page: Path
    line: int
    language: str
    text: str
    mark: str | None
    """What the comment before it says after `run`; None where there is none."""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Give the fenced blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opened = _FENCE.match(lines[number])
        if opened is None:
            number += 1
            continue
        end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == opened["fence"])
        marked = _MARK.match(lines[number - 1].strip()) if number else None
        text = "\n".join(line.removeprefix(opened["indent"]) for line in lines[number + 1 : end])
        how = None if marked is None else marked["how"].strip(": ")
        yield Block(page, number + 1, opened["language"], text + "\n", how)
        number = end + 1


def shell_text(page: Path) -> str:
    """Give all shell of a page in one text: its fenced blocks, and what is indented as code."""
    fenced = [block for block in blocks(page) if block.language in SHELL]
    prose = _without_fences(page.read_text(encoding="utf-8"))
    return "\n".join([*(block.text for block in fenced), *(code[0] for code in _INDENTED.finditer(prose))])


def inline_code(page: Path) -> list[str]:
    """Give what stands between single backticks; a pipe that a table's cell escapes is one."""
    return [found.replace("\\|", "|") for found in _INLINE.findall(_without_fences(page.read_text(encoding="utf-8")))]


def commands(shell: str) -> Iterator[list[str]]:
    """Split shell text into simple commands, each a list of words. Redirections and assignments are left out."""
    for line in _whole_lines(shell):
        for piece in (line, *re.findall(r"\$\(([^()]*)\)", line)):
            yield from _commands_of(piece)


def _commands_of(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace_split = True
    words: list[str] = []
    is_target = False
    for word in lexer:
        if set(word) <= set(_OPERATORS):
            is_target = set(word) <= set("<>")
            if not is_target and words:
                yield words
                words = []
        elif is_target:
            is_target = False
        else:
            words.append(word)
    if words:
        yield words


def _whole_lines(shell: str) -> Iterator[str]:
    """Give lines that are whole: continued ones joined, quotes closed, here-documents and comments taken out."""
    waiting, until = "", None
    for line in shell.replace("\\\n", " ").splitlines():
        if until is not None:
            until = None if line.strip() == until else until
            continue
        waiting = f"{waiting}\n{line}" if waiting else line
        try:
            shlex.split(waiting, comments=True)
        except ValueError:
            continue  # a quote that is closed on a later line
        here = _HERE_DOCUMENT.search(waiting)
        until = here[1] if here else None
        if waiting.strip():
            yield waiting
        waiting = ""
    assert not waiting, f"a quote is not closed: {waiting}"


def _without_fences(text: str) -> str:
    kept: list[str] = []
    fence = None
    for line in text.splitlines():
        opened = _FENCE.match(line)
        if fence is not None:
            fence = None if line.strip() == fence else fence
        elif opened is not None:
            fence = opened["fence"]
        else:
            kept.append(line)
    return "\n".join(kept) + "\n"
