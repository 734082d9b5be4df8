"""One Postgres for a whole test session, and a fresh database in it for each test that wants one."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import sql

from tests.servers.processes import STOP_SECONDS
from tocsin_console.embedded import EmbeddedPostgres
from tocsin_schema.ledger.migrate import migrate

if TYPE_CHECKING:
    from types import TracebackType

URL_VARIABLE: Final = "TOCSIN_TEST_DATABASE_URL"
"""A `postgresql://` URL of a server on which the tests may create databases."""

# A test's database is thrown away, so a power cut may take it; each fsync would only make the tests slower.
_SETTINGS: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

# So that a copy of a ledger is not taken for one that was put back from a backup.
_SETTLE: Final = "UPDATE ledger_origin SET database_oid = c.database_oid FROM current_origin c"
_HAS_STRATEGIES: Final = 150000
"""The server version that can copy a database by its log too, and then does unless it is told not to."""


class PostgresServer:
    """The server that `TOCSIN_TEST_DATABASE_URL` names, else an embedded one in a directory of its own."""

    def __init__(self, url: str, embedded: EmbeddedPostgres | None, directory: Path | None) -> None:
        self.url = url
        self._embedded = embedded
        self._directory = directory
        self._numbers = itertools.count(1)
        self._ledger: str | None = None

    @classmethod
    def start(cls) -> PostgresServer:
        """Take the named server or start an embedded one."""
        if url := os.environ.get(URL_VARIABLE):
            return cls(url, None, None)
        return cls._start(_SETTINGS)

    @classmethod
    def start_own(cls) -> PostgresServer:
        """Start an embedded one, which may be frozen and killed: what it has confirmed it has written."""
        return cls._start({**_SETTINGS, "synchronous_commit": "on"})

    @classmethod
    def _start(cls, settings: dict[str, str]) -> PostgresServer:
        directory = Path(tempfile.mkdtemp(prefix="tocsin-test-postgres-"))
        directory.chmod(0o711)  # under root the server runs as another user, who must pass through
        embedded = EmbeddedPostgres(directory, settings=settings)
        try:
            return cls(embedded.start(), embedded, directory)
        except BaseException:
            embedded.destroy()
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def create_database(self, template: str | None = None) -> str:
        """Create an empty database, or a copy of `template` (a name or URL), and return its URL.

        Nobody may be connected to the template.
        """
        name = f"tocsin_test_{os.getpid()}_{next(self._numbers)}"
        source = _name_of(template) if template is not None else "template0"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' {}")
        with psycopg.connect(self.url, autocommit=True) as connection:
            # A fifth of the work of a copy by the log.
            by_files = "STRATEGY file_copy" if connection.info.server_version >= _HAS_STRATEGIES else ""
            connection.execute(create.format(sql.Identifier(name), sql.Identifier(source), sql.SQL(by_files)))
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def create_ledger(self) -> str:
        """Create a database with this release's schema, and return its URL. Not within an event loop.

        It is a copy: ten times as soon made as by the migrations.
        """
        if self._ledger is None:
            self._ledger = self.create_database()
            asyncio.run(migrate(self._ledger))
        url = self.create_database(self._ledger)
        with psycopg.connect(url) as connection:
            connection.execute(_SETTLE)
        return url

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made, and end whatever is connected to it."""
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(drop.format(sql.Identifier(_name_of(url))))

    def stop(self) -> None:
        """Stop the embedded server and remove its files; a named one is left as it was found."""
        if self._embedded is not None:
            self._embedded.destroy()
        elif self._ledger is not None:
            self.drop_database(self._ledger)
        if self._directory is not None:
            shutil.rmtree(self._directory)

    def freeze(self) -> None:
        """Stop the embedded server in its tracks: connections stay open, and nothing is answered."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for process in self._processes():
            process.resume()

    def crash(self) -> None:
        """Stop the embedded server at once (`pg_ctl stop -m immediate`): every session is cut off."""
        processes = self._processes()
        processes[0].send_signal(signal.SIGQUIT)
        psutil.wait_procs(processes, timeout=STOP_SECONDS)

    def restart(self) -> None:
        """Start the embedded server again after a crash."""
        assert self._embedded is not None
        self._embedded.start()

    def _processes(self) -> list[psutil.Process]:
        """Give the embedded server's processes, the postmaster first."""
        assert self._embedded is not None
        pid = (self._embedded.home / "data" / "postmaster.pid").read_text().split()[0]
        postmaster = psutil.Process(int(pid))
        return [postmaster, *postmaster.children(recursive=True)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _name_of(database: str) -> str:
    return urlsplit(database).path.removeprefix("/") if "://" in database else database
