"""How workers end: in good order within the grace period, at once when asked twice, and whatever hangs around them."""

from __future__ import annotations

import asyncio
import signal
from time import monotonic
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.scripted_campus import scripted_campus
from tocsin_workers.sender.windows import WINDOW

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.servers.postgres import PostgresServer
    from tests.servers.rabbitmq import RabbitmqNode
    from tests.servers.scripted_campus import ScriptedCampus

CONNECTIONS = 4
#: What a machine under load may take to notice that a process has ended.
SLACK_SECONDS = 5.0


@pytest.fixture
def queues(request: pytest.FixtureRequest) -> str | None:
    """The message broker's URL; None for queues in Postgres."""
    return request.getfixturevalue("broker_url") if request.param == "rabbitmq" else None


def children_of(supervisor: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(supervisor.pid).children()


async def ended_after(processes: list[psutil.Process], since: float) -> float:
    """Wait until processes have ended; give how many seconds that was after `since`."""
    while any(is_alive(process) for process in processes):
        assert monotonic() - since < PATIENCE_SECONDS
        await asyncio.sleep(0.02)
    return monotonic() - since


def is_alive(process: psutil.Process) -> bool:
    # An orphan may be a zombie for as long as it pleases whoever is process 1.
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def held_of_the_ledger(campus: ScriptedCampus) -> list[tuple[object, ...]]:
    """Give what workers hold: leased batches, their rows, connections' slots."""
    return campus.installation.query(
        "SELECT 'batch' FROM batches WHERE state = 'leased' UNION ALL SELECT 'worker' FROM workers"
        " UNION ALL SELECT 'connection' FROM mailbox_connections"
    )


@pytest.mark.parametrize(
    ("queues", "number"),
    [("rabbitmq", signal.SIGTERM), ("rabbitmq", signal.SIGINT), ("postgres", signal.SIGTERM)],
    indirect=["queues"],
)
async def test_workers_that_stop_say_quit_on_every_connection_and_give_all_leases_back(
    tmp_path: Path, database_url: str, queues: str | None, number: signal.Signals
) -> None:
    async with scripted_campus(tmp_path, database_url, queues) as campus:
        await campus.start_workers()
        _, addresses = await campus.publish(2000)
        await campus.until(
            lambda: campus.mail.connections > 1 and len(campus.mail.messages) > 50, "several connections are in use"
        )
        begun = monotonic()
        assert await campus.stop_workers(number) == 0
        assert monotonic() - begun < SLACK_SECONDS
        assert held_of_the_ledger(campus) == []
        await campus.mail.all_gone.wait()
        assert campus.mail.verbs().count("QUIT") == campus.mail.connections
        # What the mail server took is recorded, and none of it is in doubt.
        received = campus.times_received(addresses)
        assert max(received.values()) == 1
        [(sent, in_flight)] = campus.installation.query(
            "SELECT sum(bit_count(sent)), sum(bit_count(in_flight)) FROM batches"
        )
        assert (sent, in_flight) == (len(received), 0)


async def test_a_dot_that_waits_past_the_grace_period_is_unknown_under_hold_and_else_due_again(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    grace = 3.0
    async with scripted_campus(tmp_path, database_url, broker_url, TOCSIN_SHUTDOWN_GRACE_SECONDS=str(grace)) as campus:
        await campus.start_workers()
        gate = campus.hold_dots(after=0)
        held, _ = await campus.publish(1, on_unknown="hold")
        await campus.until(lambda: gate.waiting == 1, "a dot waits for its reply")
        resent, _ = await campus.publish(1)
        await campus.until(lambda: gate.waiting == 2, "both dots wait for their reply")
        begun = monotonic()
        assert await campus.stop_workers() == 0
        assert grace - 2.5 < monotonic() - begun < grace + SLACK_SECONDS
        assert held_of_the_ledger(campus) == []
        assert (await campus.job(held))["recipients"] == {"unknown": 1}
        assert (await campus.job(resent))["recipients"] == {"pending": 1}
        assert campus.installation.query("SELECT count(*) FROM recipient_exceptions WHERE state = 'pending'") == [(1,)]


async def test_without_a_grace_period_workers_still_record_say_good_bye_and_give_back(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    async with scripted_campus(tmp_path, database_url, broker_url, TOCSIN_SHUTDOWN_GRACE_SECONDS="0") as campus:
        await campus.start_workers()
        gate = campus.hold_dots(after=200)
        job, addresses = await campus.publish(1000, on_unknown="hold")
        await campus.until(lambda: gate.waiting > 0, "dots wait for their reply")
        begun = monotonic()
        assert await campus.stop_workers() == 0
        assert monotonic() - begun < 2 + SLACK_SECONDS
        assert held_of_the_ledger(campus) == []
        counts = (await campus.job(job))["recipients"]
        assert counts["sent"] == len(campus.times_received(addresses))
        assert counts["unknown"] == gate.waiting


async def test_a_worker_that_is_killed_is_replaced_while_its_siblings_go_on_over_their_connections(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    async with scripted_campus(tmp_path, database_url, broker_url, "--connections", str(CONNECTIONS)) as campus:
        supervisor = await campus.start_workers(processes=3)
        gate = campus.hold_dots(after=0)
        job, addresses = await campus.publish(400)
        await campus.until(lambda: gate.waiting == CONNECTIONS, "every connection waits for the reply to a dot")
        before = children_of(supervisor)
        connections = {child.pid: campus.connections_of(child.pid) for child in before}
        victim = max(before, key=lambda child: len(connections[child.pid]))
        siblings = [child for child in before if child != victim]
        victim.kill()
        ready = campus.log().count("worker process ready")
        await campus.until(lambda: campus.log().count("worker process ready") > ready, "it is replaced")
        assert {child.pid for child in siblings} < {child.pid for child in children_of(supervisor)}
        assert {child.pid: campus.connections_of(child.pid) for child in siblings} == {
            child.pid: connections[child.pid] for child in siblings
        }
        gate.open()
        await campus.finished(job)
        received = campus.times_received(addresses)
        assert set(received) == set(addresses)
        assert received.total() - len(addresses) <= WINDOW * len(connections[victim.pid])


async def test_whatever_hangs_a_second_signal_ends_workers_at_once_and_a_killed_supervisor_leaves_no_orphans(
    tmp_path: Path, own_postgres: PostgresServer, own_rabbitmq: RabbitmqNode
) -> None:
    """Mail server, Postgres and RabbitMQ hang, all at the same time, in mid-job; twice."""
    grace = SLACK_SECONDS + 1  # so that "at once" can be told from its end
    async with scripted_campus(
        tmp_path, own_postgres.create_database(), own_rabbitmq.create_vhost(), "--connections", str(CONNECTIONS),
        TOCSIN_SHUTDOWN_GRACE_SECONDS=str(grace), TOCSIN_LEASE_SECONDS="3",
    ) as campus:  # fmt: skip
        supervisor = await campus.start_workers()
        jobs = [await campus.publish(300, on_unknown=policy) for policy in ("hold", "resend")]
        try:
            await everything_hangs(campus, own_postgres, own_rabbitmq)
            children = children_of(supervisor)
            supervisor.send_signal(signal.SIGTERM)
            await campus.until(
                lambda: f"Finishing what is in hand, {grace:g} s at most" in campus.log(), "the first is heard"
            )
            again = monotonic()
            supervisor.send_signal(signal.SIGTERM)
            assert await ended_after([*children, psutil.Process(supervisor.pid)], again) < SLACK_SECONDS
            assert f"Ended at once: messages in flight (at most {WINDOW} a connection)" in campus.log()
        finally:
            goes_on(campus, own_postgres, own_rabbitmq)
        await asyncio.to_thread(campus.installation.stop_workers)

        supervisor = await campus.start_workers()
        try:
            await everything_hangs(campus, own_postgres, own_rabbitmq)
            children = children_of(supervisor)
            killed = monotonic()
            supervisor.kill()
            assert await ended_after(children, killed) < grace + 1 + SLACK_SECONDS
        finally:
            goes_on(campus, own_postgres, own_rabbitmq)
        await asyncio.to_thread(campus.installation.stop_workers)

        await campus.start_workers()
        (held, held_addresses), (resent, resent_addresses) = jobs
        await campus.finished(held, resent)
        held_to = campus.times_received(held_addresses)
        counts = (await campus.job(held))["recipients"]
        assert max(held_to.values()) == 1
        assert counts["sent"] + counts.get("unknown", 0) == len(held_addresses)
        assert len(held_to) >= counts["sent"]
        resent_to = campus.times_received(resent_addresses)
        assert set(resent_to) == set(resent_addresses)
        assert resent_to.total() - len(resent_addresses) <= 2 * WINDOW * CONNECTIONS


async def everything_hangs(campus: ScriptedCampus, postgres: PostgresServer, rabbitmq: RabbitmqNode) -> None:
    gate = campus.hold_dots(after=50)
    await campus.until(lambda: gate.waiting > 0, "mail is under way")
    await asyncio.to_thread(postgres.freeze)
    rabbitmq.freeze()


def goes_on(campus: ScriptedCampus, postgres: PostgresServer, rabbitmq: RabbitmqNode) -> None:
    postgres.thaw()
    rabbitmq.thaw()
    gate = campus.mail.answers.pop("dot")
    gate.open()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "missing", ["TOCSIN_DATABASE_URL", "TOCSIN_BROKER_URL"], ids=["no ledger", "no message broker"]
)
async def test_workers_that_still_wait_for_a_server_stop_at_once(
    tmp_path: Path, database_url: str, broker_url: str, missing: str
) -> None:
    nowhere = {"TOCSIN_DATABASE_URL": "postgresql://127.0.0.1:1/x", "TOCSIN_BROKER_URL": "amqp://127.0.0.1:1"}
    async with scripted_campus(tmp_path, database_url, broker_url) as campus:
        campus.installation.environment[missing] = nowhere[missing]
        await asyncio.to_thread(campus.installation.start_workers)
        await campus.until(lambda: campus.log().count("worker waits") >= 2, "both processes wait")
        begun = monotonic()
        assert await campus.stop_workers() == 0
        assert monotonic() - begun < SLACK_SECONDS
        assert held_of_the_ledger(campus) == []
