"""A worker process's runtime inside a test, with a scripted mail server and a profile that leads there."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dramatiq.brokers.stub import StubBroker
from psycopg.rows import dict_row

from tests.servers.ledger_rows import add_profile
from tests.servers.smtp import ScriptedMailServer, between_brackets, scripted_mail_server
from tocsin_schema.contract.part import Priority
from tocsin_schema.ledger import suppressions
from tocsin_schema.ledger.actors import Actor, ActorKind
from tocsin_schema.ledger.connection import connect
from tocsin_schema.message_broker.topology import QUEUES, Role
from tocsin_schema.settings import Settings
from tocsin_workers.intake.taking import take_in
from tocsin_workers.process.runtime import Runtime
from tocsin_workers.sender.slice import SliceResult, work_slice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tocsin_schema.ledger.connection import Connection

NO_SUCH_USER = "550 5.1.1 No such user here"
SOMEBODY = Actor(ActorKind.LOGIN, "root")


@dataclass
class Office:
    """A worker process's runtime, a mail server that refuses whom it is told to, and a profile that leads there."""

    runtime: Runtime
    server: ScriptedMailServer
    ledger: Connection
    profile: str

    def refuse(self, address: str, reply: str = NO_SUCH_USER) -> None:
        self.server.answers["RCPT"] = lambda line: reply if between_brackets(line) == address else None

    def welcome(self) -> None:
        self.server.answers.clear()
        self.server.lines.clear()

    @property
    def asked(self) -> list[str]:
        """Whom the server was asked to take."""
        return [between_brackets(line) for line in self.server.lines if line.startswith("RCPT")]

    async def send(self, *addresses: str, source: str | None = None, priority: Priority = Priority.NORMAL) -> int:
        """Publish a job and work all of it that is due; give its number."""
        part: dict[str, Any] = {
            "id": str(uuid4()),
            "profile": self.profile,
            "priority": priority.value,
            "content": {"subject": "Water damage", "text": "Please leave."},
            "recipients": [{"address": address} for address in addresses],
        }
        taken = await take_in(
            self.runtime.pool, json.dumps(part if source is None else {**part, "source": source}).encode()
        )
        await self.work()
        return taken.job_number

    async def work(self) -> None:
        """Work a slice, which lasts until nothing is due, or a second."""
        profile_id = await self.one("SELECT id FROM sending_profiles WHERE name = %s", self.profile)
        assert await work_slice(self.runtime.sender, profile_id, 1) is SliceResult.WORKED

    async def one(self, query: str, *parameters: object) -> Any:
        row = await (await self.ledger.execute(query.encode(), parameters)).fetchone()
        assert row is not None
        return row[0]

    @property
    def transactions(self) -> list[int]:
        """How many recipients each transaction was asked to take, in order."""
        sizes: list[int] = []
        for line in self.server.lines:
            if line.startswith("MAIL"):
                sizes.append(0)
            elif line.startswith("RCPT"):
                sizes[-1] += 1
        return sizes

    async def states(self, job: int) -> dict[str, tuple[str, str | None]]:
        """Give the state and the reason of every recipient by the address."""
        rows = await self.ledger.execute(
            "SELECT address, state, reason FROM recipient_states WHERE job_number = %s", [job]
        )
        return {address: (state, reason) for address, state, reason in await rows.fetchall()}

    async def state(self, job: int, address: str) -> str:
        return (await self.states(job))[address][0]

    async def suppressed(self, address: str) -> list[dict[str, Any]]:
        """Read the suppressions of an address."""
        async with self.ledger.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("SELECT * FROM suppressions WHERE address = %s ORDER BY id", [address])
            return await cursor.fetchall()

    async def suppress(self, address: str, source: str | None) -> None:
        assert (
            await suppressions.add_suppressions(self.ledger, [address], source=source, reason="left", actor=SOMEBODY)
            == 1
        )


@asynccontextmanager
async def open_office(url: str, key_file: Path) -> AsyncIterator[Office]:
    broker = StubBroker()
    for queue in QUEUES:
        broker.declare_queue(queue)
    settings = Settings(data_dir=key_file.parent, master_key_file=key_file)
    async with scripted_mail_server(ScriptedMailServer()) as server, connect(url) as ledger:
        await ledger.set_autocommit(True)
        await ledger.execute("DELETE FROM suppressions")
        profile = await add_profile(ledger)
        moved = await ledger.execute(
            "UPDATE sending_profiles SET host = '127.0.0.1', port = %s, tls = 'none' WHERE id = %s RETURNING name",
            [server.port, profile.id],
        )
        [(name,)] = await moved.fetchall()
        runtime = Runtime(settings, url, Role.SENDER, broker)
        assert await runtime.open()
        try:
            yield Office(runtime, server, ledger, str(name))
        finally:
            await runtime.close()
