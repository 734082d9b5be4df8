"""`/metrics` of a supervisor: its children's counts through deaths, and a ledger that is away or not its concern."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from tocsin_schema.message_broker import postgres
from tocsin_schema.message_broker.postgres import ensure_schema
from tocsin_schema.message_broker.topology import Role
from tocsin_workers.supervising import exposition as exposition_module
from tocsin_workers.supervising.counting import counting
from tocsin_workers.supervising.exposition import Exposition
from tocsin_workers.supervising.family import ChildState, FamilyState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AWAY = "postgresql://tocsin:sesame@127.0.0.1:1/tocsin"

#: A worker process as far as its counts go: it counts, says so, and lives until its standard input ends.
CHILD = """
import sys
from tocsin_workers import metrics
metrics.RECIPIENTS.labels("alerts", "sent").inc(10)
metrics.CONNECTIONS.labels("alerts").set(2)
metrics.observe_acceptance(0, since_published=3.0, since_due=0.2)
print("counted", flush=True)
sys.stdin.read()
"""


def sample(exposition: Exposition, name: str, **labels: str) -> float | None:
    return exposition.registry.get_sample_value(name, labels)


@contextmanager
def child(exposition: Exposition) -> Iterator[subprocess.Popen[bytes]]:
    """A child that has counted; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env={**exposition.environment, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"counted\n"
        yield process
        process.kill()


@pytest.fixture
def exposition(tmp_path: Path) -> Exposition:
    """One of a supervisor that does not sweep: it asks no server."""
    return Exposition(tmp_path / "counts", database_url=AWAY, broker_url=None, role=Role.SENDER)


# Children


def test_the_counts_of_children_are_added_up_and_outlive_them_while_gauges_end(exposition: Exposition) -> None:
    with child(exposition) as first, child(exposition):
        assert sample(exposition, "tocsin_recipients_total", profile="alerts", outcome="sent") == 20
        assert sample(exposition, "tocsin_smtp_connections", profile="alerts") == 4
        first.kill()
        first.wait()
        exposition.forget(first.pid)
        assert sample(exposition, "tocsin_smtp_connections", profile="alerts") == 2
        with child(exposition):
            assert sample(exposition, "tocsin_recipients_total", profile="alerts", outcome="sent") == 30
            assert sample(exposition, "tocsin_smtp_connections", profile="alerts") == 4
        assert sample(exposition, "tocsin_publish_to_accept_seconds_count", priority="urgent") == 3


def test_histograms_are_told_as_prometheus_wants_them(exposition: Exposition) -> None:
    with child(exposition) as first:
        pass
    exposition.forget(first.pid)
    name = "tocsin_publish_to_accept_seconds"
    bounds = ("2.5", "5.0", "10.0", "+Inf")
    assert [sample(exposition, f"{name}_bucket", priority="urgent", le=one) for one in bounds] == [0, 1, 1, 1]
    assert sample(exposition, f"{name}_sum", priority="urgent") == 3.0


def test_what_is_known_beforehand_begins_at_zero(exposition: Exposition) -> None:
    with child(exposition):
        assert sample(exposition, "tocsin_intake_parts_total", result="refused") == 0
        assert sample(exposition, "tocsin_duplicates_avoided_total", how="fenced") == 0
        assert sample(exposition, "tocsin_token_requests_total", outcome="failed") == 0


def test_the_dead_leave_no_files_however_many_they_are(exposition: Exposition, tmp_path: Path) -> None:
    with child(exposition) as first:
        pass
    [counters] = (tmp_path / "counts").glob("counter_*.db")
    content = counters.read_bytes()
    exposition.forget(first.pid)
    for process_id in range(1_000_000, 1_001_000):
        (tmp_path / "counts" / f"counter_{process_id}.db").write_bytes(content)
        exposition.forget(process_id)
    assert list((tmp_path / "counts").iterdir()) == []
    assert sample(exposition, "tocsin_recipients_total", profile="alerts", outcome="sent") == 10_010


def test_a_file_that_cannot_be_read_costs_no_scrape(exposition: Exposition, tmp_path: Path) -> None:
    with child(exposition):
        (tmp_path / "counts" / "counter_1.db").write_bytes(b"")
        (tmp_path / "counts" / "histogram_1.db").write_bytes(b"\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff\xff\x7f")
        assert sample(exposition, "tocsin_recipients_total", profile="alerts", outcome="sent") == 10
        exposition.forget(1)


def test_a_supervisor_that_may_open_no_more_files_goes_on_and_no_sum_goes_back(exposition: Exposition) -> None:
    def sent() -> float | None:
        return sample(exposition, "tocsin_recipients_total", profile="alerts", outcome="sent")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with child(exposition) as first, child(exposition):
        assert sent() == 20
        # No number below this one is free. With none at all allowed, poll() would fail in threads that wait meanwhile.
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            found = sent()
            exposition.forget(first.pid)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (found, sent()) == (20, 20)


def test_a_file_that_cannot_be_read_for_once_lets_no_sum_go_back(exposition: Exposition, tmp_path: Path) -> None:
    def sent() -> float | None:
        return sample(exposition, "tocsin_recipients_total", profile="alerts", outcome="sent")

    with child(exposition):
        [counters] = (tmp_path / "counts").glob("counter_*.db")
        other = counters.with_name("counter_1.db")
        content = counters.read_bytes()
        used = int.from_bytes(content[:4], sys.byteorder)
        other.write_bytes(content[: used - 1])
        assert sent() == 10  # nothing of it, although all but its last value can be read
        other.write_bytes(content)
        assert sent() == 20
        for unreadable in (b"", content[: used - 1]):
            other.write_bytes(unreadable)
            assert sent() == 20
        exposition.forget(1)
        other.write_bytes(b"")  # of another process that has the same number
        assert sent() == 20


def test_what_an_earlier_supervisor_left_behind_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "counts").mkdir()
    (tmp_path / "counts" / "counter_1.db").write_bytes(b"")
    Exposition(tmp_path / "counts", database_url=AWAY, broker_url=None)
    assert list((tmp_path / "counts").iterdir()) == []


def test_a_supervisor_tells_of_its_children(exposition: Exposition) -> None:
    children = (
        ChildState(is_running=True, came_up=True, takes_work=True, silent_since=0.0),
        ChildState(is_running=False, came_up=True, takes_work=False, silent_since=None),
    )
    exposition.watch(lambda: FamilyState(seen_at=0.0, is_stopping=False, restarts=7, children=children))
    assert sample(exposition, "tocsin_worker_processes", role="sender") == 1
    assert sample(exposition, "tocsin_worker_restarts_total") == 7


# The ledger and the queues


@pytest.mark.parametrize("role", Role)
def test_only_supervisors_that_sweep_count_the_ledger(tmp_path: Path, role: Role) -> None:
    found = Exposition(tmp_path / "counts", database_url=AWAY, broker_url=None, role=role)
    expected = 0.0 if role in (Role.ALL, Role.SWEEPER) else None
    assert sample(found, "tocsin_ledger_up") == expected
    assert sample(found, "tocsin_message_broker_up") == expected


def test_a_ledger_that_is_there_is_counted(database_url: str, tmp_path: Path) -> None:
    found = Exposition(tmp_path / "counts", database_url=database_url, broker_url=None, role=Role.SWEEPER)
    assert sample(found, "tocsin_ledger_up") == 1
    assert sample(found, "tocsin_ledger_batches", state="due") == 0
    assert sample(found, "tocsin_sending_halted") in (0, 1)
    assert sample(found, "tocsin_queue_messages", queue="tocsin.send.bulk") == 0


def test_a_ledger_of_another_schema_is_not_up(empty_database_url: str, tmp_path: Path) -> None:
    found = Exposition(tmp_path / "counts", database_url=empty_database_url, broker_url=None)
    assert sample(found, "tocsin_ledger_up") == 0


def test_a_ledger_that_takes_connections_and_says_nothing_holds_no_scrape_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition_module, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://tocsin:sesame@127.0.0.1:{silent.getsockname()[1]}/tocsin"
        found = Exposition(tmp_path / "counts", database_url=url, broker_url=None)
        began_at = time.monotonic()
        assert sample(found, "tocsin_ledger_up") == 0
        assert sample(found, "tocsin_message_broker_up") == 0
        assert time.monotonic() - began_at < 3


def test_what_takes_too_long_to_count_is_missing_and_all_else_is_told(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_schema(database_url)
    monkeypatch.setattr(exposition_module, "STATEMENT_SECONDS", 2.0)
    monkeypatch.setattr(postgres, "COUNT_SECONDS", 0.2)
    found = Exposition(tmp_path / "counts", database_url=database_url, broker_url=None, role=Role.SWEEPER)
    with psycopg.connect(database_url) as busy:
        busy.execute("LOCK TABLE batches, dramatiq.queue")
        assert sample(found, "tocsin_ledger_up") == 1
        assert sample(found, "tocsin_ledger_dead_letters") == 0
        assert sample(found, "tocsin_ledger_batches", state="due") is None
        assert sample(found, "tocsin_message_broker_up") == 1
        assert sample(found, "tocsin_queue_messages", queue="tocsin.send.bulk") is None


# Counting


def test_a_count_is_good_for_a_while_however_many_scrape() -> None:
    counts: list[int] = []
    asked = counting(lambda: counts.append(1) or len(counts))
    for _ in range(5):
        assert asked.result(asked.begin(), by=time.monotonic() + 10) == 1


def test_a_count_that_takes_too_long_is_stood_in_for_by_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_workers.supervising.counting.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("tocsin_workers.supervising.counting.REST_FACTOR", 0.0)
    may_end = threading.Event()
    may_end.set()
    asked = counting(lambda: may_end.wait(10))
    assert asked.result(asked.begin(), by=time.monotonic() + 10) is True
    may_end.clear()
    assert asked.result(asked.begin(), by=time.monotonic()) is True
    may_end.set()


def test_a_count_that_fails_is_none_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_workers.supervising.counting.FRESH_SECONDS", -1.0)
    monkeypatch.setattr("tocsin_workers.supervising.counting.REST_FACTOR", -1.0)
    answers = iter([LookupError("nobody has thought of it"), 7])

    def count() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    asked = counting(count)
    assert asked.result(asked.begin(), by=time.monotonic() + 10) is None
    assert asked.result(asked.begin(), by=time.monotonic() + 10) == 7
