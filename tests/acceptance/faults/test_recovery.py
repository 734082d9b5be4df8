"""What comes back by itself: killed and frozen workers, a RabbitMQ that forgot everything, a Postgres that was away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING

import pika
import psutil

from tests.acceptance.faults.test_shutdown import children_of
from tests.servers.scripted_campus import scripted_campus
from tocsin_schema.message_broker import amqp
from tocsin_schema.message_broker.topology import DEAD_QUEUE, DELIVERY_LIMIT, intake_queue, prefetch
from tocsin_workers.sender.windows import WINDOW

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.postgres import PostgresServer
    from tests.servers.rabbitmq import RabbitmqNode
    from tests.servers.scripted_campus import ScriptedCampus

LONG_VARIABLE = "TOCSIN_TEST_LONG"
"""Set for the full minute without Postgres."""
#: Forks consumers that are killed as soon as they hold all that they may.
VICTIMS = """
import os, signal, sys
import pika

url, queue, times, prefetch = sys.argv[1:]
for _ in range(int(times)):
    if not (pid := os.fork()):
        channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
        channel.basic_qos(prefetch_count=int(prefetch))
        deliveries = channel.consume(queue, inactivity_timeout=60)
        assert all(next(deliveries)[0] for _ in range(int(prefetch)))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
"""
#: Lines a second that a process may log while Postgres is away.
LINES_A_SECOND = 10


def owner_of_a_batch(campus: ScriptedCampus) -> psutil.Process:
    [(pid,)] = campus.installation.query(
        "SELECT DISTINCT w.pid FROM batches b JOIN workers w ON w.id = b.leased_by WHERE b.state = 'leased'"
    )
    return psutil.Process(pid)


async def test_a_worker_killed_in_the_middle_of_a_batch_of_500_sends_no_more_than_a_window_of_it_again(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    async with scripted_campus(
        tmp_path, database_url, broker_url, "--batch-size", "500", "--connections", "1", TOCSIN_LEASE_SECONDS="3"
    ) as campus:
        await campus.start_workers()
        gate = campus.hold_dots(after=250)
        job, addresses = await campus.publish(500)
        await campus.until(lambda: gate.waiting == 1, "half of the batch is sent")
        assert campus.installation.query("SELECT size FROM batches") == [(500,)]
        owner_of_a_batch(campus).kill()
        gate.open()
        await campus.finished(job)
        received = campus.times_received(addresses)
        assert set(received) == set(addresses)
        # The reply to one dot at least was never heard, so that the test is about something.
        assert 1 <= received.total() - len(addresses) <= WINDOW


async def test_a_worker_frozen_past_its_lease_writes_no_further_body_when_it_wakes_up(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    async with scripted_campus(
        tmp_path, database_url, broker_url, "--connections", "2", TOCSIN_LEASE_SECONDS="3"
    ) as campus:
        await campus.start_workers()
        gate = campus.hold_dots(after=30)
        job, addresses = await campus.publish(100)
        await campus.until(lambda: gate.waiting > 0, "a window is half sent")
        frozen = owner_of_a_batch(campus)
        frozen.suspend()
        try:
            # It finds the reply when it wakes up, and would go on with the rest of its window.
            gate.open()
            await campus.finished(job)
            bodies, octets = len(campus.mail.messages), campus.mail.body_bytes
        finally:
            frozen.resume()
        await campus.until(lambda: "this worker was taken for dead" in campus.log(), "the frozen one has understood")
        await campus.until(lambda: not campus.connections_of(frozen.pid), "it has left its connections")
        assert (len(campus.mail.messages), campus.mail.body_bytes) == (bodies, octets)
        received = campus.times_received(addresses)
        assert set(received) == set(addresses)
        assert 1 <= received.total() - len(addresses) <= WINDOW * 2
        # And it works on.
        again, _ = await campus.publish(20)
        await campus.finished(again)
        assert frozen.is_running()


async def test_jobs_finish_and_workers_recover_by_themselves_when_rabbitmq_forgets_everything_after_intake(
    tmp_path: Path, database_url: str, own_rabbitmq: RabbitmqNode
) -> None:
    async with scripted_campus(tmp_path, database_url, own_rabbitmq.url) as campus:
        supervisor = await campus.start_workers()
        gate = campus.hold_dots(after=100)
        job, addresses = await campus.publish(2000)
        taken_in = "SELECT 1 FROM jobs WHERE id = %s AND state = 'running'"
        await campus.until(lambda: campus.installation.query(taken_in, job) != [], "the job is taken in")
        children = {child.pid for child in children_of(supervisor)}
        own_rabbitmq.wipe()
        gate.open()
        own_rabbitmq.start()  # it would end with the thread that starts it
        await campus.finished(job)
        assert campus.times_received(addresses) == dict.fromkeys(addresses, 1)
        # What was forgotten is declared anew, and the same processes consume it.
        later, _ = await campus.publish(10)
        await campus.finished(later)
        assert {child.pid for child in children_of(supervisor)} == children


async def test_no_part_is_lost_when_consumers_are_killed_30_times_during_intake(
    tmp_path: Path, database_url: str, own_rabbitmq: RabbitmqNode
) -> None:
    broker_url = own_rabbitmq.create_vhost()
    async with scripted_campus(tmp_path, database_url, broker_url) as campus:
        jobs = [await campus.publish(3) for _ in range(5)]
        assert DELIVERY_LIMIT < 30
        await kill_consumers(broker_url, intake_queue("normal"), 30)
        parameters = amqp.connection_parameters(broker_url, name="test")
        with closing(pika.BlockingConnection(parameters)) as connection:
            # The part that killed so many is aside, and those who take it back may die as well.
            await campus.until(lambda: amqp.depth(connection, DEAD_QUEUE) > 0, "a part is dead-lettered")
        await kill_consumers(broker_url, DEAD_QUEUE, 3)
        await campus.start_workers()
        await campus.finished(*(job for job, _ in jobs))
        addresses = [address for _, recipients in jobs for address in recipients]
        assert campus.times_received(addresses) == dict.fromkeys(addresses, 1)
        letters = campus.installation.query("SELECT code, state FROM dead_letters")
        assert letters == [("delivery_limit", "requeued")]


async def kill_consumers(broker_url: str, queue: str, times: int) -> None:
    """Let so many processes, one after the other, take what a worker would hold of the queue, and be killed with it."""
    command = [sys.executable, "-c", VICTIMS, broker_url, queue, str(times), str(prefetch(queue, 16))]
    ended = await asyncio.to_thread(subprocess.run, command, timeout=60, check=False)
    assert ended.returncode == 0


async def test_mail_goes_on_within_seconds_when_postgres_comes_back_and_no_process_was_lost(
    tmp_path: Path, own_postgres: PostgresServer, broker_url: str
) -> None:
    """Both message brokers at once, and one outage for both."""
    for name in ("rabbitmq", "postgres"):
        (tmp_path / name).mkdir()
    seconds = 60.0 if os.environ.get(LONG_VARIABLE) else 10.0
    async with AsyncExitStack() as stack:
        campuses = [
            await stack.enter_async_context(
                scripted_campus(
                    tmp_path / name, own_postgres.create_database(), url, TOCSIN_LEASE_SECONDS="6")
            )
            for name, url in (("rabbitmq", broker_url), ("postgres", None))
        ]  # fmt: skip
        supervisors = [await campus.start_workers() for campus in campuses]
        gates = [campus.hold_dots(after=100) for campus in campuses]
        jobs = [await campus.publish(500) for campus in campuses]
        for campus, gate in zip(campuses, gates, strict=True):
            await campus.until(lambda gate=gate: gate.waiting > 0, "mail is under way")
        children = [{child.pid for child in children_of(supervisor)} for supervisor in supervisors]
        logged = [campus.log().count("\n") for campus in campuses]
        await asyncio.to_thread(own_postgres.crash)
        for gate in gates:
            gate.open()  # what the mail server takes now is recorded when Postgres is back
        await asyncio.sleep(seconds)
        flood = [campus.log().count("\n") - before for campus, before in zip(campuses, logged, strict=True)]
        await asyncio.to_thread(own_postgres.restart)
        back = time.monotonic()
        taken = [len(campus.mail.messages) for campus in campuses]
        for campus, before in zip(campuses, taken, strict=True):
            await campus.until(lambda campus=campus, before=before: len(campus.mail.messages) > before, "mail goes on")
        assert time.monotonic() - back < 8
        for campus, (job, addresses) in zip(campuses, jobs, strict=True):
            await campus.finished(job)
            received = campus.times_received(addresses)
            assert set(received) == set(addresses)
            assert received.total() == len(addresses)
        assert [{child.pid for child in children_of(supervisor)} for supervisor in supervisors] == children
        assert max(flood) < seconds * LINES_A_SECOND * 2
        for campus in campuses:
            assert await campus.stop_workers(signal.SIGTERM) == 0
