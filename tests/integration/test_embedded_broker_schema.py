"""The embedded message broker's tables, which several processes want to make at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tocsin_schema.errors import MessageBrokerError
from tocsin_schema.message_broker import postgres
from tocsin_schema.message_broker.postgres import ensure_schema, ready_messages

TOGETHER = 6


@pytest.mark.parametrize("_again", range(3))
def test_several_that_begin_together_make_the_tables_once(empty_database_url: str, _again: int):
    with ThreadPoolExecutor(TOGETHER) as threads:
        list(threads.map(ensure_schema, [empty_database_url] * TOGETHER))
    assert ready_messages(empty_database_url) == {}


def test_a_count_whose_server_goes_silent_is_given_up(empty_database_url: str, monkeypatch: pytest.MonkeyPatch):
    ensure_schema(empty_database_url)
    monkeypatch.setattr(postgres, "SILENT_SECONDS", 0.2)
    with psycopg.connect(empty_database_url) as busy:
        busy.execute("LOCK TABLE dramatiq.queue")
        with pytest.raises(MessageBrokerError, match="went silent"):
            ready_messages(empty_database_url)
