"""The message broker: RabbitMQ, or queues in the embedded Postgres that keep the same promises.

What it promises:

- A part that was published without an error (`publishing`) stays until an intake actor has returned, whatever
  is killed: it is delivered again if its consumer dies, to the dead-letter queue after
  `topology.DELIVERY_LIMIT` times.
- A part whose actor raised goes to the dead-letter queue exactly once, and stays there until `dead_letter`
  returned.
- A wake-up may be lost or doubled. Whoever sends one does not rely on it; the sweeper makes good what was
  lost.
- Nothing waits here. Whatever must wait has a due time in the ledger.

`topology`, `amqp`, `publishing` and `depths` need pika only; the rest needs the `workers` extra, the embedded broker
`embedded`. Imports of those stay inside the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from tocsin_schema.errors import ConfigurationError
from tocsin_schema.message_broker.topology import ACTORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dramatiq import Message, Middleware

    from tocsin_schema.message_broker.postgres import PostgresMessageBroker
    from tocsin_schema.message_broker.rabbitmq import RabbitmqMessageBroker


def open_broker(
    *, broker_url: str | None, database_url: str, threads: int, middleware: Sequence[Middleware] = ()
) -> RabbitmqMessageBroker | PostgresMessageBroker:
    """Make the dramatiq broker of this installation: RabbitMQ at `broker_url`, or else the embedded one.

    `threads` is how many threads of this process take wake-ups; start dramatiq's worker with
    `topology.worker_threads(queues, threads)`. `middleware` follows ours, which replaces dramatiq's defaults.
    Call it after the fork, and `connect()` on the result to find out early whether the server is there.
    Raises ConfigurationError where the URL cannot be read or an extra is not installed.
    """
    # Inside, because the light install has no dramatiq.
    from tocsin_schema.message_broker.failures import FailedMessages  # noqa: PLC0415

    chain = [FailedMessages(), *middleware]
    if broker_url is not None:
        from tocsin_schema.message_broker.rabbitmq import RabbitmqMessageBroker  # noqa: PLC0415

        return RabbitmqMessageBroker(broker_url, threads=threads, middleware=chain)
    try:
        from tocsin_schema.message_broker.postgres import PostgresMessageBroker  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "Without TOCSIN_BROKER_URL the queues live in Postgres; what that needs is not installed.",
            fix="Set TOCSIN_BROKER_URL, or `pip install tocsin[embedded]`.",
        ) from error
    return PostgresMessageBroker(database_url, threads=threads, middleware=chain)


class Enqueues(Protocol):
    """What `wake` needs of a broker."""

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Put a message on its queue."""
        ...


def wake(broker: Enqueues, queue: str, **hint: str | float | None) -> None:
    """Put a wake-up on a queue; blocks until the broker has it. A coroutine calls it in a thread.

    Raises MessageBrokerError; whoever wakes may ignore that, since the sweeper wakes again.
    """
    from dramatiq import Message  # noqa: PLC0415 - the light install has no dramatiq

    hints: dict[str, Any] = dict(hint)
    broker.enqueue(Message(queue_name=queue, actor_name=ACTORS[queue], args=(), kwargs=hints, options={}))
