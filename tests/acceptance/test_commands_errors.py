"""Exit codes, help, and what a person reads when something is wrong."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import CommandLine, seed_job, start
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_console import main as console
from tocsin_console.command_table import ENTRIES, load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PASSWORD = "pw~of~postgres"


def leaves(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in getattr(group, "commands", {}).items():
        if getattr(command, "commands", None):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = sorted(
    (entry.name, *path) for entry in ENTRIES for path in (leaves(load(entry.name)) if entry.is_group else [()])
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.main((*command, "--help")) == 0
    out = capsys.readouterr().out
    assert "Example" in out
    assert f"tocsin {' '.join(command)}" in out.split("Example", 1)[1]


def test_the_version_is_printed(tocsin: CommandLine) -> None:
    assert tocsin.ok("--version").out.startswith("tocsin ")


@pytest.mark.parametrize("arguments", [("nonsense",), ("job", "show"), ("job", "list", "--limit", "0"), ("job", "--x")])
def test_wrong_usage_ends_with_2_and_says_nothing_on_standard_output(
    tocsin: CommandLine, arguments: tuple[str, ...]
) -> None:
    outcome = tocsin(*arguments)
    assert outcome.code == 2
    assert outcome.raw == b""
    assert "Error:" in outcome.errors


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"postgresql://tocsin:{PASSWORD}@127.0.0.1:1/tocsin", "cannot be reached"),
        (f"postgresql://tocsin:{PASSWORD}@[::1/tocsin", "TOCSIN_DATABASE_URL"),
        (f"postgresql://tocsin:{PASSWORD}@host:5432/db?nonsense=1", "cannot be read"),
        (f"mysql://tocsin:{PASSWORD}@host/db", "TOCSIN_DATABASE_URL"),
        (f"postgresql://tocsin:geh/{PASSWORD}@127.0.0.1:1/tocsin", "/ as %2F"),
    ],
)
def test_a_ledger_that_cannot_be_used_is_one_line_with_exit_1_and_no_password(
    tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch, url: str, told: str
) -> None:
    monkeypatch.setenv("TOCSIN_DATABASE_URL", url)
    outcome = tocsin("job", "list", "--json")
    assert outcome.code == 1
    assert outcome.raw == b""
    assert outcome.errors.startswith("tocsin: ")
    assert outcome.errors.count("\n") == 1
    assert told in outcome.errors
    assert PASSWORD not in outcome.errors


def test_a_defect_of_ours_is_one_line_that_names_where_the_details_are(
    tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("tocsin_console.commands.job.in_session", break_down)
    outcome = tocsin("job", "list")
    log = tocsin.data_dir / "tocsin-errors.log"
    assert outcome.code == 1
    assert "Traceback" not in outcome.errors
    assert str(log) in outcome.errors
    assert "ZeroDivisionError: inside" in log.read_text()
    assert "Traceback" in tocsin("--debug", "job", "list").errors


def test_ctrl_c_ends_quietly_with_130(tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tocsin_console.commands.job.in_session", interrupt)
    outcome = tocsin("job", "list")
    assert outcome.code == 130
    assert outcome.errors == ""


def test_ctrl_c_while_watching_leaves_the_job_alone_and_no_traceback(tocsin: CommandLine, tmp_path: Path) -> None:
    tocsin.ok("profile", "add", "news", "--provider", "custom", "--host", "h.example.org", "--from", "n@example.org")
    job = seed_job(tocsin, "news", batches=["p"])
    process = start("job", "watch", str(job.id))
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "0 of 1 done; waiting for a worker" in first
    assert "The job goes on" in rest
    assert "Traceback" not in rest
    assert tocsin.rows("SELECT state FROM jobs") == [("running",)]


def test_a_reader_that_stops_reading_ends_a_long_list_without_a_traceback(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", "--provider", "custom", "--host", "h.example.org", "--from", "n@example.org")
    job = seed_job(tocsin, "news", batches=["s" * 100] * 60)
    process = start("job", "recipients", str(job.id), "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=PATIENCE_SECONDS) in (0, 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirected", "code", "told"),
    [
        (">/dev/full", 1, "tocsin: The answer could not be written to standard output: No space left on device.\n"),
        (">&-", 1, "tocsin: Standard output is closed, so there is nowhere to put an answer. Nothing was done.\n"),
        ("2>&-", 0, ""),
        ("| true", 0, ""),
    ],
)
def test_an_answer_that_cannot_be_written_is_one_line_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, redirected: str, code: int, told: str, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    ended = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} -m tocsin_console --version {redirected}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (code, told)


def test_a_master_key_that_is_another_one_is_told_apart_from_a_missing_one(tocsin: CommandLine, tmp_path: Path) -> None:
    (tocsin.data_dir / "master.key").write_text("not a key")
    outcome = tocsin("setting", "set", "EmailPassword", "--host", "h.example.org", "--value-file", "-", stdin=b"x")
    assert outcome.code == 1
    assert "master key file" in outcome.errors
    assert "not a key" not in outcome.errors


def test_what_is_wrong_is_said_in_plain_words(tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, told in (
        (("oauth", "add", "x", "--provider", "yahoo"), "'yahoo' is not one of"),
        (("setting", "set", "EmailPassword", "--host", "h.example.org"), "ask for the value of EmailPassword on."),
    ):
        outcome = tocsin(*arguments)
        assert outcome.code == 2
        assert told in outcome.errors
        assert "Value error" not in outcome.errors
    monkeypatch.setenv("TOCSIN_DATABASE_URL", "mysql://host/db")
    assert "Value error" not in tocsin("job", "list").errors
