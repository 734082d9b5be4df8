"""What the tests fetch once and keep: each kind in a directory of its own under `.cache`."""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache"


@contextmanager
def locked(directory: Path) -> Generator[None]:
    """Make a directory, and have it for oneself: several test runs at a time wait for each other. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str | Path], *, seconds: float, directory: Path | None = None, **environment: str) -> str:
    """Run a program that fetches something; give its standard output.

    Raises RuntimeError with the last line of its complaint where it fails, SubprocessError where it takes longer.
    """
    ended = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"{Path(command[0]).name}: {last}")
    return ended.stdout
