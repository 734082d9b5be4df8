"""Server programs that tests start: never as root, and gone when the test process goes."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_console.embedded.account import Account, account_for, can_enter, give

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_SECONDS = 10.0

_POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1


def unprivileged_account() -> Account:
    """Say as whom to run a server: this process's user, or under root somebody with fewer rights."""
    return account_for(Path("/nonexistent"))


def make_home(name: str, account: Account) -> Path:
    """Make a directory in which the account may do as it likes; under root others may pass through."""
    home = Path(tempfile.mkdtemp(prefix=f"tocsin-test-{name}-"))
    home.chmod(0o711)
    give(home, account)
    return home


def lay_programs(unpacked: Path, home: Path, account: Account) -> Path:
    """Link unpacked packages as `programs` into a home; copy them where the account cannot reach them."""
    programs = home / "programs"
    if can_enter(account, unpacked):
        programs.symlink_to(unpacked)
    else:
        shutil.copytree(unpacked, programs, symlinks=True)
    return programs


def spawn(
    command: list[Path | str], *, account: Account, environment: dict[str, str], directory: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a server as the account; it does not hear the terminal's Ctrl-C. Call it from the main thread."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in command],
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=None if account.is_myself else account.uid,
            group=None if account.is_myself else account.gid,
            extra_groups=None if account.is_myself else [],
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it only makes one system call
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a server with its children, and see them gone. Harmless to repeat."""
    if process.poll() is not None:
        return
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + STOP_SECONDS
    while any(_is_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def wait_until_ready(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], *, log: Path) -> None:
    """Wait until a server answers. RuntimeError with the end of its log where it ends or takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            told = log.read_text(errors="replace").strip()[-1500:]
            raise RuntimeError(f"{process.args!r} does not start: {told}")
        time.sleep(_POLL_SECONDS)


def _is_alive(process: psutil.Process) -> bool:
    # In a container without an init nobody reaps an orphan.
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def die_with_parent() -> Callable[[], None]:
    """Ask the kernel to kill the child when its parent's thread ends; it survives the `exec` of scripts."""
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return ask
