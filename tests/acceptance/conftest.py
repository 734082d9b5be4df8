"""Whole installations, one a message broker, shared by the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import tocsin  # noqa: F401  # the fixture of all tests of single commands
from tests.servers.availability import or_skip
from tests.servers.installation import Installation
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitmqNode

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the mail server says to a few addresses, whichever test writes to them.
SCRIPT = {
    "refused@campus.example": ["550 5.1.1 No such user here"],
    "greylisted@campus.example": ["451 4.7.1 Greylisted, try again later", "250 2.1.5 OK"],
}


@pytest.fixture(scope="session", params=["rabbitmq", "postgres"])
def installation(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation that runs: the same tests hold on RabbitMQ and on queues in Postgres."""
    broker_url: str | None = None
    if request.param == "rabbitmq":
        node = request.getfixturevalue("rabbitmq_node")
        broker_url = node.create_vhost()
    database_url = postgres_server.create_ledger()
    installation = Installation(tmp_path_factory.mktemp(request.param), database_url, broker_url)
    try:
        installation.start(SCRIPT)
        yield installation
    finally:
        installation.stop()
        postgres_server.drop_database(database_url)


@pytest.fixture(scope="session")
def own_rabbitmq() -> Iterator[RabbitmqNode]:
    """A RabbitMQ that a test may freeze, kill or wipe, and leaves running."""
    node = or_skip(RabbitmqNode.obtain_own())
    yield node
    node.stop()


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """A Postgres that a test may freeze or stop, and leaves running."""
    with PostgresServer.start_own() as server:
        yield server
