"""A queue that is deleted and made again at once: RabbitMQ does not cancel its consumers then."""

from __future__ import annotations

import time
from queue import Queue
from typing import TYPE_CHECKING, Any

import dramatiq
import pika
import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.message_broker import amqp, open_broker
from tocsin_schema.message_broker.topology import ACTORS, SWEEP_QUEUE, intake_queue, send_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

RENEW_SECONDS = 1.0


@pytest.fixture
def broker(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # Only how long things rest is changed, so that the suite does not spend its time waiting.
    monkeypatch.setattr("tocsin_schema.message_broker.rabbitmq.RENEW_SECONDS", RENEW_SECONDS)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.2)
    broker = open_broker(broker_url=broker_url, database_url="", threads=4)
    broker.connect()
    yield broker
    broker.close()


def enqueue(broker: Any, queue: str, **values: Any) -> None:
    broker.enqueue(dramatiq.Message(queue_name=queue, actor_name=ACTORS[queue], args=(), kwargs=values, options={}))


def delete_and_make_again(url: str, queue: str) -> None:
    connection = pika.BlockingConnection(amqp.connection_parameters(url, name="test"))
    connection.channel().queue_delete(queue)
    amqp.declare(connection, queue)
    connection.close()


@pytest.mark.parametrize("queue", [send_queue("normal"), intake_queue("normal")])
def test_what_comes_after_is_consumed_by_who_consumed_before(broker: Any, broker_url: str, queue: str) -> None:
    done: Queue[object] = Queue()
    declare: Any = dramatiq.actor
    declare(lambda *args, **kwargs: done.put((args, kwargs)), broker=broker, actor_name=ACTORS[queue], queue_name=queue)
    worker = dramatiq.Worker(broker, queues={queue}, worker_threads=4, worker_timeout=100)
    worker.start()
    try:
        enqueue(broker, queue, profile_id="1")
        done.get(timeout=PATIENCE_SECONDS)
        delete_and_make_again(broker_url, queue)
        enqueue(broker, queue, profile_id="2")
        done.get(timeout=PATIENCE_SECONDS)
    finally:
        worker.stop()


def test_a_quiet_consumer_takes_no_more_at_once_than_before(broker: Any, broker_url: str) -> None:
    queue = SWEEP_QUEUE
    consumer = broker.consume(queue, timeout=100)
    quiet_until = time.monotonic() + 3 * RENEW_SECONDS
    while time.monotonic() < quiet_until:
        assert next(consumer) is None
    for number in range(3):
        enqueue(broker, queue, profile_id=str(number))
    held = [message for message in (next(consumer) for _ in range(5)) if message is not None]
    assert [message.kwargs["profile_id"] for message in held] == ["0"]
    until = time.monotonic() + 2 * RENEW_SECONDS
    while time.monotonic() < until:
        assert next(consumer) is None
    consumer.ack(held[0])
    assert next(message for message in consumer if message is not None).kwargs["profile_id"] == "1"
    consumer.close()
