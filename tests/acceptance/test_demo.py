"""The demo: the whole way on this machine, embedded and on servers, and nothing left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_console.main import main

if TYPE_CHECKING:
    from pathlib import Path

DEMO = [sys.executable, "-m", "tocsin_console", "demo"]


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    return {**inherited, "TMPDIR": str(home), **variables}


def processes_of(home: Path) -> list[psutil.Process]:
    """Processes whose environment or command names the demo's home."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            traces = [*process.cmdline(), process.environ().get("TMPDIR", "")]
        except psutil.Error:
            continue
        if any(str(home) in trace for trace in traces):
            found.append(process)
    return found


@pytest.fixture(params=["embedded", "servers"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Nothing but where temporary files go; or the two variables that switch to servers."""
    tmp_path.chmod(0o711)
    if request.param == "embedded":
        return clean_environment(tmp_path)
    return clean_environment(
        tmp_path,
        TOCSIN_DATABASE_URL=request.getfixturevalue("empty_database_url"),
        TOCSIN_BROKER_URL=request.getfixturevalue("broker_url"),
    )


def test_the_ledger_and_the_mail_server_agree_and_nothing_is_left(environment: dict[str, str], tmp_path: Path) -> None:
    ended = subprocess.run(DEMO, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "agree on all 10,995 deliveries, recipient by recipient" in ended.stdout
    assert "token requests:         1\n" in ended.stdout
    assert "evacuation\tshared\t10000\t10000\t0\t0" in ended.stdout
    assert "closed-office\tindividual\t1000\t995\t5\t0" in ended.stdout
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_interrupted_half_way_it_leaves_an_empty_directory_as_it_was(
    environment: dict[str, str], tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    given.chmod(0o755)
    with subprocess.Popen(
        [*DEMO, "--directory", str(given)],
        env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        next(line for line in running.stderr if line.startswith("$ tocsin send"))
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 130
    assert processes_of(tmp_path) == []
    assert list(tmp_path.rglob("*")) == [given]
    assert stat.S_IMODE(given.stat().st_mode) == 0o755


def test_data_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    home = tmp_path / "kept"
    environment = clean_environment(tmp_path)
    ended = subprocess.run(
        [*DEMO, "--keep", "--directory", "kept"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    looked = subprocess.run(
        [sys.executable, "-m", "tocsin_console", "job", "list"],
        env={**environment, "TOCSIN_DATA_DIR": str(home / "data")},
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert looked.returncode == 0, looked.stderr
    assert looked.stdout.count("finished") == 2
    assert processes_of(tmp_path) == []


def test_a_directory_in_use_is_refused_and_untouched(tmp_path: Path) -> None:
    installation = tmp_path / "installation"
    (installation / "data").mkdir(parents=True)
    (installation / "data" / "master.key").write_text("dear")
    installation.chmod(0o750)
    ended = subprocess.run(
        [*DEMO, "--directory", str(installation)],
        env=clean_environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "is not empty" in ended.stderr
    assert stat.S_IMODE(installation.stat().st_mode) == 0o750
    assert (installation / "data" / "master.key").read_text() == "dear"


@pytest.mark.parametrize("directory", [os.devnull, f"{os.devnull}/x"])
def test_a_directory_that_cannot_be_is_refused_in_words(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--directory", directory]) == 2
    assert f"The demo cannot use {directory}: Not a directory." in capsys.readouterr().err
