"""The installation that the suite breaks: nothing of it is shared with other tests."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.servers.faults import ledger
from tests.servers.faults.cluster import Cluster
from tests.servers.faults.mail_control import Configuration
from tests.servers.faults.mail_events import MailEvents
from tests.servers.faults.mail_server import MailServerProcess
from tests.servers.installation import CLIENT_ID, CLIENT_SECRET, TENANT_ID, Installation
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger.migrate import migrate
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.rabbitmq import RabbitmqNode

#: Long enough that a busy machine does not make a live process look dead.
LEASE_SECONDS = 5
PROCESSES = 2
#: By profile: one logs in by OAuth, the other not at all. Each is a mailbox of its own.
CONNECTIONS = {"by-token": 2, "plain": 3}
BATCH_SIZE = 20
#: So short that a failing endpoint is asked soon, whether anybody logs in just then or not.
TOKEN_SECONDS = 10
SECONDS_A_MESSAGE = 0.05
_POLL_SECONDS = 0.05
_LOG_TAIL = 6000


class Campus(Installation):
    """Made ready by its constructor; `destroy` takes everything down again."""

    def __init__(self, directory: Path, node: RabbitmqNode | None, *, seed: int) -> None:
        self.cluster = Cluster()
        self.node = node
        self.mail: MailServerProcess
        broker_url = None if node is None else node.create_vhost()
        super().__init__(directory, self.cluster.url, broker_url)
        self.environment |= {"TOCSIN_LEASE_SECONDS": str(LEASE_SECONDS), "TOCSIN_METRICS_PORT": "0"}
        self._seed = seed

    @property
    def connections(self) -> int:
        """How many connections there may be to all mailboxes together."""
        return sum(CONNECTIONS.values())

    def begin(self) -> None:
        """Start everything, and make the profiles."""
        write_new_key_file(Path(self.environment["TOCSIN_MASTER_KEY_FILE"]))
        asyncio.run(migrate(self.database_url))
        self.mail = MailServerProcess(
            Configuration(
                directory=str(self.directory / "mail"),
                client_id=CLIENT_ID,
                client_secret=CLIENT_SECRET,
                seed=self._seed,
                seconds_a_message=SECONDS_A_MESSAGE,
                token_seconds=TOKEN_SECONDS,
            )
        )
        self.events = MailEvents(self.mail.whereabouts.events)
        self.start_workers(processes=PROCESSES)
        self._make_profiles()
        self._wait_for_workers()
        if self.node is not None:
            # Else a crash in the first seconds takes the queues' logs with it: see `settle`.
            self.node.settle()

    def destroy(self) -> None:
        """End every process, and remove what is not in `directory`."""
        try:
            if self.supervisors:
                self.kill_tree()
            if hasattr(self, "mail"):
                self.mail.stop()
        finally:
            self.cluster.destroy()

    def worker_processes(self) -> list[psutil.Process]:
        """Give the worker processes that run now."""
        [supervisor] = self.supervisors
        found: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(supervisor.pid).children():
                with suppress(psutil.NoSuchProcess):
                    if child.status() != psutil.STATUS_ZOMBIE and "tocsin_workers.process" in child.cmdline():
                        found.append(child)
        return found

    def has_work(self, process: psutil.Process) -> bool:
        """Whether a worker process has batches in hand."""
        return bool(
            ledger.query(
                self.database_url,
                "SELECT FROM workers w JOIN batches b ON b.leased_by = w.id AND b.state = 'leased' WHERE w.pid = %s"
                " LIMIT 1",
                process.pid,
            )
        )

    def kill_tree(self) -> None:
        """Kill the supervisor and all its children before one of them can do anything about it."""
        [supervisor] = self.supervisors
        # Held, so that it starts no child between the two kills.
        supervisor.send_signal(signal.SIGSTOP)
        children = psutil.Process(supervisor.pid).children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        supervisor.kill()
        supervisor.wait()
        psutil.wait_procs(children, timeout=10)
        self.supervisors.clear()

    def resume_paused_profiles(self) -> list[str]:
        """Do what an operator does with a paused profile; give the reasons."""
        paused = ledger.query(
            self.database_url, "SELECT name, paused_reason FROM sending_profiles WHERE paused_at IS NOT NULL"
        )
        for name, _ in paused:
            self.tocsin("profile", "resume", name)
        return [f"{name}: {reason}" for name, reason in paused]

    def wait(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        """Look until it is so, or for so long; whether it is."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def why(self) -> str:
        """Tell all that says why something hangs."""
        tail = self.log.read_text(errors="replace")[-_LOG_TAIL:] if self.log.exists() else ""
        return f"{ledger.diagnosis(self.database_url)}\nthe workers' log:\n{tail}"

    def _make_profiles(self) -> None:
        secret = self.directory / "secret"
        secret.write_text(CLIENT_SECRET)
        there = self.mail.whereabouts
        self.tocsin("setting", "set", "RetryFirstDelaySeconds", "1")
        self.tocsin("setting", "set", "RetryMaximumDelaySeconds", "2")
        self.tocsin(
            "oauth", "add", "campus", "--provider", "custom", "--token-endpoint", there.token_endpoint,
            "--scope", "https://mail.campus.example/.default", "--tenant-id", TENANT_ID,
            "--client-id", CLIENT_ID, "--client-secret-file", str(secret), "--ca-file", there.ca_file,
        )  # fmt: skip
        self._make_profile("by-token", there.token_port, "--auth", "oauth", "--oauth", "campus", "--tls", "implicit",
                           "--ca-file", there.ca_file)  # fmt: skip
        self._make_profile("plain", there.plain_port, "--auth", "none", "--tls", "none")

    def _make_profile(self, name: str, port: int, *options: str) -> None:
        self.tocsin(
            "profile", "add", name, "--provider", "custom", "--host", "localhost", "--port", str(port),
            "--from", f"{name}@campus.example", "--batch-size", str(BATCH_SIZE),
            "--connections", str(CONNECTIONS[name]), *options,
        )  # fmt: skip

    def _wait_for_workers(self) -> None:
        def are_there() -> bool:
            [(count,)] = self.query("SELECT count(*) FROM workers")
            return bool(count == PROCESSES)

        assert self.wait(are_there, seconds=PATIENCE_SECONDS), self.why()
