"""How many messages lie on each queue, for the metrics."""

from __future__ import annotations

from tocsin_schema.errors import ConfigurationError
from tocsin_schema.message_broker import amqp
from tocsin_schema.message_broker.topology import QUEUES


def queue_depths(*, broker_url: str | None, database_url: str) -> dict[str, int]:
    """Count the ready messages of every queue of ours; 0 where a queue has not been made yet.

    Empty where counting them takes too long: the message broker is there all the same.

    Opens one connection, to RabbitMQ at `broker_url` or else to the embedded message broker, and closes it again.
    Raises MessageBrokerError where the server is away or refuses us, ConfigurationError where the URL cannot be
    read or an extra is not installed.
    """
    if broker_url is not None:
        return _in_rabbitmq(broker_url)
    try:
        from tocsin_schema.message_broker.postgres import ready_messages  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "Without TOCSIN_BROKER_URL the queues live in Postgres; what that needs is not installed.",
            fix="Set TOCSIN_BROKER_URL, or `pip install tocsin[embedded]`.",
        ) from error
    counted = ready_messages(database_url)
    return {} if counted is None else dict.fromkeys(QUEUES, 0) | counted


def _in_rabbitmq(url: str) -> dict[str, int]:
    parameters = amqp.connection_parameters(url, name="depths")
    # A server that takes the connection and then says nothing must not hold up who scrapes, mostly for 10 s at most.
    parameters.stack_timeout = amqp.CONNECT_SECONDS
    connection = amqp.connect(parameters)
    try:
        return {queue: amqp.depth(connection, queue) for queue in QUEUES}
    except amqp.AWAY as error:
        raise amqp.explain(error, parameters) from error
    finally:
        amqp.close(connection)
