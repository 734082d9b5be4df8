"""What the documentation tells to type is taken: by the command line, by make, by the programs of bench/."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest
import typer
from typer.exceptions import TyperException

from tests.docs_blocks import PAGES, ROOT, SHELL, blocks, commands, inline_code, shell_text
from tests.typed_commands import take_command
from tocsin_console.command_table import ENTRIES, load

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

#: What a reader fills in. A word in capitals that is not among these is the name of something, and stands as it is.
FILLED_IN = {
    "A": "a@campus.example", "ADDRESS": "a@campus.example", "CLIENT": "99999999-8888-4777-8666-555555555555",
    "DATE": "2099-01-01", "F": "file", "FILE": "file", "HOST": "mail.example", "ID": "12", "IDENTITY": "12", "M": "a",
    "N": "5", "PATH": "file", "T": "2099-01-01T08:00:00Z", "TENANT": "11111111-8888-4777-8666-555555555555",
    "TIME": "2099-01-01T08:00:00Z", "URL": "https://sso.example/token",
}  # fmt: skip
#: Values of an option that are another one's placeholder.
BY_OPTION = {
    "--template": "loan", "--tenant-id": FILLED_IN["TENANT"], "--expires-at": FILLED_IN["TIME"],
    "--send-after": FILLED_IN["TIME"], "--id": FILLED_IN["CLIENT"],
}  # fmt: skip
SCOPES_OF_A_SHELL = ("sudo", "env", "export")
OPENERS = re.compile(r"^[A-Z_]+=")
ITEM = re.compile(r"[-*] |\d+\. ")


def words_of_tocsin(words: list[str]) -> list[str] | None:
    """Give what follows `tocsin` in a command, also in one that runs it elsewhere; None where it is none."""
    rest = list(words)
    while rest and (OPENERS.match(rest[0]) or rest[0] in SCOPES_OF_A_SHELL):
        rest.pop(0)
    if rest[:1] == ["tocsin"]:
        return rest[1:]
    if rest[:2] in (["docker", "compose"], ["kubectl", "exec"]) and "tocsin" in rest:
        return rest[rest.index("tocsin") + 1 :]
    return None


def tocsin_in_blocks() -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for page in PAGES:
        for block in blocks(page):
            if block.language in SHELL:
                for command in commands(block.text):
                    words = words_of_tocsin(command)
                    if words is not None:
                        found.append((block.where, words))
    return found


def tocsin_inline() -> list[tuple[str, list[str]]]:
    """Give commands that prose names; brackets and alternatives of a synopsis are read as one way to fill them in."""
    found: list[tuple[str, list[str]]] = []
    for page in PAGES:
        for code in inline_code(page):
            if code.startswith("tocsin ") and not code.endswith(("…", "_")):
                plain = re.sub(r"\[(-[^\]]*)\]", r"\1", code).replace(" …", "").replace("…", "")
                command = next(commands(re.sub(r"(?<=[a-z])\|[a-z|]+", "", plain)))
                found.append((f"{page.relative_to(ROOT)}: {code}", command[1:]))
    return found


IN_BLOCKS = tocsin_in_blocks()
INLINE = tocsin_inline()

command_of = cache(load)


def filled_in(words: list[str]) -> list[str]:
    """Put something in the place of what the reader fills in."""
    return [
        BY_OPTION.get(before, FILLED_IN.get(word, word)) if word.isupper() or word.startswith("$") else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def trouble_with(where: str, words: list[str], *, is_prose: bool) -> str | None:
    """Say what is wrong with a command; None where it is taken. Prose may name a command without what it needs."""
    if words[0] not in {entry.name for entry in ENTRIES}:
        return f"{where}: there is no command {words[0]}"
    if is_prose and is_name(words):
        return None
    try:
        take_command(filled_in(words))
    except (TyperException, typer.Exit, StopIteration) as error:
        if is_prose and type(error).__name__ == "MissingParameter":
            return None
        return f"{where}: tocsin {shlex.join(words)}: {error}"
    return None


def is_name(words: list[str]) -> bool:
    """Whether prose names a command, or a group of them, and nothing else."""
    members = getattr(command_of(words[0]), "commands", {})
    return len(words) == 1 or (len(words) == 2 and words[1] in members)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_command_line_takes_what_a_page_tells_to_type(page: Path) -> None:
    name = f"{page.relative_to(ROOT)}:"
    found = [trouble_with(*told, is_prose=False) for told in IN_BLOCKS if told[0].startswith(name)]
    found += [trouble_with(*told, is_prose=True) for told in INLINE if told[0].startswith(name)]
    assert [trouble for trouble in found if trouble is not None] == []


def test_shell_is_read_as_a_shell_would() -> None:
    shell = """\
A=1 tocsin send --subject "two words" \\
    --to "$(tocsin job list)" < list.csv | tee out    # and so on
cat > text <<END
tocsin nonsense
END
(umask 077; tocsin key init)
"""
    assert list(commands(shell)) == [
        ["A=1", "tocsin", "send", "--subject", "two words", "--to", "$(tocsin job list)"],
        ["tee", "out"],
        ["tocsin", "job", "list"],
        ["cat"],
        ["umask", "077"],
        ["tocsin", "key", "init"],
    ]


def test_a_wrong_command_would_be_found() -> None:
    for words in (["job", "shwo"], ["job", "show", "JOB", "--nonsense"], ["job", "list", "--state", "nonsense"]):
        assert trouble_with("here", words, is_prose=False)
        assert trouble_with("here", words, is_prose=True)
    assert trouble_with("here", ["profile", "add", "news"], is_prose=False)
    assert trouble_with("here", ["nonsense"], is_prose=True)


def test_every_kind_of_command_is_among_them() -> None:
    told = {tuple(words[:2]) for _, words in IN_BLOCKS}
    for command in (
        ("up", "--detach"), ("oauth", "add"), ("oauth", "check"), ("profile", "add"), ("profile", "check"),
        ("job", "retry"), ("job", "settle"), ("job", "cancel"), ("key", "rotate"), ("suppression", "add"),
    ):  # fmt: skip
        assert command in told


def test_what_is_to_be_made_can_be_made() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {
        word
        for page in PAGES
        for command in [*commands(shell_text(page)), *(inline.split() for inline in inline_code(page))]
        for word in command[1:]
        if command[0] == "make" and re.fullmatch(r"[a-z-]+", word)
    }
    assert {"demo", "test"} <= told
    assert told <= targets


def test_programs_of_the_project_take_the_flags_that_are_told() -> None:
    told = [command for page in [*PAGES, ROOT / "bench" / "README.md"] for command in commands(shell_text(page))]
    ours = [
        command[2:]
        for command in told
        if command[0].endswith(("python", "python3")) and command[1:2] == ["-m"] and command[2].startswith("bench.")
        # A synopsis is no command.
        if not any("[" in word for word in command)
    ]
    assert any(command[0] == "bench.throughput" for command in ours)
    program = (
        "import argparse, json, runpy, sys\n"
        "class Read(Exception): pass\n"
        "read = argparse.ArgumentParser.parse_args\n"
        "def stop(self, *given):\n"
        "    read(self, *given)\n"
        "    raise Read\n"
        "argparse.ArgumentParser.parse_args = stop\n"
        "for module, *flags in json.loads(sys.argv[1]):\n"
        "    sys.argv = [module, *flags]\n"
        "    try:\n"
        "        runpy.run_module(module, run_name='__main__')\n"
        "    except Read:\n"
        "        print(module)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, json.dumps(ours)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [command[0] for command in ours]


def test_every_alert_has_its_runbook() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "alerts.rules.yml").read_text(encoding="utf-8")
    alerts = set(re.findall(r"^\s*- alert: (\w+)", rules, re.MULTILINE))
    page = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert alerts
    assert set(sections) == alerts
    for alert, section in sections.items():
        for part in ("**Means.**", "**Urgent.**", "**Look.**", "**Do.**", "**Clears**"):
            assert part in section, f"{alert} lacks {part}"


def test_sizing_reckons_with_the_figures_that_were_measured() -> None:
    measured = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    lines = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8").splitlines()
    quoted = {
        figure
        for line in lines
        for before in line.split("([performance](performance.md))")[:-1]
        for figure in re.findall(r"\d+,\d{3}", before)
    }
    assert quoted
    assert {figure for figure in quoted if figure not in measured} == set()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_reads_the_same_as_a_site_and_in_the_repository(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    is_code = False
    for before, line in zip(["", *lines], lines, strict=False):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            # Markdown's dialects part here: four spaces continue a list's item in both.
            assert not (before == "" and re.match(r" {1,3}\S", line)), f"indented by less than four spaces: {line[:60]}"
            begins_list = ITEM.match(line) and re.match(r"\w| {4}", before) and not ITEM.match(before)
            assert not begins_list, f"a list that no empty line stands before: {line[:60]}"
