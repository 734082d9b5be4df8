"""Other releases of Tocsin than the one under test: trees whose code runs in the same virtual environment."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.servers.availability import Unavailable
from tests.servers.cache import CACHE, locked

PREVIOUS: Final = "c995b701e40deaceea045b3d73d95b9d66d0e775"
"""The release before: its schema ends with migration 0009."""

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES: Final = ("schema", "producers", "workers", "console")
_GIT_SECONDS = 60.0


@dataclass(frozen=True)
class Release:
    """A tree with the code of a release."""

    tree: Path

    @property
    def environment(self) -> dict[str, str]:
        """What lets a process run that code; it comes before what is installed."""
        return {"PYTHONPATH": os.pathsep.join(str(self.tree / package) for package in _PACKAGES)}


def present() -> Release:
    """Give the release under test."""
    return Release(_ROOT)


def of_commit(commit: str) -> Release | Unavailable:
    """Give the release of a commit of this repository; the first call unpacks it under `.cache/releases`.

    Several test runs at a time wait for each other.
    """
    cache = CACHE / "releases"
    with locked(cache):
        tree = cache / commit
        if tree.exists():
            return Release(tree)
        try:
            archived = _archive(commit)
        except (subprocess.SubprocessError, OSError) as error:
            return Unavailable(
                f"no git history with release {commit[:7]} ({type(error).__name__}): clone it in full (fetch-depth: 0)"
            )
        making = cache / f"{commit}.unpacking"
        shutil.rmtree(making, ignore_errors=True)  # left by a run that was killed
        with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
            archive.extractall(making, filter="data")
        making.rename(tree)
        return Release(tree)


def next_release(directory: Path, *, migration: str, sql: str) -> Release:
    """Make a release that is the one under test with a migration more."""
    for package in _PACKAGES:
        shutil.copytree(_ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    migrations = directory / "schema" / "tocsin_schema" / "ledger" / "migrations"
    (migrations / f"{migration}.sql").write_text(sql, encoding="utf-8")
    return Release(directory)


def _archive(commit: str) -> bytes:
    # The tree may belong to somebody else than who runs the tests, whom git then wants to be told of.
    command = ["git", "-c", "safe.directory=*", "-C", str(_ROOT), "archive", "--format=tar", commit, "--", *_PACKAGES]
    return subprocess.run(command, check=True, capture_output=True, timeout=_GIT_SECONDS).stdout
