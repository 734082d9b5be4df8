"""Servers from Debian's packages, downloaded and unpacked under `.cache`, never installed.

That needs no root and changes nothing on the machine.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.servers.availability import Unavailable
from tests.servers.cache import CACHE, locked, run
from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

DOWNLOAD_SECONDS = 300.0


@dataclass(frozen=True)
class DebianPackages:
    """Packages that are unpacked together in `.cache/NAME/unpacked`.

    With the `wanted` packages come those of their dependencies, and of theirs, whose names begin with `prefix`;
    where `only_missing` is set, without those that the machine has installed.
    """

    name: str
    wanted: tuple[str, ...]
    prefix: str
    only_missing: bool = False

    @property
    def cache(self) -> Path:
        return CACHE / self.name

    def obtain(self, finish: Callable[[Path, Path], None] | None = None) -> Path | Unavailable:
        """Give the directory with the unpacked files; the first call downloads them.

        `finish` may change files before that; it is given where they lie and where they will lie. Several test
        runs at a time wait for each other.
        """
        with locked(self.cache):
            unpacked = self.cache / "unpacked"
            if unpacked.exists():
                return unpacked
            if not all(shutil.which(program) for program in ("apt-get", "apt-cache", "dpkg", "dpkg-query")):
                return Unavailable(f"no Debian to fetch {self.wanted[0]} from")
            try:
                making = self._unpack(self._download())
                if finish is not None:
                    finish(making, unpacked)
                making.rename(unpacked)
            except (subprocess.SubprocessError, OSError, RuntimeError) as error:
                return Unavailable(f"Debian's {self.wanted[0]} cannot be fetched ({error})")
            return unpacked

    def _download(self) -> list[Path]:
        """Download the packages: with the machine's lists of packages, or else with fresh ones."""
        directory = self.cache / "packages"
        # An older version, left by a download that failed, is not to lie beside the new one.
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        try:
            self._apt_download(directory, [])
        except (subprocess.SubprocessError, RuntimeError):
            options = self._private_apt()
            _run(["apt-get", *options, "update"], directory)
            self._apt_download(directory, options)
        return sorted(directory.glob("*.deb"))

    def _apt_download(self, directory: Path, options: list[str]) -> None:
        needed = self._needed(directory, options)
        # apt wants to download as the user _apt, who may not write here; as root it then warns and does it all
        # the same.
        _run(["apt-get", *options, "-o", "APT::Sandbox::User=", "download", *sorted(needed)], directory)

    def _needed(self, directory: Path, options: list[str]) -> set[str]:
        present = _installed(directory) if self.only_missing else set[str]()
        needed = set(self.wanted)
        newest = needed
        while newest:
            told = _run(["apt-cache", *options, "depends", *sorted(newest)], directory)
            dependencies = {name for name in _dependencies(told) if name.startswith(self.prefix)}
            newest = dependencies - needed - present
            needed = needed | newest
        return needed

    def _private_apt(self) -> list[str]:
        """Make package lists of our own: the machine's are empty, and only root could fill them."""
        state, cache = self.cache / "apt" / "state", self.cache / "apt" / "cache"
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        return [
            *("-o", f"Dir::State::lists={state / 'lists'}"),
            *("-o", f"Dir::Cache={cache}"),
            *("-o", "APT::Sandbox::User="),
            *("-o", "APT::Update::Post-Invoke-Success="),
        ]

    def _unpack(self, packages: Iterable[Path]) -> Path:
        making = self.cache / "unpacking"
        shutil.rmtree(making, ignore_errors=True)  # left by a run that was killed
        for package in packages:
            subprocess.run(["dpkg", "-x", package, making], check=True, capture_output=True, timeout=PATIENCE_SECONDS)
        return making


def library_path(unpacked: Path) -> list[Path]:
    """Give the directories with the shared libraries of unpacked packages."""
    return [*unpacked.glob("usr/lib/*-linux-gnu*"), *unpacked.glob("lib/*-linux-gnu*")]


def _dependencies(told: str) -> set[str]:
    """Read what `apt-cache depends` says: of alternatives, which a bar leads, the first; no virtual packages."""
    found: set[str] = set()
    is_alternative = False
    for line in told.splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind.lstrip("|") not in {"Depends", "PreDepends"}:
            continue
        if not is_alternative and not name.startswith("<"):
            found.add(name)
        is_alternative = kind.startswith("|")
    return found


def _installed(directory: Path) -> set[str]:
    told = _run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n"], directory)
    return {name for state, _, name in (line.partition(" ") for line in told.splitlines()) if state == "installed"}


def _run(command: list[str], directory: Path) -> str:
    return run(command, seconds=DOWNLOAD_SECONDS, directory=directory, LANG="C")
