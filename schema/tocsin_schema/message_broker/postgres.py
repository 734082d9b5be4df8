"""The message broker of the embedded mode: queues in Postgres that keep RabbitMQ's promises.

From dramatiq-postgres come its table, the heartbeats, the reaper of dead workers and the listener that wakes
consumers. The consumer is our own, since the stock one does not give back the rows of a restarted consumer,
buries rejected messages where nobody looks, pins a connection a queue, and tries for minutes where Postgres
is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import contextmanager, suppress
from importlib import resources
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
from dramatiq.broker import Consumer
from dramatiq.errors import ConnectionClosed
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from tocsin_schema.errors import MessageBrokerError
from tocsin_schema.ledger.connection import describe
from tocsin_schema.ledger.sql import split_queries
from tocsin_schema.message_broker import topology
from tocsin_schema.message_broker.deaths import Death
from tocsin_schema.message_broker.encoder import encode_message, message_for, with_id
from tocsin_schema.message_broker.failures import REQUEUE_DELAY_SECONDS, Fate, HeldMessage, fate

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from dramatiq import Message, MessageProxy, Middleware
    from psycopg.rows import TupleRow

    from tocsin_schema.message_broker.untyped import (  # pyright: ignore[reportMissingModuleSource]  # a stub
        PostgresBroker,
        create_tables,
    )
else:
    from dramatiq_postgres import PostgresBroker
    from dramatiq_postgres import init as create_tables

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 5.0
RECONNECT_SECONDS: Final = 3.0
#: What is not counted by then comes too late for whoever wants to know.
COUNT_SECONDS: Final = 4.0
#: When a count is given up whose server has gone silent in the middle: a line that is dead may never say so.
SILENT_SECONDS: Final = 10.0
ENQUEUE_ATTEMPTS: Final = 2

#: One machine: a worker that is silent for so long is dead, and what it held goes to another.
HEARTBEAT_SECONDS: Final = 5.0
HEARTBEAT_TTL_SECONDS: Final = 20.0
MAINTENANCE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 1.0

QUERIES: Final = split_queries(
    resources.files("tocsin_schema.message_broker").joinpath("queue.sql").read_text(encoding="utf-8")
)

_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed)


def ensure_schema(conninfo: str) -> None:
    """Make the queue's tables where they are missing; safe when several start at once.

    Raises MessageBrokerError.
    """
    try:
        with psycopg.connect(conninfo, connect_timeout=int(CONNECT_SECONDS)) as connection:
            if _is_ready(connection):
                return
            # The library looks before it takes its own lock: of two who begin together, one would fail.
            connection.execute(QUERIES["wait_for_turn"])
            if _is_ready(connection):
                return
            create_tables(connection.cursor())
            connection.execute(QUERIES["add_deliveries"])
    except psycopg.Error as error:
        raise _refusal(error, conninfo) from error


def _is_ready(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(QUERIES["is_ready"]).fetchone()
    return row is not None and bool(row[0])


def ready_messages(conninfo: str) -> dict[str, int] | None:
    """Count the ready messages by queue; empty queues are left out. None where that takes more than `COUNT_SECONDS`.

    Not for callers in an event loop: it runs one of its own, as a server that goes silent is given up only there.
    Raises MessageBrokerError.
    """
    try:
        rows = asyncio.run(_read_ready_messages(conninfo))
    except psycopg.errors.UndefinedTable:
        return {}  # no worker has started yet
    except psycopg.errors.QueryCanceled:
        log.warning("Counting the queues takes more than %g s.", COUNT_SECONDS)
        return None
    except psycopg.Error as error:
        raise _refusal(error, conninfo) from error
    except TimeoutError as error:
        raise MessageBrokerError("The embedded message broker: Postgres went silent.") from error
    return {str(queue): int(count) for queue, count in rows}


async def _read_ready_messages(conninfo: str) -> list[TupleRow]:
    async with (
        asyncio.timeout(SILENT_SECONDS),
        await psycopg.AsyncConnection.connect(conninfo, connect_timeout=int(CONNECT_SECONDS)) as connection,
    ):
        await connection.execute(QUERIES["limit_time"], {"milliseconds": round(COUNT_SECONDS * 1000)})
        return await (await connection.execute(QUERIES["ready_messages"])).fetchall()


class PostgresMessageBroker(PostgresBroker):
    """A dramatiq broker on the embedded Postgres. Make it after the fork: its pool has threads.

    `threads` is how many threads take wake-ups; prefetch follows from it (`topology.prefetch`).
    """

    def __init__(self, conninfo: str, *, threads: int, middleware: Iterable[Middleware]) -> None:
        self.conninfo = conninfo
        self.threads = threads
        self.connections: ConnectionPool[psycopg.Connection[TupleRow]] = ConnectionPool(
            conninfo,
            min_size=0,
            # Every consumer and every working thread may want one at once; the listener keeps one; one to
            # spare.
            max_size=len(topology.QUEUES) + topology.worker_threads(topology.QUEUES, threads) + 2,
            timeout=CONNECT_SECONDS,
            # Attempts come ever more rarely; given up, they begin anew when a consumer asks, which is soon.
            reconnect_timeout=RECONNECT_SECONDS,
            open=True,
            check=ConnectionPool.check_connection,
            # No prepared statements: PgBouncer before 1.21 does not carry them in transaction mode.
            kwargs={
                "connect_timeout": int(CONNECT_SECONDS),
                "prepare_threshold": None,
                "application_name": "tocsin-queue",
            },
            name="tocsin-queue",
        )
        super().__init__(
            pool=self.connections,
            results=False,
            middleware=list(middleware),
            poll_interval=POLL_SECONDS,
            heartbeat_interval=HEARTBEAT_SECONDS,
            heartbeat_ttl=HEARTBEAT_TTL_SECONDS,
            maintenance_interval=MAINTENANCE_SECONDS,
            purge_maxage=None,
        )
        self.in_hand = MessagesInHand()
        self._nudged = Event()
        self.close_channel = f"dramatiq.tocsin.close.{self.worker_id}"

    def connect(self) -> None:
        """Make the tables, and so find out early whether Postgres is there; raises MessageBrokerError."""
        ensure_schema(self.conninfo)

    def declare_queue(self, queue_name: str) -> None:
        """Register a queue of the topology. No delay queue."""
        if queue_name not in topology.ACTORS:
            raise ValueError(f"{queue_name!r} is no queue of ours")
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = True
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:  # noqa: ARG002 - the plan decides
        """Give a consumer with the plan's prefetch, whatever the worker asks for."""
        self.notifier.subscribe(self.close_channel, self._nudged)
        return PostgresConsumer(self, queue_name, topology.prefetch(queue_name, self.threads), timeout)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Insert a message and wait for the commit; after a dropped connection, once more.

        Raises MessageBrokerError where Postgres is away, or where a delay is asked for.
        """
        if delay is not None:
            raise MessageBrokerError(
                "Messages are never delayed in the message broker.",
                fix="Give the work a due time in the ledger.",
            )
        self.emit_before("enqueue", message, None)
        envelope = encode_message(message).decode("utf-8")
        for attempt in range(1, ENQUEUE_ATTEMPTS + 1):
            try:
                with self.connections.connection() as connection:
                    connection.execute(
                        QUERIES["enqueue"],
                        {"queue": message.queue_name, "id": message.message_id, "message": envelope},
                    )
                break
            except _AWAY as error:
                if attempt == ENQUEUE_ATTEMPTS or isinstance(error, PoolTimeout | PoolClosed):
                    raise _refusal(error, self.conninfo) from error
            except psycopg.Error as error:
                raise _refusal(error, self.conninfo) from error
        self.emit_after("enqueue", message, None)
        return message

    def flush(self, queue_name: str) -> None:
        """Drop the ready messages of one queue; for tests."""
        with self.connections.connection() as connection:
            connection.execute(QUERIES["flush"], {"queue": queue_name})

    def close(self) -> None:
        """Stop the listener, then close every connection."""
        self.notifier.stop()
        if self.notifier.is_alive():
            with suppress(*_AWAY), self.connections.connection() as connection:
                connection.execute(QUERIES["nudge"], {"channel": self.close_channel})
            self.notifier.join(CONNECT_SECONDS)
        self.connections.close()


class MessagesInHand:
    """Which messages of each queue this process has handed to its threads; outlives a restarted consumer."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._messages: defaultdict[str, set[str]] = defaultdict(set)

    def take(self, queue: str, message_id: str) -> None:
        """Note that a thread has it, or soon will."""
        with self._lock:
            self._messages[queue].add(message_id)

    def release(self, queue: str, message_id: str) -> None:
        """Note that it is settled."""
        with self._lock:
            self._messages[queue].discard(message_id)

    def of(self, queue: str) -> list[str]:
        """Give the queue's."""
        with self._lock:
            return list(self._messages[queue])


class PostgresConsumer(Consumer):
    """Claims one queue's messages for this process.

    `__next__` runs in dramatiq's consumer thread, `ack` and `nack` in its worker threads. Every method raises
    dramatiq's ConnectionClosed where Postgres is away, after which dramatiq tries again.
    """

    def __init__(self, broker: PostgresMessageBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.wait_seconds = min(timeout / 1000, POLL_SECONDS)
        self.wakeup = Event()
        self.channel = f"dramatiq.{queue_name}.enqueue"
        self.claimed: list[Message[Any]] = []
        self._give_back()
        broker.notifier.subscribe(self.channel, self.wakeup)

    def __next__(self) -> MessageProxy | None:
        """Give the next message, or None where none came in time."""
        self.wakeup.clear()
        if not self.claimed:
            self._claim()
        if self.claimed:
            message = self.claimed.pop(0)
            self.broker.in_hand.take(self.queue_name, message.message_id)
            return HeldMessage(cast("Any", message))
        self.wakeup.wait(self.wait_seconds)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Remove a message that was worked, if it is still ours."""
        self._settle(message.message_id, "acknowledge")

    def nack(self, message: MessageProxy) -> None:
        """Dead-letter a part; give a dead letter, or what was nobody's fault, back after a rest."""
        error = message.error if isinstance(message, HeldMessage) else None
        match fate(self.queue_name, error):
            case Fate.DEAD_LETTER:
                self._dead_letter(message.message_id, cast("bytes", message.args[0]), reason="rejected")
            case Fate.REQUEUE:
                self._settle(message.message_id, "requeue_later", seconds=REQUEUE_DELAY_SECONDS)
            case Fate.ACKNOWLEDGE:
                self._settle(message.message_id, "acknowledge")

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give back what no thread has begun; dramatiq calls this when it stops."""
        for message in messages:
            self.broker.in_hand.release(self.queue_name, message.message_id)
        self._give_back()

    def close(self) -> None:
        """Give back what was claimed and not handed out."""
        self.broker.notifier.unsubscribe(self.channel, self.wakeup)
        self._give_back()

    def _claim(self) -> None:
        room = self.prefetch - len(self.broker.in_hand.of(self.queue_name))
        with self._connection() as connection:
            # The heartbeat comes first: the reaper, here or elsewhere, must never meet an owner that it does
            # not know.
            self.broker.maybe_heartbeat(connection)
            self.broker.maybe_maintenance(connection)
            if room <= 0:
                return
            rows = connection.execute(
                QUERIES["claim"], {"queue": self.queue_name, "limit": room, "worker": self.broker.worker_id}
            ).fetchall()
        for message_id, envelope, deliveries in cast("list[tuple[str, str, int]]", rows):
            self._accept(message_id, envelope.encode("utf-8"), deliveries)

    def _accept(self, message_id: str, envelope: bytes, deliveries: int) -> None:
        message = message_for(self.queue_name, envelope)
        if message is None:
            log.warning("A message of %s bytes in %s is no wake-up; it is dropped.", len(envelope), self.queue_name)
            self._settle(message_id, "acknowledge")
            return
        # As RabbitMQ counts: the first delivery is none of those that the limit is about.
        if self.queue_name in topology.INTAKE_QUEUES and deliveries - 1 > topology.DELIVERY_LIMIT:
            self._dead_letter(message_id, cast("bytes", message.args[0]), reason="delivery_limit")
            return
        self.claimed.append(with_id(message, message_id))

    def _dead_letter(self, message_id: str, part: bytes, *, reason: str) -> None:
        death = Death(reason=reason, queue=self.queue_name, count=1, headers={})
        letter = message_for(topology.DEAD_QUEUE, part, death=death)
        assert letter is not None, "the dead-letter queue takes anything"
        envelope = encode_message(with_id(letter, message_id)).decode("utf-8")
        self._settle(message_id, "dead_letter", dead_queue=topology.DEAD_QUEUE, message=envelope)

    def _settle(self, message_id: str, query: str, **parameters: object) -> None:
        with self._connection() as connection:
            settled = connection.execute(
                QUERIES[query],
                {"id": message_id, "queue": self.queue_name, "worker": self.broker.worker_id, **parameters},
            ).rowcount
        if not settled:
            log.warning("A message of %s was taken from this worker before it was done.", self.queue_name)
        self.broker.in_hand.release(self.queue_name, message_id)
        self.wakeup.set()

    def _give_back(self) -> None:
        self.claimed.clear()
        with self._connection() as connection:
            connection.execute(
                QUERIES["give_back"],
                {
                    "queue": self.queue_name,
                    "worker": self.broker.worker_id,
                    "in_hand": self.broker.in_hand.of(self.queue_name),
                },
            )

    @contextmanager
    def _connection(self) -> Generator[psycopg.Connection[TupleRow]]:
        try:
            with self.broker.connections.connection() as connection:
                yield connection
        except psycopg.Error as error:
            raise ConnectionClosed(str(_refusal(error, self.broker.conninfo))) from None


def _refusal(error: psycopg.Error, conninfo: str) -> MessageBrokerError:
    told = describe(_cause(error, conninfo), conninfo)
    return MessageBrokerError(f"The embedded message broker: {told.problem}", fix=told.fix)


def _cause(error: psycopg.Error, conninfo: str) -> psycopg.Error:
    """Find out why a pool gave no connection in time: it does not tell itself."""
    if isinstance(error, PoolTimeout):
        try:
            psycopg.connect(conninfo, connect_timeout=int(CONNECT_SECONDS)).close()
        except psycopg.Error as cause:
            return cause
    return error
