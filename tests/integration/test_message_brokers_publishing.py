"""Publishing to RabbitMQ with gathered confirms, while the server does its worst."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pika
import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.errors import MessageBrokerError, UsageError
from tocsin_schema.message_broker.publishing import open_publisher
from tocsin_schema.message_broker.rabbitmq_publisher import RabbitmqIntakePublisher

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.servers.rabbitmq import RabbitmqNode

QUEUE = "tocsin.intake.normal"


@pytest.fixture
def node(rabbitmq_node: RabbitmqNode) -> RabbitmqNode:
    if not rabbitmq_node.has_control:
        pytest.skip("these tests close connections and raise alarms, so they need a private RabbitMQ")
    return rabbitmq_node


@pytest.fixture
def vhost(node: RabbitmqNode) -> Generator[str]:
    url = node.create_vhost()
    yield url
    node.delete_vhost(url)


def taken_from(url: str, queue: str = QUEUE) -> list[bytes]:
    """Take out everything that is queued."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    bodies: list[bytes] = []
    while (delivery := channel.basic_get(queue, auto_ack=True))[0] is not None:
        assert delivery[2] is not None
        bodies.append(delivery[2])
    connection.close()
    return bodies


def test_what_is_handed_over_is_kept_in_order_and_once(vhost: str) -> None:
    bodies = [b"%d" % number for number in range(1000)]
    with RabbitmqIntakePublisher(vhost, most_in_flight=50) as publisher:
        for body in bodies:
            publisher.publish(body, "normal")
    assert taken_from(vhost) == bodies


def test_a_flush_means_that_everything_is_kept(vhost: str) -> None:
    with RabbitmqIntakePublisher(vhost) as publisher:
        publisher.publish(b"a", "bulk")
        publisher.publish(b"b", "urgent")
        publisher.flush()
        assert (taken_from(vhost, "tocsin.intake.bulk"), taken_from(vhost, "tocsin.intake.urgent")) == ([b"a"], [b"b"])


def test_several_threads_share_a_publisher(vhost: str) -> None:
    with RabbitmqIntakePublisher(vhost, most_in_flight=10) as publisher:

        def publish(thread: int) -> None:
            for number in range(50):
                publisher.publish(b"%d-%d" % (thread, number), "normal")

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert len(set(taken_from(vhost))) == 200


def test_nothing_is_lost_when_connections_drop_while_publishing(node: RabbitmqNode, vhost: str) -> None:
    bodies = {b"%d" % number for number in range(2000)}
    with RabbitmqIntakePublisher(vhost, most_in_flight=100) as publisher:
        dropping = threading.Thread(target=lambda: [node.close_all_connections(vhost) for _ in range(2)])
        dropping.start()
        for body in bodies:
            publisher.publish(body, "normal")
        dropping.join(PATIENCE_SECONDS)
        publisher.publish(b"last", "normal")
    counted = Counter(taken_from(vhost))
    assert set(counted) == bodies | {b"last"}


def test_nothing_is_lost_when_the_server_crashes_while_publishing(node: RabbitmqNode, vhost: str) -> None:
    with RabbitmqIntakePublisher(vhost, most_in_flight=100) as publisher:
        publisher.publish(b"0", "normal")
        publisher.flush()
        node.settle()
        node.freeze()
        for number in range(1, 100):
            publisher.publish(b"%d" % number, "normal")
        node.kill()
        node.start()
    assert {int(body) for body in taken_from(vhost)} == set(range(100))


def test_a_deleted_exchange_or_queue_is_made_anew_and_nothing_is_lost(vhost: str) -> None:
    with RabbitmqIntakePublisher(vhost) as publisher:
        for number, delete in enumerate(("queue", "exchange")):
            connection = pika.BlockingConnection(pika.URLParameters(vhost))
            if delete == "queue":
                connection.channel().queue_delete(QUEUE)
            else:
                connection.channel().exchange_delete("tocsin.intake")
            connection.close()
            publisher.publish(b"%d" % number, "normal")
            publisher.flush()
            assert b"%d" % number in taken_from(vhost)


def test_a_memory_alarm_is_told_within_the_deadline_and_survived(node: RabbitmqNode, vhost: str) -> None:
    with RabbitmqIntakePublisher(vhost, deadline=1.5) as publisher:
        node.ctl("set_vm_memory_high_watermark", "0.0000001")
        try:
            publisher.publish(b"patience", "normal")
            began = time.monotonic()
            with pytest.raises(MessageBrokerError, match=r"has not confirmed 1 part.*alarm blocks publishers"):
                publisher.flush()
            assert time.monotonic() - began < 3
        finally:
            node.ctl("set_vm_memory_high_watermark", "0.6")
        publisher.flush()
    assert taken_from(vhost) == [b"patience"]


def test_a_server_that_no_longer_lets_us_in_is_told_within_the_deadline(node: RabbitmqNode) -> None:
    url = node.create_vhost()
    publisher = RabbitmqIntakePublisher(url, deadline=1.5)
    node.delete_vhost(url)
    publisher.publish(b"x", "normal")
    with pytest.raises(MessageBrokerError, match=r"not confirmed 1 part.*has no virtual host 'test-") as told:
        publisher.close()
    assert "guest:" not in str(told.value)
    with pytest.raises(MessageBrokerError, match="closed"):
        publisher.publish(b"y", "normal")


def test_an_exception_in_the_callers_block_does_not_wait_for_confirms(node: RabbitmqNode, vhost: str) -> None:
    def fail_while_publishers_are_blocked() -> None:
        with RabbitmqIntakePublisher(vhost, deadline=PATIENCE_SECONDS) as publisher:
            node.ctl("set_vm_memory_high_watermark", "0.0000001")
            try:
                publisher.publish(b"x", "normal")
                raise KeyboardInterrupt
            finally:
                node.ctl("set_vm_memory_high_watermark", "0.6")

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fail_while_publishers_are_blocked()
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert not [thread for thread in threading.enumerate() if thread.name == "tocsin-publisher"]


def test_without_any_broker_the_operator_is_told_what_to_set() -> None:
    with pytest.raises(UsageError, match="TOCSIN_BROKER_URL"):
        open_publisher(broker_url=None)
