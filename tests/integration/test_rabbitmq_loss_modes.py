"""Three ways in which dramatiq's RabbitMQ broker loses messages: each happens on it, and does not on ours."""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dramatiq
import pika
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.errors import MessageBrokerError
from tocsin_schema.message_broker import amqp, open_broker
from tocsin_schema.message_broker.topology import ACTORS, DEAD_QUEUE, intake_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.servers.rabbitmq import RabbitmqNode

QUEUE = intake_queue("normal")


@pytest.fixture
def node(rabbitmq_node: RabbitmqNode) -> RabbitmqNode:
    if not rabbitmq_node.has_control:
        pytest.skip("these tests close connections and change rights, so they need a private RabbitMQ")
    return rabbitmq_node


@pytest.fixture
def vhost(node: RabbitmqNode) -> Generator[str]:
    url = node.create_vhost()
    yield url
    node.delete_vhost(url)


def stock_broker(url: str, **options: Any) -> Any:
    return RabbitmqBroker(url=url, **options)


def our_broker(url: str) -> Any:
    return open_broker(broker_url=url, database_url="", threads=4)


def enqueue(broker: Any, *texts: str) -> None:
    for text in texts:
        broker.enqueue(
            dramatiq.Message(queue_name=QUEUE, actor_name=ACTORS[QUEUE], args=(text,), kwargs={}, options={})
        )


def left_in(url: str, *queues: str) -> list[str]:
    """Take out what is still queued, once every consumer has gone."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    texts: list[str] = []
    for name in queues:
        while (body := channel.basic_get(name, auto_ack=True)[2]) is not None:
            texts.append(json.loads(body)["args"][0])
    connection.close()
    return texts


def ready_in(url: str, queue: str) -> int:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        return amqp.depth(connection, queue)
    finally:
        connection.close()


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


# 1. Delivery tags start at 1 again on every channel.


def test_the_stock_broker_loses_a_message_to_an_acknowledgement_that_comes_after_a_reconnect(
    node: RabbitmqNode, vhost: str
) -> None:
    assert acknowledge_after_a_reconnect(node, vhost, stock_broker(vhost)) == ["second"]


def test_ours_drops_an_acknowledgement_that_comes_after_a_reconnect(
    node: RabbitmqNode, vhost: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same two messages in hand at once; the plan allows one.
    monkeypatch.setattr("tocsin_schema.message_broker.topology.prefetch", lambda _queue, _threads: 2)
    assert acknowledge_after_a_reconnect(node, vhost, our_broker(vhost)) == ["second", "third"]
    assert "done after its connection was lost; RabbitMQ delivers it again" in caplog.text


def acknowledge_after_a_reconnect(node: RabbitmqNode, url: str, broker: Any) -> list[str]:
    """Finish `second` only after the connection that brought it is gone; gives what is left in the queue."""
    enqueue(broker, "first", "second", "third")
    earlier = broker.consume(QUEUE, prefetch=2, timeout=5000)
    first, second = next(earlier), next(earlier)
    earlier.ack(first)
    assert next(earlier)  # `third` comes when the acknowledgement has arrived
    node.close_all_connections(url)
    with pytest.raises(ConnectionClosed):
        collections.deque(earlier, maxlen=0)
    later = broker.consume(QUEUE, prefetch=2, timeout=5000)
    in_hand = [next(later), next(later)]  # `second` under tag 1, `third` under tag 2; neither was worked
    assert all(in_hand)
    later.ack(second)
    later.close()
    close_quietly(broker)
    return left_in(url, QUEUE)


# 2. What raised is acknowledged when its retry cannot be enqueued, or there are no retries.


def test_the_stock_broker_loses_what_raised_when_its_retry_cannot_be_enqueued(node: RabbitmqNode, vhost: str) -> None:
    broker = stock_broker(vhost, confirm_delivery=True)
    fail_without_the_right_to_publish(node, vhost, broker)
    assert left_in(vhost, QUEUE, f"{QUEUE}.DQ", f"{QUEUE}.XQ") == []


def test_the_stock_broker_loses_what_raised_without_retries(node: RabbitmqNode, vhost: str) -> None:
    broker = stock_broker(vhost, middleware=[])
    fail_without_the_right_to_publish(node, vhost, broker)
    assert left_in(vhost, QUEUE, f"{QUEUE}.DQ", f"{QUEUE}.XQ") == []


def test_ours_dead_letters_what_raised_though_nothing_can_be_published(node: RabbitmqNode, vhost: str) -> None:
    fail_without_the_right_to_publish(node, vhost, our_broker(vhost))
    eventually(lambda: ready_in(vhost, DEAD_QUEUE) == 5)
    assert left_in(vhost, DEAD_QUEUE) == ["0", "1", "2", "3", "4"]


def fail_without_the_right_to_publish(node: RabbitmqNode, url: str, broker: Any) -> None:
    """Have an actor raise on five messages, each after the right to publish was taken away."""
    runs: queue.Queue[object] = queue.Queue()

    def fail(part: object, published_ms: int | None = None) -> None:
        runs.put(part)
        raise ValueError("no")

    declare: Any = dramatiq.actor
    declare(fail, broker=broker, actor_name=ACTORS[QUEUE], queue_name=QUEUE)
    enqueue(broker, *"01234")
    close_quietly(broker)
    vhost = urlsplit(url).path.removeprefix("/")
    node.ctl("set_permissions", "--vhost", vhost, "guest", ".*", "^$", ".*")
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    for _ in range(5):
        runs.get(timeout=PATIENCE_SECONDS)
    eventually(lambda: ready_in(url, QUEUE) == 0)
    worker.stop()
    close_quietly(broker)


# 3. Without confirms, a message that RabbitMQ never had is reported as sent.


def test_the_stock_broker_reports_as_sent_what_reached_no_queue(vhost: str) -> None:
    broker = stock_broker(vhost)
    enqueue_into_a_queue_that_was_deleted(vhost, broker)
    broker = stock_broker(vhost)
    broker.declare_queue(QUEUE, ensure=True)
    close_quietly(broker)
    assert left_in(vhost, QUEUE) == []


def test_ours_makes_the_queue_anew_and_publishes_again(vhost: str) -> None:
    enqueue_into_a_queue_that_was_deleted(vhost, our_broker(vhost))
    assert left_in(vhost, QUEUE) == ["kept"]


def enqueue_into_a_queue_that_was_deleted(url: str, broker: Any) -> None:
    enqueue(broker, "declares the queue")
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_delete(QUEUE)
    connection.close()
    enqueue(broker, "kept")
    close_quietly(broker)


def test_the_stock_broker_reports_as_sent_what_a_crash_swallowed(node: RabbitmqNode, vhost: str) -> None:
    assert enqueue_while_the_server_crashes(node, stock_broker(vhost))
    assert "during" not in left_in(vhost, QUEUE)  # nor need "before" be there: nobody waited for its confirm


def test_ours_reports_nothing_as_sent_that_a_crash_swallowed(node: RabbitmqNode, vhost: str) -> None:
    is_reported_as_sent = enqueue_while_the_server_crashes(node, our_broker(vhost))
    assert left_in(vhost, QUEUE) == (["before", "during"] if is_reported_as_sent else ["before"])
    assert not is_reported_as_sent


def enqueue_while_the_server_crashes(node: RabbitmqNode, broker: Any) -> bool:
    """Publish to a server that hangs and then dies; gives whether that was reported as sent."""
    reported: queue.Queue[bool] = queue.Queue()

    def publish() -> None:
        enqueue(broker, "before")
        node.settle()
        node.freeze()
        frozen.set()
        try:
            enqueue(broker, "during")
        except MessageBrokerError:
            reported.put(False)
        else:
            reported.put(True)
        close_quietly(broker)

    frozen = threading.Event()
    thread = threading.Thread(target=publish)
    thread.start()
    assert frozen.wait(PATIENCE_SECONDS)
    with contextlib.suppress(queue.Empty):
        # The stock broker reports at once; ours waits for a confirm that cannot come.
        reported.put(reported.get(timeout=0.5))
    node.kill()
    thread.join(PATIENCE_SECONDS)
    node.start()
    return reported.get(timeout=PATIENCE_SECONDS)


def test_ours_publishes_again_over_a_new_connection(node: RabbitmqNode, vhost: str) -> None:
    broker = our_broker(vhost)
    enqueue(broker, "before")
    node.close_all_connections(vhost)
    enqueue(broker, "after")
    close_quietly(broker)
    assert left_in(vhost, QUEUE) == ["before", "after"]


def close_quietly(broker: Any) -> None:
    """Close the broker's connection of this thread, for good."""
    with contextlib.suppress(Exception):
        del broker.connection
    broker.close()
