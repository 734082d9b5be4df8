"""Putting parts on the intake queues, and knowing that they are kept.

Used by producers, and by the operator to put a dead letter back. On RabbitMQ it needs pika only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from tocsin_schema.errors import ConfigurationError, UsageError
from tocsin_schema.message_broker.topology import ACTORS, intake_queue
from tocsin_schema.trace_context import TRACEPARENT

if TYPE_CHECKING:
    from types import TracebackType

    from tocsin_schema.message_broker.postgres import PostgresMessageBroker


class IntakePublisher(Protocol):
    """Hands parts over.

    As a context manager it closes itself, and flushes unless an exception goes through it.
    """

    def publish(self, body: bytes, rank: str, *, traceparent: str | None = None) -> None:
        """Hand a part over; it is known to be kept only after `flush` or `close`.

        `traceparent` is the trace context that goes with it.

        Raises MessageBrokerError where the broker takes nothing within the deadline, ValueError where there
        is no such rank.
        """
        ...

    def flush(self) -> None:
        """Return when everything handed over is kept; raises MessageBrokerError after the deadline."""
        ...

    def close(self) -> None:
        """Flush and disconnect; raises MessageBrokerError as `flush` does, and disconnects all the same."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_publisher(*, broker_url: str | None, database_url: str | None = None) -> IntakePublisher:
    """Connect to the installation's message broker: RabbitMQ at `broker_url`, or else the embedded one.

    Raises MessageBrokerError where the server is away or refuses us, ConfigurationError where the URL cannot
    be read or an extra is not installed, UsageError where both URLs are None.
    """
    if broker_url is not None:
        from tocsin_schema.message_broker.rabbitmq_publisher import RabbitmqIntakePublisher  # noqa: PLC0415

        return RabbitmqIntakePublisher(broker_url)
    if database_url is None:
        raise UsageError("There is no message broker to publish to.", fix="Set TOCSIN_BROKER_URL.")
    try:
        from tocsin_schema.message_broker.postgres import PostgresMessageBroker  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "Publishing without RabbitMQ needs the embedded message broker, which is not installed.",
            fix="Set TOCSIN_BROKER_URL, or `pip install tocsin[embedded]`.",
        ) from error
    return PostgresIntakePublisher(PostgresMessageBroker(database_url, threads=1, middleware=()))


class PostgresIntakePublisher:
    """An `IntakePublisher` on the embedded message broker.

    Each part is committed before `publish` returns.
    """

    def __init__(self, broker: PostgresMessageBroker) -> None:
        self._broker = broker
        try:
            broker.connect()
        except BaseException:
            broker.close()
            raise

    def publish(self, body: bytes, rank: str, *, traceparent: str | None = None) -> None:
        """Insert and commit.

        Raises MessageBrokerError where Postgres is away, ValueError for an unknown rank.
        """
        from dramatiq import Message  # noqa: PLC0415 - the light install has no dramatiq

        queue = intake_queue(rank)
        options = {} if traceparent is None else {TRACEPARENT: traceparent}
        self._broker.enqueue(
            Message(queue_name=queue, actor_name=ACTORS[queue], args=(body,), kwargs={}, options=options)
        )

    def flush(self) -> None:
        """Return at once: nothing is in flight."""

    def close(self) -> None:
        """Close the connections."""
        self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
