"""How a command reaches the ledger: the one place that opens it, and the one place that runs coroutines.

With TOCSIN_DATABASE_URL that is a Postgres server, used as it is. Without, it is the embedded Postgres under the
data directory: started where it does not run, brought to this release's schema, given a master key on first use,
and stopped again by the last command that used it, unless `tocsin up` keeps it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tocsin_schema.errors import ConfigurationError, LedgerError, SealError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.installation_settings import read_stored
from tocsin_schema.ledger.migrate import migrate
from tocsin_schema.sealing import Sealer, load_sealer, write_new_key_file
from tocsin_schema.sealing.loading import is_key_missing, refuse_missing_key
from tocsin_schema.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from pathlib import Path

    from tocsin_console.embedded.postgres import EmbeddedPostgres
    from tocsin_schema.ledger.connection import Connection

Answer = TypeVar("Answer")

_STARTED_BY_A_COMMAND = b"command\n"
#: The row that the first key used with a ledger leaves (`tocsin_schema.sealing.loading`).
_MASTER_KEY_MARK = "MasterKeyCheck"


@dataclass(frozen=True, slots=True)
class Session:
    """The ledger as one command sees it: one connection, committed when the command's work returns."""

    settings: Settings
    url: str
    connection: Connection

    async def sealer(self) -> Sealer:
        """Give what seals and opens secrets. Raises SealError where there is no usable master key."""
        return await load_sealer(self.connection, self.settings, is_to_seal=True)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger of a command that comes to it more than once.

    Between two visits nothing is open: a person may take minutes to type a secret, and no row stays locked, no
    transaction runs into its time limit, and Ctrl-C ends the prompt at once.
    """

    settings: Settings
    url: str

    def visit(self, work: Callable[[Session], Awaitable[Answer]]) -> Answer:
        """Connect, do the work, commit. Raises what `work` raises, LedgerError where the ledger cannot be used."""

        async def run() -> Answer:
            async with connect(self.url) as connection:
                return await work(Session(self.settings, self.url, connection))

        return run_to_end(run())


@contextmanager
def open_ledger() -> Generator[Ledger]:
    """Read the settings and give the ledger for a while. Raises ConfigurationError, LedgerError.

    A missing master key is told when the command needs it (`Session.sealer`): without it the ledger can still be
    looked at, and sending halted.
    """
    settings = read_settings()
    with ledger_url(settings, needs_key=False) as url:
        yield Ledger(settings, url)


def in_session(work: Callable[[Session], Awaitable[Answer]]) -> Answer:
    """Do all of a command's work on the ledger in one visit, and so in one transaction.

    It asks nobody anything meanwhile: secrets are read before. Raises what `Ledger.visit` raises,
    ConfigurationError.
    """
    with open_ledger() as ledger:
        return ledger.visit(work)


def run_to_end(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine in a loop of its own; Ctrl-C cancels it and then raises KeyboardInterrupt."""
    return asyncio.run(coroutine)


@contextmanager
def ledger_url(settings: Settings, *, migrated: bool = True, needs_key: bool = True) -> Generator[str]:
    """Give the ledger's URL for as long as it is needed.

    A configured URL is given as it stands. The embedded Postgres is started if need be and, unless `migrated` is
    off, brought to this release's schema with a master key beside it. `tocsin up` enters this too: as long as it
    stays inside, no command stops the server that it uses.

    Raises ConfigurationError where the URL cannot be read, LedgerError where the embedded Postgres does not start,
    SealError where it `needs_key` and the one that the embedded ledger has seen is missing.
    """
    if settings.database_url is not None:
        yield _readable(settings.database_url.get_secret_value())
        return
    with _embedded_url(settings) as url:
        if migrated:
            run_to_end(migrate(url))
            ensure_master_key(settings, url, is_needed=needs_key)
        yield url


def ensure_master_key(settings: Settings, url: str, *, is_needed: bool = True) -> None:
    """Write a master key file for a ledger that has not seen one yet; for the embedded mode only.

    Raises SealError where it `is_needed`, the ledger has seen a key, and this process has none: another one would
    open nothing.
    """
    if not is_key_missing(settings):
        return
    if run_to_end(_has_seen_a_key(url)):
        if is_needed:
            refuse_missing_key(settings)
        return
    try:
        write_new_key_file(settings.key_file)
    except SealError:
        if not settings.key_file.exists():
            raise
        # Another command, started at the same moment, wrote it.


async def _has_seen_a_key(url: str) -> bool:
    async with connect(url) as connection:
        return _MASTER_KEY_MARK in await read_stored(connection)


def _readable(url: str) -> str:
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The library's reason quotes pieces of the URL, and one of them may be the password.
        raise ConfigurationError(
            "TOCSIN_DATABASE_URL cannot be read as a Postgres URL.",
            fix="Write it like postgresql://user:password@host:5432/database, with special characters as %XX.",
        ) from None
    return url


@contextmanager
def _embedded_url(settings: Settings) -> Generator[str]:
    # Imported late: the embedded Postgres is an extra that a pod with a real server does not install.
    from tocsin_console.embedded.postgres import EmbeddedPostgres  # noqa: PLC0415  # see above

    postgres = EmbeddedPostgres(settings.data_dir)
    with _users_of(settings.data_dir) as users:
        if not postgres.is_running():
            os.ftruncate(users, 0)
            os.pwrite(users, _STARTED_BY_A_COMMAND, 0)
        try:
            yield postgres.start()
        finally:
            _stop_after_last_command(postgres, users)


@contextmanager
def _users_of(data_dir: Path) -> Generator[int]:
    """Hold a shared lock that says: this process uses the embedded Postgres."""
    try:
        data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        users = os.open(data_dir / "users.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LedgerError(
            f"The embedded Postgres cannot use {data_dir}: {error.strerror}.",
            fix="Make that possible, or set TOCSIN_DATA_DIR to a directory of your own.",
        ) from None
    try:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield users
    finally:
        os.close(users)


def _stop_after_last_command(postgres: EmbeddedPostgres, users: int) -> None:
    if os.pread(users, len(_STARTED_BY_A_COMMAND), 0) != _STARTED_BY_A_COMMAND:
        return
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another command still uses it, and stops it when it is done
    os.ftruncate(users, 0)
    postgres.stop()
