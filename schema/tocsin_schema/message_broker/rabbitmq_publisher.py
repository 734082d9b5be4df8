"""Publishing parts to RabbitMQ with gathered confirms: many in flight, none forgotten before it is kept.

A thread of its own drives the connection, so that heartbeats are answered while the caller reads its file.
When the connection ends, it connects and declares anew and publishes again whatever was not confirmed.
"""

from __future__ import annotations

import logging
import time
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Any, Final, Self, cast

import pika
from pika.adapters.select_connection import SelectConnection
from pika.exceptions import ConnectionBlockedTimeout
from pika.spec import Basic

from tocsin_schema.errors import MessageBrokerError
from tocsin_schema.message_broker import amqp, publish_time
from tocsin_schema.message_broker.in_flight import InFlight
from tocsin_schema.message_broker.topology import INTAKE_EXCHANGE, RANKS
from tocsin_schema.trace_context import TRACEPARENT

if TYPE_CHECKING:
    from types import TracebackType

    from pika.channel import Channel
    from pika.frame import Method
    from pika.spec import BasicProperties

log = logging.getLogger(__name__)

MOST_IN_FLIGHT: Final = 200
MOST_BYTES_IN_FLIGHT: Final = 32 * 1024 * 1024
DEADLINE_SECONDS: Final = 30.0

_RECONNECT_SECONDS: Final = 0.5
_REFUSED_REST_SECONDS: Final = 0.2
_STOP_SECONDS: Final = 5.0


class RabbitmqIntakePublisher:
    """An `IntakePublisher` on RabbitMQ. Safe to use from several threads.

    The constructor connects and declares; it raises MessageBrokerError where RabbitMQ is away or refuses us.
    `deadline` is how many seconds each call may take before it gives up.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline: float = DEADLINE_SECONDS,
        most_in_flight: int = MOST_IN_FLIGHT,
        most_bytes_in_flight: int = MOST_BYTES_IN_FLIGHT,
    ) -> None:
        self._parameters = amqp.connection_parameters(url, name="producer")
        self._deadline = deadline
        self._parts = InFlight(most=most_in_flight, most_bytes=most_bytes_in_flight)
        self._changed = Condition()
        self._stopping = Event()
        self._trouble: MessageBrokerError | None = None
        self._connection: SelectConnection | None = None
        self._opening: Channel | None = None
        self._channel: Channel | None = None
        self._published = 0
        amqp.declare_all(self._parameters)
        self._thread = Thread(target=self._run, name="tocsin-publisher", daemon=True)
        self._thread.start()

    def publish(self, body: bytes, rank: str, *, traceparent: str | None = None) -> None:
        """Hand a part over; returns as soon as there is room for it, which is before it is confirmed.

        Only `flush` or `close` say that it is kept. Raises MessageBrokerError where RabbitMQ confirms nothing
        within the deadline, ValueError where there is no such rank.
        """
        if rank not in RANKS:
            raise ValueError(f"no such rank: {rank!r}; there are {', '.join(RANKS)}")
        with self._changed:
            self._wait_until_room(len(body))
            self._parts.add(body, rank, traceparent)
            self._soon(self._pump)

    def flush(self) -> None:
        """Return when every part handed over is confirmed; raises MessageBrokerError after the deadline."""
        with self._changed:
            if not self._changed.wait_for(lambda: not len(self._parts), timeout=self._deadline):
                raise self._overdue()

    def close(self) -> None:
        """Flush, then disconnect. Raises MessageBrokerError as `flush` does, and disconnects all the same."""
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Disconnect without waiting for confirms: what was not flushed may or may not have been kept."""
        self._stopping.set()
        with self._changed:
            self._soon(self._disconnect)
        self._thread.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def _wait_until_room(self, size: int) -> None:
        if self._stopping.is_set():
            raise MessageBrokerError("This publisher is closed.", fix="Open another one.")
        if not self._changed.wait_for(lambda: self._parts.has_room(size), timeout=self._deadline):
            raise self._overdue()

    def _overdue(self) -> MessageBrokerError:
        trouble = self._trouble
        reason = f" {trouble.problem}" if trouble else ""
        return MessageBrokerError(
            f"{amqp.where(self._parameters)} has not confirmed {len(self._parts)} part(s) within "
            f"{self._deadline:g} seconds.{reason}",
            fix=(trouble.fix if trouble else None) or "Publish again with the same id: nothing is doubled by it.",
        )

    # What follows runs in the publisher's own thread, but for `_soon`.

    def _run(self) -> None:
        is_declared = True
        while not self._stopping.is_set():
            try:
                if not is_declared:
                    amqp.declare_all(self._parameters)
                self._run_connection()
            except MessageBrokerError as error:
                self._note(error)
            is_declared = False
            self._stopping.wait(_RECONNECT_SECONDS)

    def _run_connection(self) -> None:
        """Connect, publish, and return when the connection has ended."""
        connection = SelectConnection(
            self._parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
        )
        with self._changed:
            self._connection = connection
            if self._stopping.is_set():
                self._soon(self._disconnect)
        cast("Any", connection).add_on_connection_blocked_callback(self._on_blocked)
        loop = cast("Any", connection).ioloop
        try:
            loop.start()
        finally:
            with self._changed:
                self._connection = self._channel = None
                self._parts.reconnect()
                loop.close()

    def _soon(self, callback: object) -> None:
        """Have the publisher's thread call it, if it is connected.

        Called with the lock held, by any thread.
        """
        if self._connection is not None:
            cast("Any", self._connection).ioloop.add_callback_threadsafe(callback)

    def _disconnect(self) -> None:
        connection = self._connection
        if connection is not None and not connection.is_closing and not connection.is_closed:
            connection.close()

    def _on_open(self, connection: SelectConnection) -> None:
        if self._stopping.is_set():
            self._disconnect()
            return
        cast("Any", connection).channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Channel) -> None:
        untyped = cast("Any", channel)
        untyped.add_on_close_callback(self._on_channel_closed)
        untyped.add_on_return_callback(self._on_return)
        self._opening = channel
        untyped.confirm_delivery(self._on_confirm, callback=self._on_ready)

    def _on_ready(self, _frame: object) -> None:
        with self._changed:
            self._channel = self._opening
            self._published = 0
        self._pump()

    def _pump(self) -> None:
        """Publish whatever waits."""
        with self._changed:
            channel = self._channel
            while channel is not None and channel.is_open:
                part = self._parts.publish_next(self._published + 1)
                if part is None:
                    return
                self._published += 1
                timestamp, headers = publish_time.properties_at(time.time())
                if part.traceparent is not None:
                    headers[TRACEPARENT] = part.traceparent
                channel.basic_publish(
                    INTAKE_EXCHANGE,
                    part.rank,
                    part.body,
                    pika.BasicProperties(
                        content_type="application/json",
                        delivery_mode=pika.DeliveryMode.Persistent.value,
                        message_id=str(part.number),
                        timestamp=timestamp,
                        headers=headers,
                    ),
                    mandatory=True,
                )

    def _on_confirm(self, frame: Method[Any]) -> None:
        method = cast("Basic.Ack | Basic.Nack", frame.method)
        tag, multiple = cast("int", method.delivery_tag), bool(method.multiple)
        with self._changed:
            if isinstance(method, Basic.Ack):
                if self._parts.confirm(tag, multiple=multiple):
                    self._trouble = None
                else:
                    # Something deleted our exchange or queue: a new connection declares them again.
                    self._disconnect()
            else:
                self._parts.refuse(tag, multiple=multiple)
                if self._connection is not None:
                    cast("Any", self._connection).ioloop.call_later(_REFUSED_REST_SECONDS, self._pump)
            self._changed.notify_all()

    def _on_return(self, _channel: Channel, _method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        with self._changed:
            self._parts.note_unroutable(int(cast("str", properties.message_id)))

    def _on_blocked(self, _connection: object, _frame: object) -> None:
        self._note(amqp.explain(ConnectionBlockedTimeout(), self._parameters))

    def _on_channel_closed(self, _channel: Channel, reason: BaseException) -> None:
        if not self._stopping.is_set():
            self._note(amqp.explain(reason, self._parameters))
        self._disconnect()

    def _on_end(self, connection: SelectConnection, reason: BaseException | str) -> None:
        if not self._stopping.is_set() and isinstance(reason, BaseException):
            self._note(amqp.explain(reason, self._parameters))
        cast("Any", connection).ioloop.stop()

    def _note(self, trouble: MessageBrokerError) -> None:
        with self._changed:
            if self._trouble is None or str(self._trouble) != str(trouble):
                log.warning("%s", trouble)
            self._trouble = trouble
