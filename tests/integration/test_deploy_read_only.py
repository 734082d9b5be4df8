"""A worker as the image runs it: nothing but /tmp to write to, a user without a name, secrets in files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.deploy_files import image_environment, last_stage
from tests.servers import read_only
from tests.servers.availability import Unavailable, or_skip
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.ports import free_port
from tocsin_console.embedded.account import Account, can_enter
from tocsin_schema.sealing import write_new_key_file
from tocsin_workers.supervising.endpoints import READINESS_PATH, START_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = int(last_stage("USER")[0].text.split(":")[0])
LAUNCHER = Path(read_only.__file__)


@pytest.fixture
def container() -> Iterator[Path]:
    """What a container would have: `tmp`, which can be written to, and `secrets`, which cannot."""
    or_skip(
        LAUNCHER
        if read_only.landlock_version() >= read_only.VERSION_NEEDED
        else Unavailable("this kernel's Landlock cannot forbid writing (Linux 6.2 or newer)")
    )
    place = Path(tempfile.mkdtemp(prefix="tocsin-test-container-"))
    place.chmod(0o755)
    (place / "secrets").mkdir()
    (place / "tmp").mkdir()
    (place / "tmp").chmod(0o1777)
    yield place
    shutil.rmtree(place)


def environment(container: Path, database_url: str) -> dict[str, str]:
    """What the image sets, with the container's places in the place of /tmp and /run/secrets."""
    secrets = container / "secrets"
    (secrets / "database_url").write_text(f"{database_url}\n")
    write_new_key_file(secrets / "master_key")
    for file in secrets.iterdir():
        if os.geteuid() == 0:
            os.chown(file, 0, USER)  # as Kubernetes does with fsGroup
        file.chmod(0o440)
    ours = image_environment()
    return {
        **{name: value.replace("/tmp", str(container / "tmp")) for name, value in ours.items() if name != "PATH"},
        "PATH": os.environ["PATH"],
        "TMPDIR": str(container / "tmp"),
        "TOCSIN_METRICS_HOST": "127.0.0.1",
        "TOCSIN_METRICS_PORT": str(free_port()),
        "TOCSIN_DATABASE_URL_FILE": str(secrets / "database_url"),
        "TOCSIN_MASTER_KEY_FILE": str(secrets / "master_key"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }


def confined(container: Path, *command: str) -> list[str]:
    # Under root as the image's user, where that one can reach Python and the code.
    needed = (Path(sys.prefix), Path(sys.executable).resolve().parent, LAUNCHER.parent)
    is_open = all(can_enter(Account("tocsin", USER, USER), place) for place in needed)
    user = ["--user", str(USER)] if is_open else []
    return [sys.executable, str(LAUNCHER), *user, str(container / "tmp"), sys.executable, *command]


def test_whoever_is_confined_can_write_nowhere_else(container: Path):
    tries = "import sys; open(sys.argv[1], 'w')"
    for place, code in ((container / "tmp" / "file", 0), (container / "file", 1), (container / "secrets" / "file", 1)):
        ended = subprocess.run(
            confined(container, "-c", tries, str(place)), capture_output=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert ended.returncode == code, ended.stderr


def test_a_worker_starts_and_stops_with_nothing_but_tmp_to_write_to(container: Path, database_url: str):
    variables = environment(container, database_url)
    log = container / "log"
    command = confined(container, "-m", "tocsin_console", "worker", "--role", "all", "--processes", "1")
    with log.open("wb") as output:
        worker = subprocess.Popen(command, env=variables, cwd="/", stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_healthy(worker, variables, log)
    finally:
        worker.terminate()
        code = worker.wait(PATIENCE_SECONDS)
    assert code == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def wait_until_healthy(worker: subprocess.Popen[bytes], variables: dict[str, str], log: Path) -> None:
    """Ask by the image's own health check, and by the other paths that Kubernetes asks."""
    [check] = last_stage("HEALTHCHECK")
    url = f"http://127.0.0.1:{variables['TOCSIN_METRICS_PORT']}"
    deadline = time.monotonic() + PATIENCE_SECONDS
    answers: list[httpx.Response] = []
    while not answers or any(answer.status_code != 200 for answer in answers):
        assert worker.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"{[answer.text for answer in answers]} {log.read_text()}"
        time.sleep(0.1)
        asked = subprocess.run([sys.executable, *check.words[1:]], env=variables, capture_output=True, check=False)
        if asked.returncode == 0:
            answers = [httpx.get(f"{url}{path}", trust_env=False) for path in (START_PATH, READINESS_PATH)]


def test_a_migration_runs_with_nothing_but_tmp_to_write_to(container: Path, empty_database_url: str):
    variables = environment(container, empty_database_url)
    for step in ("--before", "--after"):
        command = confined(container, "-m", "tocsin_console", "migrate", step)
        ended = subprocess.run(
            command, env=variables, cwd="/", capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert ended.returncode == 0, ended.stderr
