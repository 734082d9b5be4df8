"""`/livez`, `/readyz` and `/startupz` of real workers while their servers come and go."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.servers.installation import Installation
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger.migrate import migrate
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgres import PostgresServer
    from tests.servers.rabbitmq import RabbitmqNode


class Probed:
    """A supervisor with one worker process, and what was heard from it."""

    def __init__(self, installation: Installation, supervisor_id: int) -> None:
        self.installation = installation
        self.supervisor = psutil.Process(supervisor_id)
        self.heard = ""

    def ask(self, endpoint: str) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.installation.environment['TOCSIN_METRICS_PORT']}/{endpoint}"
        try:
            answer = httpx.get(url, trust_env=False, timeout=PATIENCE_SECONDS)
        except httpx.ConnectError:
            return 0, {}
        self.heard += answer.text
        return answer.status_code, answer.json()

    def wait_for(self, endpoint: str, status: int, **checks: str) -> None:
        """Wait until an endpoint answers so, and these checks say something that begins so; it lives meanwhile."""

        def is_so() -> bool:
            got, body = self.ask(endpoint)
            lives, _ = self.ask("livez")
            assert lives in (0, 200)
            return got == status and all(body["checks"][name].startswith(said) for name, said in checks.items())

        self.installation.wait_until(is_so, f"{endpoint} {status} {checks}; so far: {self.heard[-1000:]}")


@pytest.fixture
def probed(own_postgres: PostgresServer, rabbitmq_node: RabbitmqNode, tmp_path: Path) -> Iterator[Probed]:
    """One worker process before a database that is still empty."""
    database_url = own_postgres.create_database()
    installation = Installation(tmp_path, database_url, rabbitmq_node.create_vhost())
    write_new_key_file(Path(installation.environment["TOCSIN_MASTER_KEY_FILE"]))
    supervisor = installation.start_workers(processes=1)
    try:
        yield Probed(installation, supervisor.pid)
    finally:
        installation.stop()
        own_postgres.drop_database(database_url)


def test_workers_are_ready_while_their_servers_are_there_and_live_all_the_time(
    probed: Probed, own_postgres: PostgresServer, rabbitmq_node: RabbitmqNode
):
    database_url, broker_url = probed.installation.database_url, probed.installation.broker_url
    assert broker_url is not None

    # The start is over although nothing can be done yet: nobody is killed for waiting.
    probed.wait_for("startupz", 200)
    probed.wait_for("readyz", 503, database="ok", schema="The ledger lacks", workers="no worker process takes work")

    asyncio.run(migrate(database_url))
    probed.wait_for("readyz", 200)

    (child,) = probed.supervisor.children()
    os.kill(child.pid, signal.SIGKILL)
    probed.wait_for("readyz", 503, database="ok", workers="no worker process takes work")
    probed.wait_for("readyz", 200)
    (replacement,) = probed.supervisor.children()
    assert replacement.pid != child.pid

    own_postgres.crash()
    probed.wait_for("readyz", 503, database="Postgres at", message_broker="ok", schema="unknown")
    own_postgres.restart()
    probed.wait_for("readyz", 200)
    own_postgres.freeze()
    try:
        probed.wait_for("readyz", 503, database="Postgres does not answer within 3 s")
    finally:
        own_postgres.thaw()
    probed.wait_for("readyz", 200)

    rabbitmq_node.delete_vhost(broker_url)
    probed.wait_for("readyz", 503, database="ok", message_broker="RabbitMQ at")

    assert probed.supervisor.children() == [replacement]
    for url in (database_url, broker_url):
        password = urlsplit(url).password
        assert password is None or f":{password}@" not in probed.heard
