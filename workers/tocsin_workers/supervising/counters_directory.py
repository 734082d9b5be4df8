"""Where a supervisor's children count: a directory of its own, which goes with it."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_PREFIX: Final = "tocsin-metrics-"


@contextmanager
def counters_directory() -> Generator[Path]:
    """Make the directory, and remove it at the end; and before, what supervisors that were killed have left behind.

    A container that is started again keeps its /tmp, which is small.
    """
    for left_behind in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_of_nobody(left_behind):
            shutil.rmtree(left_behind, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as directory:
        yield Path(directory)


def _is_of_nobody(directory: Path) -> bool:
    supervisor = directory.name.removeprefix(_PREFIX).partition("-")[0]
    if not supervisor.isdecimal() or directory.lstat().st_uid != os.getuid():
        return False
    # In a container every supervisor has the same id. Ours has no directory yet.
    return int(supervisor) == os.getpid() or not Path("/proc", supervisor).exists()
