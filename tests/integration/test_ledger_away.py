"""What the log says while Postgres takes no connections: which one, and why; and when it does again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolTimeout

from tocsin_schema.ledger.connection import open_pool

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer


async def test_a_ledger_that_is_away_is_told_once_with_its_reason_and_once_when_it_is_back(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
):
    url = postgres_server.create_database()
    name = conninfo_to_dict(url)["dbname"]

    def alter(change: LiteralString) -> None:
        with psycopg.connect(postgres_server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} " + change).format(sql.Identifier(str(name))))

    caplog.set_level(logging.INFO, "tocsin_schema.ledger.connection")
    alter("ALLOW_CONNECTIONS false")
    async with open_pool(url, size=1) as pool:
        with pytest.raises(PoolTimeout):
            async with pool.connection(timeout=0.5):
                pass
        alter("ALLOW_CONNECTIONS true")
        async with pool.connection():
            pass
    postgres_server.drop_database(url)
    said = [record.getMessage() for record in caplog.records if record.name == "tocsin_schema.ledger.connection"]
    assert len(said) == 2
    assert f"/{name} cannot be reached: " in said[0]
    assert "is not currently accepting connections" in said[0]
    assert said[1].endswith(f"/{name} answers again.")
