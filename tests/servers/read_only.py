"""`python read_only.py [--user N] DIRECTORY COMMAND …`: run a command that can write below one directory only.

As in a container with a read-only root, but with nothing mounted and no privilege: by Landlock
(https://docs.kernel.org/userspace-api/landlock.html). Like in such a container, the command can gain no rights. Under
root it runs with the given user and group id.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE = 1 << 1
#: Removing and making of all kinds.
_CHANGE_DIRECTORY = sum(1 << bit for bit in range(4, 13))
_REFER = 1 << 13
_TRUNCATE = 1 << 14
#: The version that brought the last of them (Linux 6.2).
VERSION_NEEDED = 3


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Give the version of Landlock that this kernel has; 0 for none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)))


def forbid_writing(*, but_below: str) -> None:
    """Let this process, and what it becomes, write below one directory and to /dev/null only. Raises OSError."""
    everything = _WRITE_FILE | _CHANGE_DIRECTORY | _REFER | _TRUNCATE
    handled = ctypes.c_uint64(everything)
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0))
    for path, access in ((but_below, everything), ("/dev/null", _WRITE_FILE | _TRUNCATE)):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathBeneath(access, place)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
        os.close(place)
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _checked(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def main() -> None:
    """Become the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", type=int)
    parser.add_argument("directory")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    told = parser.parse_args()
    if told.user is not None and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(told.user)
        os.setuid(told.user)
    forbid_writing(but_below=told.directory)
    os.execvp(told.command[0], told.command)


if __name__ == "__main__":
    sys.exit(main())
