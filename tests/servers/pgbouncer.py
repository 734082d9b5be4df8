"""PgBouncer in transaction mode before a test's Postgres, from Debian's packages.

Each transaction may meet another server connection: nothing of a session lasts, neither SET nor LISTEN nor
session locks; PgBouncer 1.18 does not carry prepared statements either.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from tests.servers.availability import Unavailable
from tests.servers.debian_packages import DebianPackages
from tests.servers.processes import unprivileged_account
from tests.servers.unpacked_server import UnpackedServer
from tocsin_console.embedded.account import account_for, give

if TYPE_CHECKING:
    from typing import Any

    from tocsin_console.embedded.account import Account

_PACKAGES: Final = DebianPackages("pgbouncer", ("pgbouncer",), prefix="lib", only_missing=True)

_CONFIGURATION: Final = """
[databases]
* = {server}

[pgbouncer]
pool_mode = transaction
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
default_pool_size = {pool_size}
max_client_conn = 500
"""


def from_debian() -> Path | Unavailable:
    """Give the unpacked packages of PgBouncer, for `PgBouncer`; the first call downloads them."""
    unpacked = _PACKAGES.obtain()
    if isinstance(unpacked, Unavailable):
        return Unavailable(f"no PgBouncer: {unpacked.reason}")
    return unpacked


class PgBouncer(UnpackedServer):
    """A running PgBouncer before one Postgres.

    Everybody who comes is let in, and logged in to Postgres as `postgres_url` says. Each database gets at most
    `pool_size` server connections.
    """

    name: ClassVar[str] = "pgbouncer"

    def __init__(self, unpacked: Path, postgres_url: str, *, pool_size: int = 8) -> None:
        super().__init__(unpacked)
        self._server = conninfo_to_dict(postgres_url)
        self._pool_size = pool_size

    def url_for(self, database_url: str) -> str:
        """Give the URL of the same database through PgBouncer."""
        return self._url(str(conninfo_to_dict(database_url)["dbname"]))

    def pools(self) -> list[dict[str, Any]]:
        """Ask PgBouncer for its pools (SHOW POOLS): `database`, `cl_active`, `sv_active`, `sv_idle`, …"""
        with psycopg.connect(self._url("pgbouncer"), autocommit=True) as connection:
            return connection.cursor(row_factory=dict_row).execute("SHOW POOLS").fetchall()

    def account(self) -> Account:
        """The embedded Postgres lets only its own user come to its socket."""
        socket_directory = str(self._server.get("host", ""))
        is_local = socket_directory.startswith("/")
        return account_for(Path(socket_directory)) if is_local else unprivileged_account()

    def furnish(self, home: Path, programs: Path, account: Account) -> list[Path | str]:
        """Write its configuration."""
        configuration = home / "pgbouncer.ini"
        configuration.touch(mode=0o600)  # there may be a password in it
        configuration.write_text(self._configuration())
        give(configuration, account)
        return [programs / "usr/sbin/pgbouncer", configuration]

    def answers(self) -> bool:
        """Whether it tells of its pools."""
        with suppress(psycopg.OperationalError):
            self.pools()
            return True
        return False

    def _configuration(self) -> str:
        server = {name: self._server[name] for name in ("host", "port", "user", "password") if name in self._server}
        words = [f"{name}='{_quoted(value)}'" for name, value in server.items()]
        return _CONFIGURATION.format(server=" ".join(words), port=self.port, pool_size=self._pool_size)

    def _url(self, database: str) -> str:
        user = quote(str(self._server.get("user", "postgres")), safe="")
        return f"postgresql://{user}@127.0.0.1:{self.port}/{quote(database, safe='')}"


def _quoted(value: object) -> str:
    return str(value).replace("'", "''")
