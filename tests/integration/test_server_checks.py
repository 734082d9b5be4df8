"""Whether the servers answer: one that takes connections and then says nothing is given up, and asked again."""

from __future__ import annotations

import socket

import psycopg
import pytest

from tocsin_schema.message_broker import amqp
from tocsin_workers.supervising import checks
from tocsin_workers.supervising.checks import ServerChecks


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no answer be good for a while."""
    monkeypatch.setattr(checks, "FRESH_SECONDS", -1.0)


def test_a_ledger_that_says_nothing_is_given_up_and_asked_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ServerChecks(database_url, None)
    [ledger] = ask._checks
    with psycopg.connect(database_url) as busy, monkeypatch.context() as patched:
        patched.setattr(checks, "LONGEST_SECONDS", 0.3)
        busy.execute("LOCK TABLE schema_migrations")
        assert "does not answer" in ledger.begin().result(10)["database"]
    assert ask() == {"database": "ok", "schema": "ok", "message_broker": "ok"}


def test_a_message_broker_that_says_nothing_is_given_up_however_patient_workers_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(amqp, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker_url = f"amqp://tocsin:sesame@127.0.0.1:{silent.getsockname()[1]}/tocsin?stack_timeout=600"
        _, message_broker = ServerChecks("", broker_url)._checks
        told = message_broker.begin().result(10)["message_broker"]
    assert told.startswith("RabbitMQ at 127.0.0.1:")
    assert told.endswith(" takes connections and says nothing.")
