"""Every example in a command's help is a command line that the command takes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
from typer.exceptions import TyperException

from tocsin_console import commands
from tocsin_console.command_table import ENTRIES, load
from tocsin_console.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "tocsin"
COMMANDS_FOLDER = Path(commands.__file__).parent
COLUMNS = 80


def leaves(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that is no group, with the words that call it."""
    if command is None:
        for entry in ENTRIES:
            yield from leaves(load(entry.name), (entry.name,))
        return
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


EXAMPLES = [(path, command, line) for path, command in leaves() for line in command_lines(command.epilog or "")]


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
    assert [path for path, command in leaves() if not command_lines(command.epilog or "")] == []


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
        dict(leaves())[path].make_context(" ".join(path), rest)


def test_examples_fit_a_terminal() -> None:
    for path, command in leaves():
        context = command.make_context(" ".join(path), [], resilient_parsing=True)
        shown = command.get_help(context).partition("Example")[2].splitlines()
        assert [line for line in shown if len(line) > COLUMNS] == [], path


def test_the_help_lists_every_command_as_its_module_tells_it() -> None:
    stand_ins: Any = typer.main.get_command(app)
    assert list(stand_ins.commands) == [entry.name for entry in ENTRIES]
    for name, stand_in in stand_ins.commands.items():
        loaded = load(name)
        assert (loaded.name, loaded.get_short_help_str(1000)) == (name, stand_in.get_short_help_str(1000))
        assert stand_in.get_short_help_str(1000) == stand_in.help
    with_commands = {file.stem for file in COMMANDS_FOLDER.glob("*.py") if "typer.Typer(" in file.read_text()}
    assert with_commands == {entry.module for entry in ENTRIES}


def test_a_command_imports_its_own_module_only() -> None:
    call = "import sys; from tocsin_console.main import main; code = main({}); print(code, *sys.modules)"
    heavy = {"msal", "google.auth", "httpx", "authlib"}
    ours = {f"tocsin_console.commands.{entry.module}" for entry in ENTRIES}
    for arguments, expected in ((["--help"], set()), (["job", "show", "--help"], {"tocsin_console.commands.job"})):
        ended = subprocess.run(
            [sys.executable, "-c", call.format(arguments)],
            capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
        code, *modules = ended.stdout.splitlines()[-1].split(" ")
        assert code == "0"
        assert ours & set(modules) == expected
        assert heavy & set(modules) == set()


def test_an_example_is_read_as_a_shell_would() -> None:
    line = "A=/x tocsin key init --name 'two words' --file - < secret.txt > out"
    assert arguments_of(line) == ["key", "init", "--name", "two words", "--file", "-"]
