"""Nothing is lost when worker processes are killed; what is doubled is bounded."""

from __future__ import annotations

import signal
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_workers.sender.windows import WINDOW

if TYPE_CHECKING:
    from tests.servers.installation import Installation

RECIPIENTS = 2000
KILLS = 2
#: Connections that a mailbox of the tests may have (the default of `--provider custom`).
CONNECTIONS = 10


def worker_processes(installation: Installation) -> list[psutil.Process]:
    found = installation.query("SELECT pid FROM workers WHERE heartbeat_at > now() - interval '3 seconds'")
    return [psutil.Process(pid) for (pid,) in found if psutil.pid_exists(pid)]


def publish_large_job(installation: Installation, **fields: Any) -> tuple[str, list[str]]:
    run = uuid.uuid4().hex[:8]
    addresses = [f"{run}-{number}@campus.example" for number in range(RECIPIENTS)]
    job = installation.job(mode="individual", **fields)
    for number in range(RECIPIENTS // 1000):
        chunk = addresses[number * 1000 : (number + 1) * 1000]
        installation.publish(
            {
                **job,
                "part": {"number": number + 1, "last": number + 1 == RECIPIENTS // 1000},
                "recipients": [{"address": address} for address in chunk],
            }
        )
    return job["id"], addresses


def kill_some_workers(installation: Installation, job_id: str) -> None:
    """Kill a worker process at a third and at two thirds of the way."""
    for kill in range(1, KILLS + 1):
        wanted = RECIPIENTS * kill // (KILLS + 1)

        def is_so_far(wanted: int = wanted) -> bool:
            [(sent,)] = installation.query(
                "SELECT coalesce(max(c.sent), 0) FROM job_counts c JOIN jobs j ON j.number = c.job_number"
                " WHERE j.id = %s",
                job_id,
            )
            return int(sent) >= wanted

        installation.wait_until(is_so_far, f"{wanted} are sent")
        worker_processes(installation)[0].send_signal(signal.SIGKILL)


def times_received(installation: Installation, addresses: list[str]) -> Counter[str]:
    wanted = set(addresses)
    return Counter(
        address for message in installation.received() for address in message.recipients if address in wanted
    )


def test_killed_workers_lose_nothing_and_double_no_more_than_their_windows(installation: Installation) -> None:
    job_id, addresses = publish_large_job(installation)
    kill_some_workers(installation, job_id)
    shown = installation.wait_for_job(job_id)
    assert shown["recipients"] == {"sent": RECIPIENTS}
    received = times_received(installation, addresses)
    assert set(received) == set(addresses)
    assert received.total() - RECIPIENTS <= WINDOW * CONNECTIONS * KILLS


def test_under_hold_killed_workers_double_nobody_and_name_who_is_in_doubt(installation: Installation) -> None:
    job_id, addresses = publish_large_job(installation, on_unknown="hold")
    kill_some_workers(installation, job_id)
    shown = installation.wait_for_job(job_id)
    counts = shown["recipients"]
    assert counts["sent"] + counts.get("unknown", 0) == RECIPIENTS
    received = times_received(installation, addresses)
    assert max(received.values()) == 1
    unknown = {one["address"] for one in installation.read_lines("job", "recipients", job_id, "--state", "unknown")}
    assert set(addresses) - set(received) <= unknown


def test_workers_that_are_told_to_stop_give_everything_back_and_double_nobody(installation: Installation) -> None:
    job_id, addresses = publish_large_job(installation)
    installation.wait_until(lambda: bool(times_received(installation, addresses)), "sending has begun")
    assert installation.stop_workers(signal.SIGTERM) == 0
    assert installation.query("SELECT 1 FROM batches WHERE state = 'leased'") == []
    assert installation.query("SELECT 1 FROM workers") == []
    assert installation.query("SELECT 1 FROM mailbox_connections") == []
    installation.start_workers()
    shown = installation.wait_for_job(job_id)
    assert shown["recipients"] == {"sent": RECIPIENTS}
    assert times_received(installation, addresses).total() == RECIPIENTS


def test_a_killed_supervisor_leaves_no_orphans(installation: Installation) -> None:
    before = worker_processes(installation)
    assert before
    assert installation.stop_workers(signal.SIGKILL) == -signal.SIGKILL
    gone, alive = psutil.wait_procs(before, timeout=PATIENCE_SECONDS)
    assert len(gone) == len(before)
    assert not alive
    installation.start_workers()
    job = installation.job()
    installation.publish(job)
    installation.wait_for_job(job["id"])
