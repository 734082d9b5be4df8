"""One suite for both message brokers: what one promises, the other keeps."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dramatiq
import dramatiq.worker
import pika
import psycopg
import pytest
from dramatiq.middleware import AsyncIO, Middleware

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.errors import LedgerError, MessageBrokerError
from tocsin_schema.message_broker import amqp, open_broker, topology, wake
from tocsin_schema.message_broker.depths import queue_depths
from tocsin_schema.message_broker.publishing import open_publisher
from tocsin_schema.message_broker.topology import ACTORS, DEAD_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.servers.postgres import PostgresServer
    from tests.servers.rabbitmq import RabbitmqNode
    from tocsin_schema.message_broker.deaths import Death

NORMAL = "tocsin.intake.normal"
MEBIBYTE = 1024 * 1024
"""Seconds after which something that must happen has not."""


@dataclass
class Place:
    """One message broker, empty, and the tests' ways into it."""

    kind: str
    broker_url: str | None
    database_url: str
    close_connections: Callable[[], object]
    brokers: list[Any] = field(default_factory=list)

    def open(self, *middleware: Middleware, threads: int = 4) -> Any:
        broker = open_broker(
            broker_url=self.broker_url, database_url=self.database_url, threads=threads, middleware=middleware
        )
        broker.connect()
        self.brokers.append(broker)
        return broker

    def publish(self, *bodies: bytes, rank: str = "normal") -> None:
        with open_publisher(broker_url=self.broker_url, database_url=self.database_url) as publisher:
            for body in bodies:
                publisher.publish(body, rank)

    def depth(self, name: str) -> int:
        return queue_depths(broker_url=self.broker_url, database_url=self.database_url)[name]

    @contextmanager
    def hanging_worker(self) -> Generator[subprocess.Popen[str]]:
        """A worker process that takes a part, says so on its standard output, and never finishes it."""
        process = subprocess.Popen(
            [sys.executable, "-c", HANGING_WORKER],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "BROKER": self.broker_url or "",
                "DATABASE": self.database_url,
                "LIMIT": str(topology.DELIVERY_LIMIT),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "taken\n"
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


HANGING_WORKER = """
import os, threading, time, dramatiq
from dramatiq.worker import Worker
from tocsin_schema.message_broker import open_broker, postgres, topology
topology.DELIVERY_LIMIT = int(os.environ["LIMIT"])
postgres.HEARTBEAT_SECONDS = 0.2
broker = open_broker(broker_url=os.environ["BROKER"] or None, database_url=os.environ["DATABASE"], threads=4)
broker.connect()
def hang(part, published_ms=None):
    print("taken", flush=True)
    threading.Event().wait()
dramatiq.actor(hang, broker=broker, actor_name="intake_normal", queue_name="tocsin.intake.normal")
Worker(broker, worker_threads=1, worker_timeout=100).start()
time.sleep(60)
"""


@pytest.fixture(params=["rabbitmq", "postgres"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Generator[Place]:
    # Only how long things rest is changed, so that the suite does not spend its time waiting.
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.2)
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.2)
    for module in ("rabbitmq", "postgres"):
        monkeypatch.setattr(f"tocsin_schema.message_broker.{module}.REQUEUE_DELAY_SECONDS", 0.1)
    for name, seconds in (("HEARTBEAT", 0.2), ("HEARTBEAT_TTL", 1.0), ("MAINTENANCE", 0.3), ("POLL", 0.2)):
        monkeypatch.setattr(f"tocsin_schema.message_broker.postgres.{name}_SECONDS", seconds)
    if request.param == "rabbitmq":
        node: RabbitmqNode = request.getfixturevalue("rabbitmq_node")
        url = node.create_vhost()
        place = Place("rabbitmq", url, "", lambda: node.close_all_connections(url))
        yield place
        for broker in place.brokers:
            broker.close()
        node.delete_vhost(url)
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = server.create_database()
        place = Place("postgres", None, database, lambda: terminate_backends(database))
        yield place
        for broker in place.brokers:
            broker.close()
        server.drop_database(database)


def terminate_backends(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def on(broker: Any, name: str, work: Callable[..., object]) -> None:
    declare: Any = dramatiq.actor

    def take(part: bytes, published_ms: int | None = None) -> None:
        work(part)

    declare(take if name in topology.INTAKE_QUEUES else work, broker=broker, actor_name=ACTORS[name], queue_name=name)


@contextmanager
def working(broker: Any, *, threads: int = 4) -> Generator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def put_all(into: queue.Queue[Any]) -> Callable[..., None]:
    def work(*args: Any, **kwargs: Any) -> None:
        into.put((args, kwargs))

    return work


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    "body",
    [
        b'{"profile": "ops", "recipients": []}',
        b"",
        b"nul \x00 and \\u0000",
        b"\xff\xfe not UTF-8",
        b'{"queue_name": "tocsin.tokens", "actor_name": "token_broker"}',
        os.urandom(8 * MEBIBYTE),
    ],
    ids=["json", "empty", "nul", "not-utf-8", "like-an-envelope", "8-MiB"],
)
def test_a_part_reaches_intake_byte_for_byte_though_published_before_any_worker(place: Place, body: bytes) -> None:
    place.publish(body)
    taken: queue.Queue[Any] = queue.Queue()
    broker = place.open()
    on(broker, NORMAL, put_all(taken))
    with working(broker):
        args, kwargs = taken.get(timeout=PATIENCE_SECONDS)
    assert (args, kwargs) == ((body,), {})
    assert place.depth(NORMAL) == place.depth(DEAD_QUEUE) == 0


def test_each_rank_has_its_own_way(place: Place) -> None:
    taken: queue.Queue[Any] = queue.Queue()
    broker = place.open()
    for rank in topology.RANKS:
        place.publish(rank.encode(), rank=rank)
        on(broker, topology.intake_queue(rank), lambda part, rank=rank: taken.put((rank, part)))
    with working(broker):
        got = {taken.get(timeout=PATIENCE_SECONDS) for _ in topology.RANKS}
    assert got == {(rank, rank.encode()) for rank in topology.RANKS}


def test_every_queue_is_counted_also_before_it_is_made(place: Place) -> None:
    def depths() -> dict[str, int]:
        return queue_depths(broker_url=place.broker_url, database_url=place.database_url)

    assert depths() == dict.fromkeys(topology.QUEUES, 0)
    place.publish(b"1", b"2", rank="bulk")
    place.publish(b"3", rank="urgent")
    eventually(
        lambda: depths() == {**dict.fromkeys(topology.QUEUES, 0), "tocsin.intake.bulk": 2, "tocsin.intake.urgent": 1}
    )


def test_an_unknown_rank_is_refused(place: Place) -> None:
    with pytest.raises(ValueError, match="no such rank"):
        place.publish(b"x", rank="soon")


def test_a_part_whose_actor_raised_becomes_a_dead_letter_exactly_once(place: Place) -> None:
    letters: queue.Queue[tuple[bytes, Death]] = queue.Queue()
    runs: list[bytes] = []

    def fail(part: bytes) -> None:
        runs.append(part)
        raise ValueError("cannot be taken in")

    broker = place.open()
    on(broker, NORMAL, fail)
    on(broker, DEAD_QUEUE, lambda part, death: letters.put((part, death)))
    bodies = [b"bad \x00\xff", b"worse", b"worst"]
    with working(broker):
        for body in bodies:
            # One after the other, so that a twin of the first would come before the last.
            place.publish(body)
            part, death = letters.get(timeout=PATIENCE_SECONDS)
            assert part == body
            assert (death["reason"], death["queue"], death["count"]) == ("rejected", NORMAL, 1)
    assert runs == bodies
    assert letters.empty()
    assert place.depth(NORMAL) == place.depth(DEAD_QUEUE) == 0


def test_a_dead_letter_stays_until_its_actor_succeeds(place: Place) -> None:
    tried: queue.Queue[bytes] = queue.Queue()
    done = threading.Event()

    def fail(_part: bytes) -> None:
        raise ValueError("no")

    def keep(part: bytes, _death: Death) -> None:
        tried.put(part)
        if tried.qsize() < 3:
            raise LedgerError("Postgres is away.")
        done.set()

    broker = place.open()
    on(broker, NORMAL, fail)
    on(broker, DEAD_QUEUE, keep)
    place.publish(b"precious")
    with working(broker):
        assert done.wait(PATIENCE_SECONDS)
    assert [tried.get_nowait() for _ in range(tried.qsize())] == [b"precious"] * 3
    assert place.depth(DEAD_QUEUE) == 0


def test_a_part_that_failed_for_want_of_the_ledger_is_tried_again_and_no_dead_letter(place: Place) -> None:
    tried: queue.Queue[bytes] = queue.Queue()
    done = threading.Event()

    def intake(part: bytes) -> None:
        tried.put(part)
        if tried.qsize() == 1:
            raise LedgerError("Postgres is away.")
        done.set()

    broker = place.open()
    on(broker, NORMAL, intake)
    place.publish(b"innocent")
    with working(broker):
        assert done.wait(PATIENCE_SECONDS)
    assert place.depth(NORMAL) == place.depth(DEAD_QUEUE) == 0


def test_a_part_whose_worker_was_killed_is_delivered_again(place: Place) -> None:
    place.publish(b"once more")
    with place.hanging_worker():
        pass
    taken: queue.Queue[Any] = queue.Queue()
    broker = place.open()
    on(broker, NORMAL, put_all(taken))
    with working(broker):
        assert taken.get(timeout=PATIENCE_SECONDS) == ((b"once more",), {})


def test_a_part_that_kills_its_workers_ends_as_a_dead_letter(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "DELIVERY_LIMIT", 1)
    place.publish(b"poison")
    for _ in range(2):
        with place.hanging_worker():
            pass
        if place.kind == "postgres":
            give_back_what_dead_workers_held(place)
    letters: queue.Queue[tuple[bytes, Death]] = queue.Queue()
    broker = place.open()
    on(broker, NORMAL, lambda _part: pytest.fail("it was handed out once more"))
    on(broker, DEAD_QUEUE, lambda part, death: letters.put((part, death)))
    with working(broker):
        part, death = letters.get(timeout=PATIENCE_SECONDS)
    assert part == b"poison"
    assert (death["reason"], death["queue"]) == ("delivery_limit", NORMAL)


def give_back_what_dead_workers_held(place: Place) -> None:
    """Run the reaper, as any live worker would."""
    broker = place.open()
    on(broker, "tocsin.sweep", lambda: None)
    with working(broker):
        eventually(lambda: place.depth(NORMAL) == 1)


def test_finished_work_is_not_delivered_again(place: Place) -> None:
    taken: queue.Queue[Any] = queue.Queue()
    broker = place.open()
    on(broker, NORMAL, put_all(taken))
    bodies = [b"%d" % number for number in range(20)]
    place.publish(*bodies)
    with working(broker):
        assert [taken.get(timeout=PATIENCE_SECONDS)[0][0] for _ in bodies] == bodies
    broker = place.open()
    on(broker, NORMAL, put_all(taken))
    place.publish(b"marker")
    with working(broker):
        assert taken.get(timeout=PATIENCE_SECONDS) == ((b"marker",), {})
    assert place.depth(NORMAL) == 0


def test_work_that_was_not_begun_at_stop_goes_back(place: Place) -> None:
    begun, may_end = threading.Event(), threading.Event()
    taken: queue.Queue[Any] = queue.Queue()

    def work(number: int) -> None:
        taken.put(number)
        begun.set()
        may_end.wait(PATIENCE_SECONDS)

    broker = place.open()
    on(broker, "tocsin.tokens", work)
    for number in range(2):
        wake(broker, "tocsin.tokens", number=number)
    with working(broker, threads=1):
        assert begun.wait(PATIENCE_SECONDS)
        eventually(lambda: place.depth("tocsin.tokens") == 0)  # the second is held, not begun
        threading.Timer(0.2, may_end.set).start()
    broker = place.open()
    on(broker, "tocsin.tokens", work)
    with working(broker):
        assert sorted(taken.get(timeout=PATIENCE_SECONDS) for _ in range(2)) == [0, 1]


def test_a_wake_up_runs_a_coroutine_actor_with_its_hint(place: Place) -> None:
    taken: queue.Queue[Any] = queue.Queue()
    broker = place.open(AsyncIO())

    async def sender(*, profile: str, attempt: int) -> None:
        taken.put((profile, attempt))

    on(broker, "tocsin.send.urgent", sender)
    with working(broker):
        wake(broker, "tocsin.send.urgent", profile="ops", attempt=2)
        assert taken.get(timeout=PATIENCE_SECONDS) == ("ops", 2)


def test_a_wake_up_whose_actor_raised_is_gone(place: Place) -> None:
    runs: queue.Queue[int] = queue.Queue()

    def sweep(number: int) -> None:
        runs.put(number)
        if number == 0:
            raise ValueError("no")

    broker = place.open()
    on(broker, "tocsin.sweep", sweep)
    with working(broker):
        for number in range(3):
            wake(broker, "tocsin.sweep", number=number)
        assert [runs.get(timeout=PATIENCE_SECONDS) for _ in range(3)] == [0, 1, 2]
    assert place.depth("tocsin.sweep") == place.depth(DEAD_QUEUE) == 0


def test_nothing_is_lost_when_the_server_closes_every_connection(place: Place) -> None:
    bodies = [b"%d" % number for number in range(60)]
    seen: set[bytes] = set()
    third, all_seen = threading.Event(), threading.Event()

    def intake(part: bytes) -> None:
        seen.add(part)
        if len(seen) == len(bodies) // 3:
            third.set()
        if len(seen) == len(bodies):
            all_seen.set()

    broker = place.open()
    on(broker, NORMAL, intake)
    place.publish(*bodies)
    with working(broker):
        assert third.wait(PATIENCE_SECONDS)
        place.close_connections()
        assert all_seen.wait(PATIENCE_SECONDS)
        eventually(lambda: place.depth(NORMAL) == 0)
        # What was done while the connection was away may come twice, and is not stuck.
    assert place.depth(DEAD_QUEUE) == 0


def test_work_begun_before_a_connection_broke_ends_well(place: Place) -> None:
    begun, may_end = threading.Event(), threading.Event()
    runs: queue.Queue[bytes] = queue.Queue()

    def intake(part: bytes) -> None:
        runs.put(part)
        begun.set()
        may_end.wait(PATIENCE_SECONDS)

    broker = place.open()
    on(broker, NORMAL, intake)
    place.publish(b"slow", b"next")
    with working(broker):
        assert begun.wait(PATIENCE_SECONDS)
        place.close_connections()
        may_end.set()
        eventually(lambda: {b"slow", b"next"} <= set(runs.queue))
        eventually(lambda: place.depth(NORMAL) == 0)
    fresh = place.open()
    on(fresh, NORMAL, put_all(runs))
    place.publish(b"marker")
    with working(fresh):
        eventually(lambda: runs.queue[-1] == ((b"marker",), {}))


def test_a_worker_holds_no_more_than_the_plan_allows(place: Place) -> None:
    begun: queue.Queue[Any] = queue.Queue()
    may_end = threading.Event()

    def work(*args: Any, **kwargs: Any) -> None:
        begun.put(args)
        may_end.wait(PATIENCE_SECONDS)

    broker = place.open(threads=8)
    on(broker, NORMAL, work)
    on(broker, "tocsin.send.normal", work)
    place.publish(*[b"%d" % number for number in range(3)])
    for number in range(6):
        wake(broker, "tocsin.send.normal", number=number)
    try:
        with working(broker, threads=12):
            for _ in range(1 + 3):
                begun.get(timeout=PATIENCE_SECONDS)
            eventually(lambda: place.depth(NORMAL) == 3 - 1)
            eventually(lambda: place.depth("tocsin.send.normal") == 6 - 3)
            assert begun.empty()
            may_end.set()
            for _ in range(2 + 3):
                begun.get(timeout=PATIENCE_SECONDS)
    finally:
        may_end.set()


def test_nothing_can_be_delayed_in_the_broker(place: Place) -> None:
    broker = place.open()
    on(broker, "tocsin.sweep", lambda: None)
    with pytest.raises(MessageBrokerError, match="due time in the ledger"):
        broker.get_actor("sweeper").send_with_options(delay=1000)
    assert broker.get_declared_delay_queues() == set()


def test_a_queue_that_nobody_knows_is_refused(place: Place) -> None:
    broker = place.open()
    with pytest.raises(ValueError, match="no queue of ours"):
        broker.declare_queue("default")


def test_what_is_no_wake_up_is_dropped_and_the_next_is_worked(place: Place) -> None:
    runs: queue.Queue[Any] = queue.Queue()
    broker = place.open()
    on(broker, "tocsin.sweep", put_all(runs))
    broker.enqueue(
        dramatiq.Message(queue_name="tocsin.sweep", actor_name="intake_bulk", args=(b"x",), kwargs={}, options={})
    )
    wake(broker, "tocsin.sweep", number=1)
    with working(broker):
        assert runs.get(timeout=PATIENCE_SECONDS) == ((), {"number": 1})
    assert place.depth("tocsin.sweep") == 0


@pytest.mark.parametrize("kind", ["rabbitmq", "postgres"])
def test_a_server_that_is_away_is_named_without_its_password(kind: str) -> None:
    url = {"rabbitmq": "amqp://u:hidden@127.0.0.1:1/v", "postgres": "postgresql://u:hidden@127.0.0.1:1/v"}[kind]
    broker_url, database_url = (url, "") if kind == "rabbitmq" else (None, url)
    with pytest.raises(MessageBrokerError, match=r"127\.0\.0\.1:1.* cannot be reached: .*refused") as refusal:
        open_publisher(broker_url=broker_url, database_url=database_url)
    assert "hidden" not in str(refusal.value)
    with pytest.raises(MessageBrokerError, match=r"127\.0\.0\.1:1"):
        queue_depths(broker_url=broker_url, database_url=database_url)
    broker = open_broker(broker_url=broker_url, database_url=database_url, threads=4)
    began = time.monotonic()
    with pytest.raises(MessageBrokerError, match=r"127\.0\.0\.1:1"):
        wake(broker, "tocsin.sweep")
    assert time.monotonic() - began < 15
    broker.close()


def test_any_amqp_client_can_publish_a_part(rabbitmq_node: RabbitmqNode) -> None:
    url = rabbitmq_node.create_vhost()
    taken: queue.Queue[Any] = queue.Queue()
    broker: Any = open_broker(broker_url=url, database_url="", threads=4)
    on(broker, "tocsin.intake.urgent", put_all(taken))
    broker.connect()
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(
        "tocsin.intake", "urgent", b'{"a": 1}', pika.BasicProperties(content_type="application/json", delivery_mode=2)
    )
    connection.close()
    with working(broker):
        assert taken.get(timeout=PATIENCE_SECONDS) == ((b'{"a": 1}',), {})
    broker.close()
    rabbitmq_node.delete_vhost(url)


def test_rabbitmq_says_plainly_why_it_refuses(rabbitmq_node: RabbitmqNode) -> None:
    place = f"127.0.0.1:{rabbitmq_node.port}"
    for url, told in [
        (f"amqp://guest:hidden@{place}/%2F", "refuses the user name or password"),
        (f"amqp://guest:guest@{place}/nowhere", "no virtual host 'nowhere'"),
        (f"amqp://guest:guest@{place}/%2F?heartbeat=x", "cannot be read"),
    ]:
        with pytest.raises((MessageBrokerError, Exception), match=told) as refusal:
            open_publisher(broker_url=url)
        assert "hidden" not in str(refusal.value)


def test_a_queue_in_another_form_is_named(rabbitmq_node: RabbitmqNode) -> None:
    url = rabbitmq_node.create_vhost()
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_declare("tocsin.intake.bulk", durable=True)
    connection.close()
    with pytest.raises(MessageBrokerError, match=r"in another form: .*tocsin\.intake\.bulk"):
        amqp.declare_all(amqp.connection_parameters(url, name="test"))
    rabbitmq_node.delete_vhost(url)
