"""`tocsin up` and `down`: everything on one machine, in the background and in front."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.ports import free_port
from tocsin_console.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOCSIN = [sys.executable, "-m", "tocsin_console"]

#: `tocsin up --detach` that tells at once what is missing, and waits no longer then.
UP_WITHOUT_PATIENCE = """
import sys
from tocsin_console.commands import up
from tocsin_console.main import main
say = up.say
def say_and_give_up(text):
    say(text)
    up.READY_SECONDS = 0.0
up.say, up.TOLD_AFTER_SECONDS = say_and_give_up, 0.0
sys.exit(main(["up", "--detach"]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    tmp_path.chmod(0o711)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    environment = {
        **inherited,
        "TOCSIN_DATA_DIR": str(tmp_path / "data"),
        "TOCSIN_METRICS_PORT": str(free_port()),
        "TOCSIN_WORKER_PROCESSES": "1",
    }
    yield environment
    run(environment, "down")


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOCSIN, *arguments],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def status(environment: dict[str, str]) -> dict[str, Any]:
    return json.loads(run(environment, "status", "--json").stdout)


def test_up_in_the_background_has_workers_is_refused_twice_and_down_ends_them(environment: dict[str, str]) -> None:
    assert run(environment, "up", "--detach").returncode == 0
    assert status(environment)["workers"][0]["processes"] == 1
    again = run(environment, "up")
    assert again.returncode == 2
    assert "up already" in again.stderr
    ended = run(environment, "down")
    assert ended.returncode == 0, ended.stderr
    assert status(environment)["workers"] == []
    ended = run(environment, "down")
    assert ended.returncode == 0
    assert "not up" in ended.stderr


def test_up_that_cannot_come_up_says_why(environment: dict[str, str], tmp_path: Path) -> None:
    ended = run({**environment, "TOCSIN_METRICS_PORT": "1", "TOCSIN_METRICS_HOST": "203.0.113.1"}, "up", "--detach")
    assert ended.returncode == 1
    assert "TOCSIN_METRICS_PORT" in ended.stderr
    log = (tmp_path / "data" / "up.log").read_text()
    assert "Traceback" not in log
    assert "is up." not in log


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_up_in_front_ends_in_good_order_at_ctrl_c_and_says_so_as_it_logs(
    environment: dict[str, str], log_format: str
) -> None:
    with subprocess.Popen(
        [*TOCSIN, "up"], env={**environment, "TOCSIN_LOG_FORMAT": log_format},
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        said: list[str] = []
        while not said or "worker process ready" not in said[-1]:
            said.append(next(running.stderr))
        running.send_signal(signal.SIGINT)
        said += running.communicate(timeout=PATIENCE_SECONDS)[1].splitlines()
    assert running.returncode == 0
    told = [json.loads(line)["event"] for line in said] if log_format == "json" else said
    for words in ("Tocsin is up.", "Finishing what is in hand, 20 s at most; Ctrl-C again ends at once.", "is down."):
        assert any(words in line for line in told), said


@pytest.mark.parametrize("command", [["up"], ["up", "--detach"], ["down"]])
def test_a_data_directory_that_cannot_be_used_is_told_in_words(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], logging_as_before: None
) -> None:
    del logging_as_before
    monkeypatch.setenv("TOCSIN_DATA_DIR", f"{os.devnull}/x")
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f"Tocsin cannot use {os.devnull}/x" in said
    assert "Not a directory. Make that possible, or set TOCSIN_DATA_DIR" in said


def test_what_the_workers_wait_for_is_told_and_not_what_an_earlier_run_said(
    environment: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    environment |= {"TOCSIN_DATABASE_URL": database_url, "TOCSIN_MASTER_KEY": "x"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "up.log").write_text("tocsin: Port 9191 cannot be used.\n")
    ended = subprocess.run(
        [sys.executable, "-c", UP_WITHOUT_PATIENCE],
        env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    process_id = (tmp_path / "data" / "up.pid").read_text()
    assert f"Process {process_id} runs, but has no workers yet: Line 1 of the master keys" in ended.stderr
    assert "Port 9191" not in ended.stderr
    again = run(environment, "up", "--detach")
    assert again.returncode == 2
    assert f"up already (process {process_id}), but has no workers yet: Line 1 of the master keys" in again.stderr


def test_one_that_ends_without_a_word_is_not_given_the_last_words_of_an_earlier_one(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "up.log").write_text("tocsin: Port 9191 cannot be used.\n")
    with_silent_child = "import sys; sys.executable = sys.argv[1]; " + UP_WITHOUT_PATIENCE.replace("\n", "", 1)
    ended = subprocess.run(
        [sys.executable, "-c", with_silent_child, shutil.which("false") or "false"],
        env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Tocsin did not come up. It did not say why." in ended.stderr


def test_ctrl_c_ends_what_was_not_up_yet(environment: dict[str, str], database_url: str) -> None:
    environment |= {"TOCSIN_DATABASE_URL": database_url, "TOCSIN_MASTER_KEY": "x"}
    with subprocess.Popen(
        [*TOCSIN, "up", "--detach"], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert "No workers yet: Line 1 of the master keys" in next(running.stderr)
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=PATIENCE_SECONDS)[1]
    assert running.returncode == 130
    assert "Tocsin is down." in said
    assert "not up" in run(environment, "down").stderr
