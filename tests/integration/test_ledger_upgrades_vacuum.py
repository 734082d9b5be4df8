"""A migration that comes upon Postgres's own vacuum waits for so long that Postgres sends that away."""

from __future__ import annotations

import psycopg

from tocsin_schema.ledger.sql import named_queries

_QUERIES = named_queries("migrations")


async def _milliseconds(connection: psycopg.AsyncConnection, setting: str) -> int:
    asked = "SELECT setting FROM pg_settings WHERE name = %s"
    row = await (await connection.execute(asked, [setting])).fetchone()
    assert row is not None
    return int(row[0])


async def test_locks_are_waited_for_longer_only_where_a_table_is_being_vacuumed(database_url: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(database_url) as vacuum,
        await psycopg.AsyncConnection.connect(database_url) as migration,
    ):
        await migration.execute(_QUERIES["take_short_locks"])
        assert await _milliseconds(migration, "lock_timeout") == 500
        # The lock of a vacuum (https://www.postgresql.org/docs/current/explicit-locking.html).
        await vacuum.execute("LOCK TABLE jobs IN SHARE UPDATE EXCLUSIVE MODE")
        await migration.execute(_QUERIES["take_short_locks"])
        waits = await _milliseconds(migration, "lock_timeout")
        assert await _milliseconds(migration, "deadlock_timeout") < waits <= 3000
