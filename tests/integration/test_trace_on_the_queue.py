"""A part's trace context goes through both message brokers."""

from __future__ import annotations

import pytest

from tocsin_schema.message_broker import open_broker
from tocsin_schema.message_broker.publishing import open_publisher

QUEUE = "tocsin.intake.normal"
GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("kind", ["rabbitmq", "postgres"])
def test_the_context_that_a_part_was_published_with_comes_to_its_intake(
    kind: str, empty_database_url: str, request: pytest.FixtureRequest
):
    broker_url = request.getfixturevalue("broker_url") if kind == "rabbitmq" else None
    with open_publisher(broker_url=broker_url, database_url=empty_database_url) as publisher:
        publisher.publish(b"first", "normal", traceparent=GIVEN)
        publisher.publish(b"second", "normal")
    broker = open_broker(broker_url=broker_url, database_url=empty_database_url, threads=1)
    broker.connect()
    consumer = broker.consume(QUEUE, timeout=1000)
    told: dict[bytes, object] = {}
    for _ in range(30):
        if (message := next(consumer)) is not None:
            told[message.args[0]] = message.kwargs.get("traceparent")
            consumer.ack(message)
        if len(told) == 2:
            break
    consumer.close()
    broker.close()
    assert told == {b"first": GIVEN, b"second": None}
