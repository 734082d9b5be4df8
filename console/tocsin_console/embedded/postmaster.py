"""Which server runs on a data directory: what `postmaster.pid` says, and whether it is still true."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The lines of the file, counted from 0: src/include/utils/pidfile.h in the source of Postgres.
_PID, _SOCKETS = 0, 4


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A server's main process; `socket_directory` is None until it has got as far as listening."""

    pid: int
    socket_directory: Path | None


def parse_postmaster_file(text: str) -> Postmaster | None:
    """Read the content of `postmaster.pid`; None where it names no process (a crash can leave it empty)."""
    lines = [line.strip() for line in text.splitlines()]
    if not lines or not lines[_PID].isdecimal():
        return None
    sockets = lines[_SOCKETS] if len(lines) > _SOCKETS else ""
    return Postmaster(int(lines[_PID]), Path(sockets) if sockets else None)


def is_postmaster_of(data: Path, command_line: bytes) -> bool:
    """Whether a process's arguments, as in `/proc/PID/cmdline`, are those of the server of `data`.

    A process number alone proves nothing: after a reboot or in a new container it may be anybody's.
    """
    program, *arguments = command_line.decode(errors="surrogateescape").split("\0")
    return Path(program).name == "postgres" and str(data) in arguments


def recorded_postmaster(data: Path) -> Postmaster | None:
    """Read the data directory's `postmaster.pid`, be it stale or not. Raises OSError."""
    try:
        return parse_postmaster_file((data / "postmaster.pid").read_text(errors="replace"))
    except FileNotFoundError:
        return None


def command_line_of(pid: int) -> bytes:
    """Read the arguments of a process, separated by NUL; empty where there is none, or only a zombie.

    Every user may read it, unlike `/proc/PID/cwd`, which even root cannot read in most containers.
    """
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_alive(postmaster: Postmaster, data: Path) -> bool:
    """Whether the process is there and is the server of `data`."""
    return is_postmaster_of(data, command_line_of(postmaster.pid))


def is_dying(pid: int) -> bool:
    """Whether a killed process is still there, ending or not yet reaped."""
    return Path(f"/proc/{pid}").exists() and not command_line_of(pid)
