"""Servers that tests share: one Postgres and one RabbitMQ a session, a database and a virtual host a test."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.servers import dovecot, pgbouncer
from tests.servers.availability import or_skip
from tests.servers.oauth_server import OAuthServer
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitmqNode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# Whoever starts the tests in the background of a script has them ignore Ctrl-C, and so would every process of theirs:
# those that are to end by it would hang for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer.start() as server:
        yield server


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create_ledger()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def rabbitmq_node() -> Iterator[RabbitmqNode]:
    node = or_skip(RabbitmqNode.obtain())
    yield node
    node.stop()


@pytest.fixture
def broker_url(rabbitmq_node: RabbitmqNode) -> Iterator[str]:
    url = rabbitmq_node.create_vhost()
    yield url
    rabbitmq_node.delete_vhost(url)


@pytest.fixture(scope="session")
def oauth_server_process() -> Iterator[OAuthServer]:
    with or_skip(OAuthServer.obtain()) as server:
        yield server


@pytest.fixture
def oauth_server(oauth_server_process: OAuthServer) -> OAuthServer:
    """An OAuth server that was not written by us, as new."""
    oauth_server_process.reset()
    return oauth_server_process


@pytest.fixture(scope="session")
def dovecot_packages() -> Path:
    return or_skip(dovecot.from_debian())


@pytest.fixture(scope="session")
def pgbouncer_server(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode before the tests' Postgres."""
    with PgBouncer(or_skip(pgbouncer.from_debian()), postgres_server.url) as running:
        yield running
