"""The message broker for RabbitMQ: dramatiq's, with the ways closed in which it loses messages.

- A message remembers the consumer that it came from. Delivery tags start at 1 again on every channel, so an
  acknowledgement that comes after a reconnect would hit somebody else's message; it is dropped instead, and
  the message is delivered again.
- Nothing is acknowledged because a retry or a callback failed: there are none (`failures`).
- Publisher confirms are always on, and messages that reach no queue are an error.
- Dead-lettering is at-least-once, into a quorum queue without expiry (`topology.queue_arguments`).
- There are no delay queues: what waits, waits in the ledger.
- A consumer that has been quiet for a while subscribes anew. Where a queue is deleted and made again at once, as
  publishers do, RabbitMQ does not cancel its consumers (seen in 3.10): they would wait for ever beside a full queue.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, cast

import pika
from dramatiq.broker import Consumer
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed

from tocsin_schema.errors import MessageBrokerError
from tocsin_schema.message_broker import amqp, topology
from tocsin_schema.message_broker.deaths import death_of
from tocsin_schema.message_broker.encoder import encode_message, message_for
from tocsin_schema.message_broker.failures import REQUEUE_DELAY_SECONDS, Fate, HeldMessage, fate
from tocsin_schema.message_broker.publish_time import published_ms
from tocsin_schema.trace_context import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dramatiq import Message, MessageProxy, Middleware
    from pika.adapters.blocking_connection import BlockingChannel
    from pika.spec import Basic, BasicProperties

    Deliveries = Iterator[tuple[Basic.Deliver, BasicProperties, bytes] | tuple[None, None, None]]

log = logging.getLogger(__name__)

ENQUEUE_ATTEMPTS = 3

#: Intake waits in place for Postgres, longer than RabbitMQ's 30 minutes if need be (RabbitMQ 3.12 and newer).
CONSUMER_TIMEOUT_MS = 24 * 60 * 60 * 1000

#: How long nothing comes before a consumer that holds nothing subscribes anew.
RENEW_SECONDS = 10.0

_CLOSE_SECONDS = 2.0


class RabbitmqMessageBroker(RabbitmqBroker):
    """A dramatiq broker on Tocsin's topology.

    It opens nothing until it is used, so it may be made before a fork. Prefetch follows from `threads`, how many
    threads take wake-ups (`topology.prefetch`).
    """

    def __init__(self, url: str, *, threads: int, middleware: Iterable[Middleware]) -> None:
        super().__init__(confirm_delivery=True, middleware=list(middleware))
        self.endpoint = amqp.connection_parameters(url, name="publisher")
        self.parameters = self.endpoint
        self.consumer_parameters = amqp.connection_parameters(url, name="consumer")
        self.threads = threads

    def connect(self) -> None:
        """Declare everything, and so find out early whether RabbitMQ is there; raises MessageBrokerError."""
        amqp.declare_all(self.endpoint)

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Register a queue of the topology, and with `ensure` make it on the server. No delay queue."""
        if queue_name not in topology.ACTORS:
            raise ValueError(f"{queue_name!r} is no queue of ours")
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure and queue_name in self.queues_pending:
            amqp.declare(self.connection, queue_name)
            self.queues_pending.discard(queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:  # noqa: ARG002 - the plan decides
        """Open a consumer with the plan's prefetch, whatever the worker asks for.

        Raises dramatiq's ConnectionClosed, after which dramatiq tries again.
        """
        try:
            self.declare_queue(queue_name, ensure=True)
            return RabbitmqConsumer(self, queue_name, topology.prefetch(queue_name, self.threads), timeout)
        except amqp.AWAY as error:
            raise self.disconnected(queue_name, error) from None

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Publish a message and wait for the confirm; after a dropped connection, again.

        Raises MessageBrokerError where RabbitMQ is away or does not take it, or where a delay is asked for.
        """
        if delay is not None:
            raise MessageBrokerError(
                "Messages are never delayed in the message broker.",
                fix="Give the work a due time in the ledger.",
            )
        for attempt in range(1, ENQUEUE_ATTEMPTS + 1):
            try:
                self._publish(message)
            except amqp.AWAY as error:
                self.queues_pending.add(message.queue_name)
                self._forget_connection()
                if attempt == ENQUEUE_ATTEMPTS:
                    raise amqp.explain(error, self.endpoint) from error
                log.debug("Publishing to %s again: %s", message.queue_name, type(error).__name__)
            else:
                return message
        raise AssertionError("unreachable: the last attempt returns or raises")

    def flush(self, queue_name: str) -> None:
        """Drop the ready messages of one queue; for tests."""
        self.declare_queue(queue_name, ensure=True)
        self.channel.queue_purge(queue_name)

    def disconnected(self, queue_name: str, error: BaseException) -> ConnectionClosed:
        """Forget the connection and what was declared on it.

        Say plainly what happened, for dramatiq's log line.
        """
        self.queues_pending.add(queue_name)
        self._forget_connection()
        return ConnectionClosed(str(amqp.explain(error, self.endpoint)))

    def _forget_connection(self) -> None:
        """Drop this thread's connection. dramatiq's own way logs a traceback where it is closed already."""
        untyped = cast("Any", self)
        known = cast("set[object]", untyped.channels), cast("set[object]", untyped.connections)
        for name, opened_by_all in zip(("channel", "connection"), known, strict=True):
            opened = self.state.__dict__.pop(name, None)
            if opened is not None:
                opened_by_all.discard(opened)
                amqp.close(opened)

    def _publish(self, message: Message[Any]) -> None:
        self.declare_queue(message.queue_name, ensure=True)
        self.emit_before("enqueue", message, None)
        cast("BlockingChannel", self.channel).basic_publish(
            exchange="",
            routing_key=message.queue_name,
            body=encode_message(message),
            properties=pika.BasicProperties(
                content_type="application/json", delivery_mode=pika.DeliveryMode.Persistent.value
            ),
            mandatory=True,
        )
        self.emit_after("enqueue", message, None)


class RabbitmqMessage(HeldMessage):
    """A message that knows on which consumer's channel its delivery tag means anything."""

    def __init__(self, message: Message[Any], *, consumer: RabbitmqConsumer, tag: int) -> None:
        cast("Any", super()).__init__(message)
        self.consumer = consumer
        self.tag = tag


class RabbitmqConsumer(Consumer):
    """One connection and channel that consumes one queue.

    `__next__` runs in dramatiq's consumer thread, `ack` and `nack` in its worker threads.
    """

    def __init__(self, broker: RabbitmqMessageBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.connection = pika.BlockingConnection(broker.consumer_parameters)
        self.loop = cast("amqp.Loop", self.connection)
        self.prefetch = prefetch
        self.timeout = timeout
        self.held = 0
        """Deliveries that are not settled yet; counted in the connection's own thread."""
        self.quiet_since = time.monotonic()
        try:
            self.channel, self.deliveries = self._subscribe()
        except BaseException:
            amqp.close(self.connection)
            raise

    def __next__(self) -> MessageProxy | None:
        """Give the next message, or None where none came in time; raises ConnectionClosed."""
        try:
            method, properties, body = next(self.deliveries)
            if method is None or body is None:
                self._renew_if_quiet()
                return None
        except StopIteration:
            # The queue was deleted, or its leader moved: RabbitMQ cancels, and the generator ends.
            cancelled = ConnectionError("RabbitMQ cancelled the consumer")
            raise self.broker.disconnected(self.queue_name, cancelled) from None
        except amqp.AWAY as error:
            raise self.broker.disconnected(self.queue_name, error) from None
        self.quiet_since = time.monotonic()
        tag = cast("int", method.delivery_tag)
        headers = cast("dict[str, object] | None", properties.headers if properties else None)
        death = death_of(headers) if self.queue_name == topology.DEAD_QUEUE else None
        told = published_ms(cast("object", properties.timestamp) if properties else None, headers)
        message = message_for(
            self.queue_name, body, death=death, published_ms=told, traceparent=(headers or {}).get(TRACEPARENT)
        )
        if message is None:
            log.warning("A message of %s bytes in %s is no wake-up; it is dropped.", len(body), self.queue_name)
            self.channel.basic_ack(tag)
            return None
        self.held += 1
        return RabbitmqMessage(message, consumer=self, tag=tag)

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a message that came from this consumer; drop the acknowledgement of any other."""
        held = self._held(message)
        if held is not None:
            self._soon(held, self._settling(partial(self.channel.basic_ack, held.tag)))

    def nack(self, message: MessageProxy) -> None:
        """Dead-letter a part; give a dead letter, or what was nobody's fault, back after a rest."""
        held = self._held(message)
        if held is None:
            return
        if fate(self.queue_name, held.error) is Fate.REQUEUE:
            give_back = self._settling(partial(self.channel.basic_nack, held.tag, requeue=True))
            self._soon(held, lambda: self.loop.call_later(REQUEUE_DELAY_SECONDS, give_back))
        else:
            self._soon(held, self._settling(partial(self.channel.basic_nack, held.tag, requeue=False)))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Do nothing: RabbitMQ gives back what is not acknowledged when the connection closes."""

    def close(self) -> None:
        """Carry out the acknowledgements that are on their way, then close."""
        handled = Event()
        try:
            self.loop.add_callback_threadsafe(handled.set)
            deadline = time.monotonic() + _CLOSE_SECONDS
            while not handled.is_set() and time.monotonic() < deadline:
                self.loop.process_data_events(time_limit=0.05)
        except amqp.AWAY:
            log.debug("The connection of %s is closed already.", self.queue_name)
        amqp.close(self.connection)

    def _subscribe(self) -> tuple[BlockingChannel, Deliveries]:
        channel = self.connection.channel()
        channel.basic_qos(prefetch_count=self.prefetch)
        deliveries = channel.consume(
            self.queue_name,
            arguments={"x-consumer-timeout": CONSUMER_TIMEOUT_MS},
            inactivity_timeout=self.timeout / 1000,
        )
        return channel, cast("Deliveries", deliveries)

    def _renew_if_quiet(self) -> None:
        """Subscribe anew where nothing has come for a while. Raises pika's exceptions, where the queue is gone too.

        On another channel: one that knew the queue which is gone gets nothing of the one in its place. And not while
        something is held, which can only be acknowledged on its own.
        """
        if self.held or time.monotonic() - self.quiet_since < RENEW_SECONDS:
            return
        amqp.close(self.channel)
        self.channel, self.deliveries = self._subscribe()
        self.quiet_since = time.monotonic()

    def _settling(self, settle: Callable[[], object]) -> Callable[[], object]:
        """Count a delivery as settled when it is; in the connection's own thread."""

        def settle_and_count() -> None:
            self.held -= 1
            settle()

        return settle_and_count

    def _held(self, message: MessageProxy) -> RabbitmqMessage | None:
        if isinstance(message, RabbitmqMessage) and message.consumer is self:
            return message
        _warn_of_redelivery(message)
        return None

    def _soon(self, message: RabbitmqMessage, settle: Callable[[], object]) -> None:
        """Run it in the connection's own thread; pika allows no other."""
        try:
            self.loop.add_callback_threadsafe(settle)
        except amqp.AWAY:
            _warn_of_redelivery(message)


def _warn_of_redelivery(message: MessageProxy) -> None:
    log.warning("%s was done after its connection was lost; RabbitMQ delivers it again.", message)
