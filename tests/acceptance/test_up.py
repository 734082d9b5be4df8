"""`tocsin up` and `down`: everything on one machine, in the background and in front."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.installation import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOCSIN = [sys.executable, "-m", "tocsin_console"]


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
        said += running.communicate(timeout=60)[1].splitlines()
    assert running.returncode == 0
    told = [json.loads(line)["event"] for line in said] if log_format == "json" else said
    for words in ("Tocsin is up.", "Finishing what is in hand, 20 s at most; Ctrl-C again ends at once.", "is down."):
        assert any(words in line for line in told), said
