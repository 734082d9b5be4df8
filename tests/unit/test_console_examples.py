"""Every example in a command's help is a command line that the command takes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
from typer.exceptions import TyperException

from tocsin_console.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "tocsin"
ROOT: Any = typer.main.get_command(app)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that is no group, with the words that call it."""
    if not getattr(command, "commands", None):
        yield path, command
        return
    for name, member in command.commands.items():
        yield from leaves(member, (*path, name))


def command_lines(epilog: str) -> list[str]:
    """Give the examples of an epilog, each in one piece."""
    text = epilog.replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if PROGRAM in line]


def arguments_of(line: str) -> list[str]:
    """Give what the shell would hand to the program: no variables before it, no redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="<>|")
    lexer.whitespace_split = True
    words = list(lexer)
    redirections = {position for position, word in enumerate(words) if word in ("<", ">")}
    assert "|" not in words, "an example with a pipe is more than one command"
    kept = [
        word for position, word in enumerate(words) if position not in redirections and position - 1 not in redirections
    ]
    return kept[kept.index(PROGRAM) + 1 :]


EXAMPLES = [(path, command, line) for path, command in leaves(ROOT) for line in command_lines(command.epilog or "")]


@pytest.mark.parametrize(("path", "command", "line"), EXAMPLES, ids=[line for _, _, line in EXAMPLES])
def test_an_example_calls_its_own_command_with_words_that_it_takes(
    path: tuple[str, ...], command: Any, line: str
) -> None:
    arguments = arguments_of(line)
    assert tuple(arguments[: len(path)]) == path
    # Parsed in full (names, values, what is required, what is too much), and not run.
    context = command.make_context(" ".join(path), arguments[len(path) :])
    assert "help" not in context.params


def test_every_command_has_an_example() -> None:
    assert [path for path, command in leaves(ROOT) if not command_lines(command.epilog or "")] == []


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        (("job", "show"), []),
        (("job", "show"), ["12", "13"]),
        (("job", "list"), ["--no-such-option"]),
        (("job", "list"), ["--state", "nonsense"]),
        (("profile", "add"), ["news", "--provider", "nobody", "--from", "a@example.org"]),
    ],
    ids=["too little", "too much", "unknown option", "unknown value", "unknown choice"],
)
def test_a_wrong_example_would_be_found(path: tuple[str, ...], rest: list[str]) -> None:
    with pytest.raises(TyperException):
        dict(leaves(ROOT))[path].make_context(" ".join(path), rest)


def test_an_example_is_read_as_a_shell_would() -> None:
    line = "A=/x tocsin key init --name 'two words' --file - < secret.txt > out"
    assert arguments_of(line) == ["key", "init", "--name", "two words", "--file", "-"]
