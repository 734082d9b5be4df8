"""The Dockerfile, held against the tree that it is built from and the code that runs in it; it is not built here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from tests.deploy_files import (
    DOCKERFILE,
    PROJECT,
    ROOT,
    SETTINGS,
    dockerfile,
    image_environment,
    last_stage,
)
from tests.servers.patience import PATIENCE_SECONDS
from tests.typed_commands import take_command
from tocsin_schema.settings import Settings
from tocsin_workers.supervising.endpoints import LIVENESS_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)", re.MULTILINE)


def copied() -> list[str]:
    """What is copied from the tree."""
    return [
        source.rstrip("/").removeprefix("./")
        for one in dockerfile()
        if one.keyword == "COPY" and not one.text.startswith("--from")
        for source in one.text.split()[:-1]
    ]


def runs() -> str:
    return "\n".join(one.text for one in dockerfile() if one.keyword == "RUN")


# What goes in


def test_the_linter_has_nothing_to_say():
    linter = shutil.which("hadolint", path=str(PurePosixPath(sys.executable).parent))
    assert linter is not None, "the development packages are not installed"
    ended = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_everything_that_is_copied_is_there_and_let_through():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == allowed
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def test_nothing_but_what_is_copied_reaches_the_builder():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    # Nothing that may hold a secret is let through by a wider pattern.
    assert [line for line in lines if line.startswith("!") and re.search(r"[*?\[]", line)] == []


def test_the_wheel_is_built_from_what_is_copied(tmp_path: Path):
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "out", tmp_path],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list((tmp_path / "out").glob("tocsin-*.whl"))) == 1


def test_all_that_is_fetched_is_checked_by_its_hash():
    [fetch] = [run for run in runs().splitlines() if "pip download" in run]
    assert "--require-hashes" in fetch
    assert "--requirement requirements.lock" in fetch
    for command in re.findall(r"pip (?:--python \S+ )?(?:install|wheel) [^&]*", runs()):
        assert "--no-index" in command, command


def test_the_lock_holds_all_that_the_installed_extra_needs():
    [wanted] = re.findall(r"install --no-index --find-links /wheels '(tocsin\[[\w,]+\])'", runs())
    locked = dict(PINNED.findall((ROOT / "requirements.lock").read_text()))
    missing = {name for name in needed(Requirement(wanted)) if name != "tocsin" and name not in locked}
    assert missing == set()
    assert Requirement(wanted).extras <= set(PROJECT["optional-dependencies"])


def needed(wanted: Requirement) -> set[str]:
    """The distributions that a requirement brings, as those installed here declare it."""
    found: set[str] = set()
    left = [wanted]
    seen: set[str] = set()
    while left:
        requirement = left.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        found.add(re.sub(r"[-_.]+", "-", requirement.name).lower())
        for told in metadata.distribution(requirement.name).requires or ():
            inner = Requirement(told)
            extras = requirement.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                left.append(inner)
    return found


# What comes out


def test_it_runs_as_nobody_in_particular():
    [user] = last_stage("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user.text)


def test_it_starts_the_command_that_the_wheel_brings():
    [entry], [default] = last_stage("ENTRYPOINT"), last_stage("CMD")
    assert entry.words == ["tocsin"]
    assert "tocsin" in PROJECT["scripts"]
    take_command(default.words)


def test_it_stops_by_the_signal_that_a_supervisor_ends_in_good_order_by():
    [signal] = last_stage("STOPSIGNAL")
    assert signal.text == "SIGTERM"


def test_its_settings_are_settings_and_its_port_is_the_default_one():
    environment = image_environment()
    ours = {name for name in environment if name.startswith("TOCSIN_")}
    assert ours <= SETTINGS
    [port] = last_stage("EXPOSE")
    assert port.text == environment["TOCSIN_METRICS_PORT"] == str(Settings.model_fields["metrics_port"].default)


def test_what_is_written_lies_in_the_one_place_that_can_be_written_to():
    environment = image_environment()
    assert environment["HOME"] == "/tmp"
    assert environment["TOCSIN_DATA_DIR"].startswith("/tmp/")
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_no_secret_is_baked_in():
    told = [one.text for one in dockerfile() if one.keyword in ("ENV", "ARG", "LABEL", "RUN", "COPY")]
    assert [text for text in told if re.search(r"password|secret|token|master\.key|_URL=", text, re.IGNORECASE)] == []


def test_its_labels_say_what_it_is():
    [label] = last_stage("LABEL")
    assert f'image.licenses="{PROJECT["license"]}"' in label.text
    assert f'image.description="{PROJECT["description"]}"' in label.text
    [version] = [one.text.removeprefix("VERSION=") for one in last_stage("ARG") if one.text.startswith("VERSION=")]
    assert version == PROJECT["version"]


# Its health check, which is run as it stands


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


def check_health(port: int) -> int:
    [check] = last_stage("HEALTHCHECK")
    return subprocess.run(
        [sys.executable, *check.words[1:]],
        # A proxy is not asked, wherever the environment names one.
        env={"TOCSIN_METRICS_PORT": str(port), "http_proxy": "http://127.0.0.1:1"},
        capture_output=True, timeout=PATIENCE_SECONDS, check=False,
    ).returncode  # fmt: skip


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_believes_livez(status: int, code: int):
    with answering(status) as (port, asked):
        assert check_health(port) == code
        assert asked == [LIVENESS_PATH]


def test_the_health_check_fails_where_nobody_answers():
    with answering(200) as (port, _):
        pass
    assert check_health(port) == 1
