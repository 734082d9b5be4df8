"""As whom the embedded Postgres runs.

Postgres refuses to run as root. An ordinary user runs it as itself; root gives its privileges up for the
server's programs, and for nothing else.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

UNPRIVILEGED = ("postgres", "nobody")
"""Whom root takes, the first that exists."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that owns the database's files and runs its processes."""

    name: str
    uid: int
    gid: int

    @property
    def is_myself(self) -> bool:
        """Whether this process is that user, so that no privilege has to be given up."""
        return os.geteuid() == self.uid


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program said and how it ended."""

    exit_code: int
    output: str


def account_for(data: Path) -> Account:
    """Who runs the server of the data directory `data`.

    An existing data directory belongs to somebody, and only that user can run it. A new one belongs to this
    process's user or, under root, to `postgres` or else `nobody`.

    Raises LedgerError where the data directory belongs to another user than an ordinary one who asks.
    """
    me = os.geteuid()
    owner = data.stat().st_uid if data.exists() else None
    if me == 0:
        return _account(owner) if owner else _unprivileged()
    if owner is not None and owner != me:
        raise LedgerError(
            f"The embedded database in {data} belongs to the user {_account(owner).name}.",
            fix="Run this as that user or as root, or set TOCSIN_DATA_DIR to a directory of your own.",
        )
    return _account(me)


def run(account: Account, command: Sequence[str | Path]) -> Finished:
    """Run a program as `account`, away from the terminal, and wait for it.

    It has a session of its own, so Ctrl-C reaches this process only, which still waits for the program before
    it gives up: a half-started server is thus always one that can be stopped. The working directory is `/`,
    since ours may be closed to the account; the environment is fixed, since ours may change what it does.

    Raises LedgerError where privileges cannot be given up.
    """
    # A file, not a pipe: a server that inherits a pipe would keep us reading for as long as it lives.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # noqa: S603  # fixed programs, no shell
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/"},
                start_new_session=True,
                user=None if account.is_myself else account.uid,
                group=None if account.is_myself else account.gid,
                extra_groups=None if account.is_myself else [],
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise LedgerError(
                f"Cannot run {command[0]} as the user {account.name}: {error}.",
                fix="Run Tocsin as an ordinary user, or set TOCSIN_DATABASE_URL to a Postgres server.",
            ) from None
        try:
            process.wait()
        except BaseException:
            process.wait()
            raise
        output.seek(0)
        return Finished(process.returncode, output.read().decode(errors="replace"))


def can_enter(account: Account, directory: Path) -> bool:
    """Whether the account can reach a directory: tried, not computed, so that ACLs count too."""
    return run(account, ["/bin/sh", "-c", 'cd -- "$1"', "sh", directory]).exit_code == 0


def give(path: Path, account: Account) -> None:
    """Make a file or directory of ours the account's own. Raises OSError."""
    if not account.is_myself:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def owner_of(path: Path) -> str:
    """Name the user that owns a file, by its number where it has no name. Raises OSError."""
    return _account(path.lstat().st_uid).name


def _unprivileged() -> Account:
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return _account(pwd.getpwnam(name).pw_uid)
    raise LedgerError(
        f"Postgres does not run as root, and there is no user {' or '.join(UNPRIVILEGED)} to run it as.",
        fix="Run Tocsin as an ordinary user, or set TOCSIN_DATABASE_URL to a Postgres server.",
    )


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # containers often run as a number without a name
        return Account(str(uid), uid, os.getegid() if uid == os.geteuid() else uid)
    return Account(entry.pw_name, uid, os.getegid() if uid == os.geteuid() else entry.pw_gid)
