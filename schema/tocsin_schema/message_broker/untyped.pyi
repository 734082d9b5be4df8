# What we use of dramatiq-postgres 1.4.0, which ships no types. For the type checker only.

from threading import Event
from typing import Any

from dramatiq import Broker, Message, Middleware
from dramatiq.broker import Consumer
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

class Notifier:
    def subscribe(self, channel: str, event: Event) -> None: ...
    def unsubscribe(self, channel: str, event: Event) -> None: ...
    def stop(self) -> None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...

class PostgresBroker(Broker):
    notifier: Notifier
    worker_id: str
    def __init__(
        self,
        *,
        pool: ConnectionPool[Connection[TupleRow]],
        results: bool,
        middleware: list[Middleware],
        poll_interval: float,
        heartbeat_interval: float,
        heartbeat_ttl: float,
        maintenance_interval: float,
        purge_maxage: str | None,
    ) -> None: ...
    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer: ...
    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]: ...
    def maybe_heartbeat(self, conn: Connection[TupleRow]) -> None: ...
    def maybe_maintenance(self, conn: Connection[TupleRow]) -> None: ...

def create_tables(curs: Cursor[TupleRow]) -> bool: ...
