"""`tocsin sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tocsin_schema.message_broker.depths import queue_depths
from tocsin_schema.message_broker.topology import QUEUES, SWEEP_QUEUE

if TYPE_CHECKING:
    from tests.acceptance.command_line import CommandLine
    from tests.servers.installation import Installation


@pytest.mark.parametrize("kind", ["rabbitmq", "postgres"])
def test_one_wake_up_goes_to_the_sweepers_queue_and_nowhere_else(
    tocsin: CommandLine, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    broker_url: str | None = None
    if kind == "rabbitmq":
        broker_url = request.getfixturevalue("broker_url")
        assert broker_url is not None
        monkeypatch.setenv("TOCSIN_BROKER_URL", broker_url)
    outcome = tocsin.ok("sweep")
    assert outcome.raw == b""
    assert "The sweeper is called." in outcome.errors
    assert "Start `tocsin worker`" in outcome.errors
    depths = queue_depths(broker_url=broker_url, database_url=tocsin.database_url)
    assert depths == dict.fromkeys(QUEUES, 0) | {SWEEP_QUEUE: 1}


def test_where_a_worker_sweeps_nothing_has_to_be_started(installation: Installation) -> None:
    ended = installation.run("sweep")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "The sweeper is called.\n"


def test_a_message_broker_that_is_away_is_one_line_without_its_password(
    tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_BROKER_URL", "amqp://u:hidden@127.0.0.1:1/v")
    outcome = tocsin("sweep")
    assert outcome.code == 1
    assert "127.0.0.1:1" in outcome.errors
    assert "hidden" not in outcome.errors
    assert "is called" not in outcome.errors
