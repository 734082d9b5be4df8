"""Pods come and go under load, 1 → 8 → 2 worker processes: nobody is lost or written to twice, budgets hold.

`TOCSIN_TEST_LONG=1` lets them come and go for some minutes, at a rate that full 60 s windows are counted of.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.servers.fleet import Fleet
from tests.servers.limited_mail_server import LimitedMailServer
from tests.servers.login_account import Enforced, earliest_lead, most_within
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.servers.installation import Installation

IS_LONG = bool(os.environ.get("TOCSIN_TEST_LONG"))
CONNECTIONS = 3
PER_MINUTE = 30 if IS_LONG else 600
#: The time slots of a minute's messages take so long; each message may leave up to a second after its slot, and on a
#: machine on which processes start come a second later still.
SLOTS_A_MINUTE, LATEST_SECONDS = 61.0, 2.0
#: How often the fleet is scaled up and down, and how long it stays so at least.
ROUNDS, STAY_SECONDS = (3, 45.0) if IS_LONG else (1, 2.0)
#: The pods that come and go beside those that stay, by their numbers of processes: 2 + 3 + 3 = 8.
STAYING, PASSING = (1, 1), (3, 3)
#: So slow that the mailbox without limits takes many connections, of all processes.
ANSWER_SECONDS = 0.2
_PAUSE_SECONDS = 0.25
#: At least so many wait; those of the limited one are through within a minute.
_BACKLOG = {"limited": max(10, PER_MINUTE // 15), "unlimited": 200}


@dataclass(slots=True)
class Load:
    """Upstream systems that keep every mailbox busy for as long as it is wanted."""

    installation: Installation
    server: LimitedMailServer
    published: dict[str, list[str]] = field(default_factory=lambda: {profile: [] for profile in _BACKLOG})
    jobs: list[str] = field(default_factory=list[str])

    def until(self, is_over: Callable[[], bool], what: str) -> None:
        """Publish until it is so."""

        def go_on() -> bool:
            for profile, backlog in _BACKLOG.items():
                if len(self.published[profile]) - self.taken(profile) < backlog:
                    self._publish(profile, backlog)
            time.sleep(_PAUSE_SECONDS)
            return is_over()

        self.installation.wait_until(go_on, what)

    def until_more(self, *, seconds: float) -> None:
        """Publish for a while, and until mail of all mailboxes has gone out meanwhile."""
        ends_at = time.monotonic() + seconds
        before = {profile: self.taken(profile) for profile in _BACKLOG}
        while time.monotonic() < ends_at or any(self.taken(profile) < before[profile] + 10 for profile in _BACKLOG):
            self.until(lambda: True, "mail goes out")

    def taken(self, profile: str) -> int:
        """Count the messages of a mailbox that the mail server has taken."""
        return len(self.server.seen(profile).taken)

    def _publish(self, profile: str, recipients: int) -> None:
        addresses = [f"{uuid.uuid4().hex}@campus.example" for _ in range(recipients)]
        job = self.installation.job(
            profile=profile, mode="individual", recipients=[{"address": address} for address in addresses]
        )
        self.installation.publish(job)
        self.published[profile] += addresses
        self.jobs.append(str(job["id"]))


class Pods(Fleet):
    """A fleet of pods that come and go: a supervisor each, with some worker processes."""

    def start(self) -> None:
        """Make the profiles' files, and start nothing yet."""
        write_new_key_file(self.installation.directory / "master.key")
        self._password_file.write_text("everybody may log in")

    def add(self, processes: int) -> subprocess.Popen[bytes]:
        """Start a pod, and do not wait for it."""
        return self.installation.start_workers(processes=processes)

    def remove(self, pods: Sequence[subprocess.Popen[bytes]]) -> None:
        """End pods in good order, all at the same time; see their processes gone, and all that they held given back."""
        processes = [child for pod in pods for child in psutil.Process(pod.pid).children(recursive=True)]
        workers = [child.pid for child in processes]
        for pod in pods:
            pod.terminate()
        for pod in pods:
            assert pod.wait(PATIENCE_SECONDS) == 0
            self.installation.supervisors.remove(pod)
        assert [process for process in processes if process.is_running()] == []
        assert self.installation.query("SELECT pid FROM workers WHERE pid = ANY (%s)", workers) == []
        ownerless = " WHERE NOT EXISTS (SELECT FROM workers w WHERE w.id = "
        assert self.installation.query(
            f"SELECT 'batch' FROM batches {ownerless} leased_by) AND state = 'leased'"
            f" UNION ALL SELECT 'connection' FROM mailbox_connections {ownerless} worker_id)"
        ) == []  # fmt: skip

    def are_at_work(self, pods: Sequence[subprocess.Popen[bytes]]) -> Callable[[], bool]:
        """Give what tells whether each pod has something in hand."""
        workers = [[child.pid for child in psutil.Process(pod.pid).children()] for pod in pods]

        def all_are() -> bool:
            found = self.installation.query(
                "SELECT DISTINCT w.pid FROM workers w JOIN batches b ON b.leased_by = w.id WHERE b.state = 'leased'"
            )
            busy = {pid for (pid,) in found}
            return not any(busy.isdisjoint(pids) for pids in workers)

        return all_are

    def are(self, processes: int) -> Callable[[], bool]:
        """Give what tells whether there are so many worker processes, neither more nor less."""
        return lambda: self.installation.query("SELECT count(*) FROM workers") == [(processes,)]


@pytest.fixture
def server() -> Iterator[LimitedMailServer]:
    with LimitedMailServer() as server:
        yield server


@pytest.fixture
def pods(tmp_path: Path, database_url: str, broker_url: str, server: LimitedMailServer) -> Iterator[Pods]:
    pods = Pods(tmp_path, database_url, broker_url, server)
    try:
        pods.start()
        yield pods
    finally:
        pods.stop()


def test_from_one_process_to_eight_and_back_to_two_nothing_is_lost_or_doubled_and_budgets_hold(
    pods: Pods, server: LimitedMailServer
) -> None:
    server.enforce("unlimited", Enforced(answer_seconds=ANSWER_SECONDS))
    pods.add_profile("limited", "--connections", str(CONNECTIONS), "--per-minute", str(PER_MINUTE))
    pods.add_profile("unlimited")
    load = Load(pods.installation, server)

    first, *others = STAYING
    pods.add(first)
    load.until(lambda: load.taken("limited") > 0 and load.taken("unlimited") > 0, "one process sends")
    for processes in others:
        pods.add(processes)
    for _ in range(ROUNDS):
        passing = [pods.add(processes) for processes in PASSING]
        load.until(pods.are(sum(STAYING + PASSING)), "all eight are there")
        load.until_more(seconds=STAY_SECONDS)
        load.until(pods.are_at_work(passing), "those that are to go have something in hand")
        pods.remove(passing)
        load.until(pods.are(sum(STAYING)), "two are left")
        load.until_more(seconds=STAY_SECONDS)
    pods.wait_until_all_sent(*load.jobs)

    for profile, addresses in load.published.items():
        assert Counter(server.seen(profile).recipients) == Counter(addresses), profile
        assert server.seen(profile).refused == []
    limited = server.seen("limited")
    assert limited.most_open <= CONNECTIONS
    assert earliest_lead(limited.attempts, SLOTS_A_MINUTE / PER_MINUTE) <= LATEST_SECONDS
    assert most_within(limited.attempts, 60.0) <= PER_MINUTE
