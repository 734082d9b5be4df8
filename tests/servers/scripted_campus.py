"""An installation whose mail server is scripted and runs in the test's own event loop, in the test's hand."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil

from tests.servers.installation import SENDER, Installation
from tests.servers.smtp import ScriptedMailServer, Wait, scripted_mail_server
from tocsin_schema.ledger.migrate import migrate
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

LARGEST_PART = 1000


class DotGate:
    """Lets some messages be taken, and then holds the reply to every dot back until it is opened."""

    def __init__(self, *, after: int) -> None:
        self.taken = 0
        self.waiting = 0
        self._after = after
        self._open = asyncio.Event()

    def __call__(self, _line: str) -> Wait | None:
        """Answer a dot."""
        if self._open.is_set() or self.taken < self._after:
            self.taken += 1
            return None
        self.waiting += 1
        return Wait(self._open)

    def open(self) -> None:
        """Give the replies that were held back, and let everything pass."""
        self._open.set()


@dataclass
class ScriptedCampus:
    """The installation and its mail server."""

    installation: Installation
    mail: ScriptedMailServer = field(default_factory=ScriptedMailServer)

    async def add_profile(self, name: str, *options: str) -> None:
        """Make a sending profile without TLS and log-in."""
        await self.tocsin(
            "profile", "add", name, "--provider", "custom", "--host", "127.0.0.1", "--port", str(self.mail.port),
            "--tls", "none", "--auth", "none", "--from", SENDER, *options,
        )  # fmt: skip

    def hold_dots(self, *, after: int) -> DotGate:
        """Let so many messages be taken, then hold the replies back."""
        gate = DotGate(after=after)
        self.mail.answers["dot"] = gate
        return gate

    async def publish(self, recipients: int, **fields: Any) -> tuple[str, list[str]]:
        """Publish an individual job; give its id and its recipients."""
        job = self.installation.job(mode="individual", **fields)
        addresses = [f"{uuid4().hex[:8]}-{number}@campus.example" for number in range(recipients)]
        last = -(-recipients // LARGEST_PART)

        def put() -> None:
            for number in range(1, last + 1):
                chunk = addresses[(number - 1) * LARGEST_PART : number * LARGEST_PART]
                part = {"number": number, "last": number == last}
                self.installation.publish({**job, "part": part, "recipients": [{"address": one} for one in chunk]})

        await asyncio.to_thread(put)
        return str(job["id"]), addresses

    def times_received(self, addresses: list[str]) -> Counter[str]:
        """Count how often each of these was sent to."""
        wanted = set(addresses)
        return Counter(one for message in self.mail.messages for one in message.recipients if one in wanted)

    async def start_workers(self, *, processes: int = 2, role: str = "all") -> subprocess.Popen[bytes]:
        """Start workers and wait until each of them consumes; give their supervisor."""
        before = self.log().count("worker process ready")
        supervisor = await asyncio.to_thread(self.installation.start_workers, processes=processes, role=role)
        await self.until(lambda: self.log().count("worker process ready") == before + processes, "workers are ready")
        return supervisor

    async def stop_workers(self, number: int = signal.SIGTERM) -> int:
        """End the workers with a signal to their supervisor; give its exit code."""
        return await asyncio.to_thread(self.installation.stop_workers, number)

    def log(self) -> str:
        """Give what the workers have logged."""
        log = self.installation.log
        return log.read_text(errors="replace") if log.exists() else ""

    def connections_of(self, pid: int) -> set[int]:
        """Give the ports from which a process is connected to the mail server."""
        return {
            one.laddr.port
            for one in psutil.Process(pid).net_connections("tcp4")
            if one.raddr and one.raddr.port == self.mail.port and one.status == psutil.CONN_ESTABLISHED
        }

    async def job(self, job_id: str) -> dict[str, Any]:
        """Give what `job show` says."""
        return await asyncio.to_thread(self.installation.read, "job", "show", job_id)

    async def finished(self, *job_ids: str) -> None:
        """Wait until jobs are finished."""
        wanted = list(job_ids)
        statement = "SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND state = 'finished'"
        await self.until(
            lambda: self.installation.query(statement, wanted) == [(len(wanted),)], f"jobs {wanted} are finished"
        )

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Look until it is so, outside this loop, which serves meanwhile."""
        await asyncio.to_thread(self.installation.wait_until, condition, what)

    async def tocsin(self, *arguments: str) -> str:
        """Run a `tocsin` command that has to succeed."""
        return await asyncio.to_thread(self.installation.tocsin, *arguments)


@asynccontextmanager
async def scripted_campus(
    directory: Path, database_url: str, broker_url: str | None, *options: str, **environment: str
) -> AsyncGenerator[ScriptedCampus]:
    """Set the ledger up, and run the mail server; the profile `alerts` gets `options`. No worker runs yet."""
    installation = Installation(directory, database_url, broker_url)
    installation.environment.update(environment)
    write_new_key_file(directory / "master.key")
    await migrate(database_url)
    campus = ScriptedCampus(installation)
    async with scripted_mail_server(campus.mail):
        try:
            await campus.add_profile("alerts", *options)
            yield campus
        finally:
            await asyncio.to_thread(installation.stop)
