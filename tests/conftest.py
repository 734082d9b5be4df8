"""What tests share: one Postgres and one RabbitMQ a session, a database and a virtual host a test or module."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import structlog

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


@pytest.fixture
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test set up logging: after it everything is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    known = root.manager.loggerDict.items()
    levels = {name: logger.level for name, logger in known if isinstance(logger, logging.Logger)}
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


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


@pytest.fixture(scope="module")
def ledger_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The database of a whole module."""
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


@pytest.fixture(scope="module")
def vhost_url(rabbitmq_node: RabbitmqNode) -> Iterator[str]:
    """The virtual host of a whole module."""
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
