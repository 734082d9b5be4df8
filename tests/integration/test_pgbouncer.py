"""The ledger behind PgBouncer in transaction mode, where nothing of a session lasts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.servers import pgbouncer
from tests.servers.availability import or_skip
from tests.servers.pgbouncer import PgBouncer
from tocsin_schema.ledger.connection import connect, open_pool
from tocsin_schema.ledger.migrate import migrate, read_schema_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgres import PostgresServer

SERVER_CONNECTIONS = 2


@pytest.fixture(scope="module")
def bouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    unpacked = or_skip(pgbouncer.from_debian())
    with PgBouncer(unpacked, postgres_server.url, pool_size=SERVER_CONNECTIONS) as running:
        yield running


async def test_a_pool_of_ours_works_through_it_and_its_connections_share_fewer_of_postgres(
    bouncer: PgBouncer, empty_database_url: str
) -> None:
    async def ask(number: int) -> tuple[int, int]:
        async with pool.connection() as connection:
            found = await (await connection.execute("SELECT pg_backend_pid(), %s::int", [number])).fetchone()
            assert found is not None
            return found

    url = bouncer.url_for(empty_database_url)
    async with open_pool(url, size=6) as pool:
        answers = await asyncio.gather(*(ask(number) for number in range(60)))
        [ours] = [one for one in bouncer.pools() if one["database"] == conninfo_to_dict(url)["dbname"]]
    assert sorted(number for _, number in answers) == list(range(60))
    assert ours["cl_active"] > SERVER_CONNECTIONS
    assert len({backend for backend, _ in answers}) <= SERVER_CONNECTIONS


async def test_two_clients_meet_the_same_server_connection_one_after_the_other(
    bouncer: PgBouncer, empty_database_url: str
) -> None:
    url = bouncer.url_for(empty_database_url)
    async with connect(url) as one, connect(url) as other:
        backends: list[object] = []
        for connection in (one, other):
            backends.append(await (await connection.execute("SELECT pg_backend_pid()")).fetchone())
            await connection.commit()
    assert backends[0] == backends[1]


async def test_the_ledger_is_made_through_it(bouncer: PgBouncer, empty_database_url: str) -> None:
    url = bouncer.url_for(empty_database_url)
    assert await migrate(url)
    assert (await read_schema_state(url)).before == ()
