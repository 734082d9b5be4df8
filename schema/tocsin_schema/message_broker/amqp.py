"""Connections to RabbitMQ: opening them, declaring what we need, and what their failures mean to a person.

Needs pika only, so that the light producer client can use it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException, AMQPConnectorStackTimeout
from pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosedByBroker,
    ConnectionBlockedTimeout,
    ConnectionClosed,
    IncompatibleProtocolError,
    NackError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)

from tocsin_schema.errors import ConfigurationError, MessageBrokerError
from tocsin_schema.message_broker.topology import (
    DEAD_QUEUE,
    INTAKE_EXCHANGE,
    INTAKE_QUEUES,
    QUEUES,
    queue_arguments,
)
from tocsin_schema.server_urls import HOW_TO_WRITE_PASSWORDS, is_plain_amqp_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pika.adapters.blocking_connection import BlockingChannel

HEARTBEAT_SECONDS = 30
BLOCKED_SECONDS = 30.0
"""How long a memory or disk alarm may hold a publisher up before its connection is given up."""
CONNECT_SECONDS = 5.0

#: What a session with RabbitMQ may raise when RabbitMQ is away, restarting, or cut us off. pika lets the
#: operating system's errors through where a name does not resolve, asserts where it is cut off while opening, and
#: raises what is no AMQPError where a server takes a connection and says nothing.
AWAY = (AMQPError, AMQPConnectorException, OSError, AssertionError)

_NOT_FOUND = 404
_PRECONDITION_FAILED = 406


class Loop(Protocol):
    """The part of a pika connection that drives it; pika itself leaves these untyped."""

    def add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        """Run it in the connection's own thread, soon; the only method that another thread may call."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object]) -> object:
        """Run it after `delay` seconds."""
        ...

    def process_data_events(self, time_limit: float) -> None:
        """Read and write for up to `time_limit` seconds."""
        ...


def connection_parameters(url: str, *, name: str) -> pika.URLParameters:
    """Read an AMQP URL; `name` is shown in RabbitMQ's list of connections.

    The URL's own query parameters (https://www.rabbitmq.com/docs/uri-query-parameters) win over our defaults.
    Raises ConfigurationError, which does not show the URL, since a password stands in it.
    """
    try:
        parameters = pika.URLParameters(url) if is_plain_amqp_url(url) else None
    except (ValueError, TypeError, IndexError):
        parameters = None
    if parameters is None:
        raise ConfigurationError(
            "The message broker's URL cannot be read.",
            fix=f"It must look like amqp://user:password@host:5672/vhost; {HOW_TO_WRITE_PASSWORDS}.",
        )
    if parameters.heartbeat is None:
        parameters.heartbeat = HEARTBEAT_SECONDS
    if parameters.blocked_connection_timeout is None:
        parameters.blocked_connection_timeout = BLOCKED_SECONDS
    if "socket_timeout" not in url:
        parameters.socket_timeout = CONNECT_SECONDS
    if "stack_timeout" not in url:
        parameters.stack_timeout = 2 * CONNECT_SECONDS
    parameters.client_properties = {"connection_name": f"tocsin {name}", "product": "Tocsin"}
    return parameters


def where(parameters: pika.ConnectionParameters | pika.URLParameters) -> str:
    """Name the endpoint without the password."""
    return f"RabbitMQ at {parameters.host}:{parameters.port}"


def connect(parameters: pika.URLParameters) -> pika.BlockingConnection:
    """Open a blocking connection; raises MessageBrokerError with a plain reason."""
    try:
        return pika.BlockingConnection(parameters)
    except AWAY as error:
        raise explain(error, parameters) from error


def explain(error: BaseException, parameters: pika.URLParameters) -> MessageBrokerError:
    """Say in plain words why RabbitMQ did not do it."""
    problem, fix = _diagnose(error, parameters)
    return MessageBrokerError(f"{where(parameters)} {problem}.", fix=fix)


def _diagnose(error: BaseException, parameters: pika.URLParameters) -> tuple[str, str]:  # noqa: PLR0911 - a table
    """Give what is wrong, as the rest of a sentence, and what to do."""
    match error:
        case ChannelClosedByBroker(reply_code=403):
            return (
                f"does not let this user do that: {_words(error.reply_text)}",
                "Give the user the rights to configure, write and read `tocsin.*`.",
            )
        case ChannelClosedByBroker(reply_code=406):
            return (
                f"holds a queue or exchange of ours in another form: {_words(error.reply_text)}",
                "Let its queue run empty, delete it, and it is made anew.",
            )
        case AuthenticationError() | ProbableAuthenticationError() | ConnectionClosed(reply_code=403):
            return ("refuses the user name or password", "Correct them in TOCSIN_BROKER_URL.")
        case ProbableAccessDeniedError() | ConnectionClosed(reply_code=530):
            return (
                f"has no virtual host {parameters.virtual_host!r}, or does not let this user in",
                "Create it, or correct TOCSIN_BROKER_URL.",
            )
        case ConnectionBlockedTimeout():
            return (
                "takes no messages: a memory or disk alarm blocks publishers",
                "Free memory or disk there.",
            )
        case NackError() | UnroutableError():
            return ("did not take a message", "Look at its log and its queues.")
        case IncompatibleProtocolError():
            return ("does not speak AMQP 0-9-1", "Check host, port and scheme (amqp, amqps).")
        case AMQPConnectorStackTimeout():
            return ("takes connections and says nothing", "Look at its log, and at what stands between here and it.")
        case _:
            return (
                f"cannot be reached: {_reason(error)}",
                "Check that it runs and that TOCSIN_BROKER_URL is right.",
            )


def declare_all(parameters: pika.URLParameters, queues: Iterable[str] = QUEUES) -> None:
    """Declare the exchange and the queues, so that what is published is kept before any worker has started.

    Raises MessageBrokerError.
    """
    connection = connect(parameters)
    try:
        for queue in queues:
            declare(connection, queue)
    except AWAY as error:
        raise explain(error, parameters) from error
    finally:
        close(connection)


def declare(connection: pika.BlockingConnection, queue: str) -> None:
    """Declare one queue as `topology` describes it; an intake queue with its exchange and where its dead go.

    Raises pika's exceptions.
    """
    if queue in INTAKE_QUEUES:
        declare(connection, DEAD_QUEUE)
    major = server_major(connection)
    try:
        _declare(connection, queue, queue_arguments(queue, rabbitmq_major=major))
    except ChannelClosedByBroker as error:
        if queue != DEAD_QUEUE or error.reply_code != _PRECONDITION_FAILED:
            raise
        # A dead-letter queue from before RabbitMQ was upgraded to 4 is as good, but for its delivery limit.
        _declare(connection, queue, queue_arguments(queue, rabbitmq_major=3))


def depth(connection: pika.BlockingConnection, queue: str) -> int:
    """Count the messages that are ready in a queue.

    0 where there is no such queue. Raises pika's exceptions.
    """
    channel = connection.channel()
    try:
        answer = channel.queue_declare(queue, passive=True)
        return cast("int", cast("Any", answer.method).message_count)
    except ChannelClosedByBroker as error:
        if error.reply_code == _NOT_FOUND:
            return 0
        raise
    finally:
        close(channel)


def server_major(connection: pika.BlockingConnection) -> int:
    """Give the server's major version, as it names itself in the handshake; 3 where it does not."""
    # pika keeps the handshake in its inner connection only.
    inner = cast("Any", connection)._impl  # noqa: SLF001 - no public way
    properties = cast("dict[str, object]", inner.server_properties or {})
    version = properties.get("version", "3")
    text = version.decode("ascii", errors="replace") if isinstance(version, bytes) else str(version)
    major = text.split(".", 1)[0]
    return int(major) if major.isascii() and major.isdigit() else 3


def close(closable: pika.BlockingConnection | BlockingChannel) -> None:
    """Close a connection or channel, whatever state it is in."""
    with suppress(*AWAY):
        cast("Any", closable).close()


def _declare(connection: pika.BlockingConnection, queue: str, arguments: dict[str, str | int]) -> None:
    channel = connection.channel()
    try:
        channel.queue_declare(queue, durable=True, arguments=arguments)
        if queue in INTAKE_QUEUES:
            channel.exchange_declare(INTAKE_EXCHANGE, exchange_type="direct", durable=True)
            channel.queue_bind(queue, INTAKE_EXCHANGE, routing_key=queue.rsplit(".", 1)[-1])
    finally:
        close(channel)


def _reason(error: BaseException) -> str:
    """Find words in pika's nest of exceptions, the innermost of which often has the only ones."""
    nested = cast("object", getattr(error, "exception", None)) or (error.args[0] if error.args else None)
    if isinstance(nested, BaseException):
        return _reason(nested)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _words(str(error)) or "nothing answers there"


def _words(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
