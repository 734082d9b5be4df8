"""The publisher on both message brokers: whole jobs, kept before it returns, and the same however often."""

from __future__ import annotations

import doctest
import gc
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pika
import psycopg
import pytest

import tocsin_producers
from tocsin_producers import Content, ContractError, MessageBrokerError, Priority, Publisher
from tocsin_schema.errors import ConfigurationError, UsageError
from tocsin_schema.message_broker.encoder import message_for
from tocsin_schema.message_broker.topology import INTAKE_QUEUES
from tocsin_schema.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.rabbitmq import RabbitmqNode

JOB: dict[str, Any] = {"profile": "news", "content": Content("Hello", "Text")}


@dataclass
class Place:
    """An empty message broker."""

    broker_url: str | None = None
    database_url: str | None = None

    def open(self) -> Publisher:
        return Publisher(broker_url=self.broker_url, database_url=self.database_url)

    def take_all(self, queue: str = "tocsin.intake.normal") -> list[dict[str, Any]]:
        """Take what lies on a queue, in order of part number."""
        bodies = self._from_rabbitmq(queue) if self.broker_url else self._from_postgres(queue)
        return sorted((json.loads(body) for body in bodies), key=lambda part: part.get("part", {}).get("number", 1))

    def _from_rabbitmq(self, queue: str) -> Iterator[bytes]:
        with pika.BlockingConnection(pika.URLParameters(self.broker_url or "")) as connection:
            channel = connection.channel()
            while True:
                _, properties, body = channel.basic_get(queue, auto_ack=True)
                if properties is None or body is None:
                    return
                assert properties.delivery_mode == pika.DeliveryMode.Persistent.value
                yield body

    def _from_postgres(self, queue: str) -> Iterator[bytes]:
        with psycopg.connect(self.database_url or "") as connection:
            rows = connection.execute(
                "DELETE FROM dramatiq.queue WHERE queue_name = %s RETURNING message::text", (queue,)
            ).fetchall()
        for (envelope,) in rows:
            message = message_for(queue, envelope.encode())
            assert message is not None
            yield message.args[0]


@pytest.fixture(params=["rabbitmq", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "rabbitmq":
        return Place(broker_url=request.getfixturevalue("broker_url"))
    return Place(database_url=request.getfixturevalue("empty_database_url"))


def addresses(count: int) -> Iterator[str]:
    return (f"r{number}@example.org" for number in range(count))


def test_ten_thousand_recipients_arrive_whole(place: Place) -> None:
    with place.open() as publisher:
        published = publisher.publish(**JOB, recipients=addresses(10_000))
        parts = place.take_all()  # still open: what has returned is kept
    assert (published.parts, published.recipients, published.duplicates, published.invalid) == (10, 10_000, 0, 0)
    assert [part["part"] for part in parts] == [{"number": n, "last": n == 10} for n in range(1, 11)]
    assert {part["id"] for part in parts} == {str(published.id)}
    assert [one["address"] for part in parts for one in part["recipients"]] == list(addresses(10_000))


def test_a_long_list_passes_in_flat_memory(place: Place) -> None:
    def traced_peak(count: int) -> int:
        gc.collect()
        tracemalloc.start()
        try:
            people = ({"address": address, "data": {"note": "n" * 200}} for address in addresses(count))
            publisher.publish(**JOB, mode="individual", recipients=people)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with place.open() as publisher:
        traced_peak(1_000)
        short, long = traced_peak(2_000), traced_peak(20_000)
    # Ten times the recipients. What may add up is the parts that are not confirmed yet, never the list: 5 MB.
    assert long < short + 3_000_000


def test_publishing_the_same_job_again_puts_the_same_octets_on_the_queue(place: Place) -> None:
    with place.open() as publisher:
        results = [publisher.publish(**JOB, source="board", key="4711", recipients=addresses(1500)) for _ in range(2)]
    assert results[0] == results[1]
    parts = place.take_all()
    assert parts[0] == parts[1]
    assert parts[2] == parts[3]


def test_several_jobs_go_to_the_queue_of_their_priority(place: Place) -> None:
    with place.open() as publisher:
        sent = {
            priority: publisher.publish(**JOB, priority=priority, recipients=["a@example.org"]).id
            for priority in Priority
        }
    for priority, queue in zip(Priority, INTAKE_QUEUES, strict=True):
        (part,) = place.take_all(queue)
        assert UUID(part["id"]) == sent[priority]


def test_a_generator_that_raises_leaves_a_job_without_a_last_part_and_the_next_job_whole(place: Place) -> None:
    def breaking() -> Iterator[str]:
        yield from addresses(2500)
        raise RuntimeError("the database went away")

    job = uuid4()
    with place.open() as publisher:
        with pytest.raises(RuntimeError, match="the database went away"):
            publisher.publish(**JOB, id=job, recipients=breaking())
        publisher.publish(**JOB, key="next", source="board", recipients=["a@example.org"])
    parts = place.take_all()
    broken = [part["part"] for part in parts if part.get("id") == str(job)]
    assert broken == [{"number": 1, "last": False}, {"number": 2, "last": False}]
    assert [part for part in parts if part.get("key") == "next"]


def test_a_refused_job_puts_nothing_on_the_queue(place: Place) -> None:
    with place.open() as publisher, pytest.raises(ContractError) as caught:
        publisher.publish(**JOB, recipients=[{"address": "a@example.org", "data": {"room": 1}}])
    assert caught.value.code == "data_in_shared"
    assert place.take_all() == []


def test_threads_may_share_a_publisher(place: Place) -> None:
    results: list[int] = []
    with place.open() as publisher:

        def publish(number: int) -> None:
            job = publisher.publish(**JOB, source="thread", key=str(number), recipients=addresses(1500))
            results.append(job.parts)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [2, 2, 2, 2]
    parts = place.take_all()
    assert sorted((part["key"], part["part"]["number"]) for part in parts) == [
        (str(key), number) for key in range(4) for number in (1, 2)
    ]


def test_the_example_in_the_packages_docstring_runs(broker_url: str) -> None:
    assert tocsin_producers.__doc__ is not None
    example = doctest.DocTestParser().get_doctest(
        tocsin_producers.__doc__, {"broker_url": broker_url}, "tocsin_producers", None, 0
    )
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=3)
    (part,) = Place(broker_url=broker_url).take_all("tocsin.intake.urgent")
    assert part["key"] == "incident-4711/opened"


def test_the_example_in_the_documentation_runs(broker_url: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "producer.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("```python\n")
    code = rest.partition("```")[0].replace("amqp://tocsin:secret@rabbitmq.example.org/", broker_url)
    assert broker_url in code
    exec(compile(code, "producer.md", "exec"), {})
    (part,) = Place(broker_url=broker_url).take_all("tocsin.intake.urgent")
    assert len(part["recipients"]) == 2


def test_the_settings_say_where_to_publish(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, url in (("TOCSIN_BROKER_URL", place.broker_url), ("TOCSIN_DATABASE_URL", place.database_url)):
        monkeypatch.setenv(variable, url or "")
    with Publisher.from_settings(read_settings()) as publisher:
        publisher.publish(**JOB, recipients=["a@example.org"])
    assert len(place.take_all()) == 1


def test_the_publisher_for_rabbitmq_loads_nothing_beyond_the_light_install() -> None:
    script = (
        "import sys, tocsin_producers, tocsin_schema.message_broker.rabbitmq_publisher\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'dramatiq', 'psycopg', 'cryptography', 'typer', 'minijinja', 'tocsin_workers', 'tocsin_console'}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == "[]"


def test_a_closed_publisher_says_so(place: Place) -> None:
    publisher = place.open()
    publisher.close()
    with pytest.raises(MessageBrokerError):
        publisher.publish(**JOB, recipients=["a@example.org"])


def test_a_connection_that_breaks_in_the_middle_loses_no_part(rabbitmq_node: RabbitmqNode, broker_url: str) -> None:
    if not rabbitmq_node.has_control:
        pytest.skip("connections of another's RabbitMQ cannot be broken")

    def breaking() -> Iterator[str]:
        yield from addresses(5000)
        rabbitmq_node.close_all_connections(broker_url)
        yield from (f"later{number}@example.org" for number in range(5000))

    with Publisher(broker_url=broker_url) as publisher:
        assert publisher.publish(**JOB, recipients=breaking()).parts == 10
    # A part may stand there twice, since its confirm may have been lost with the connection.
    numbers = {part["part"]["number"] for part in Place(broker_url=broker_url).take_all()}
    assert numbers == set(range(1, 11))


@pytest.mark.parametrize(
    "urls",
    [
        {"broker_url": "amqp://guest:sesame@127.0.0.1:1/"},
        {"database_url": "postgresql://tocsin:sesame@127.0.0.1:1/tocsin"},
    ],
)
def test_a_broker_that_is_away_is_a_clear_error_within_seconds(urls: dict[str, str]) -> None:
    started = time.monotonic()
    with pytest.raises(MessageBrokerError) as caught:
        Publisher(**urls)
    assert time.monotonic() - started < 10
    assert "127.0.0.1:1" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_url_that_cannot_be_read_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Publisher(broker_url="amqp://guest:sesame@host:port/")
    assert "sesame" not in str(caught.value)


def test_without_any_url_there_is_nothing_to_publish_to() -> None:
    with pytest.raises(UsageError, match="TOCSIN_BROKER_URL"):
        Publisher()
