"""A ledger that was put back from a backup starts paused; so does one that somebody has paused."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from structlog.testing import capture_logs

from tests.servers.ledger_rows import add_job, add_profile, add_worker
from tests.servers.ledger_sender import claim, claim_one, mark
from tocsin_console.embedded import EmbeddedPostgres
from tocsin_schema.ledger import sending, sending_halt, sweeping
from tocsin_schema.ledger.actors import Actor, ActorKind
from tocsin_schema.ledger.migrate import migrate
from tocsin_schema.ledger.sending_halt import HaltCause
from tocsin_workers.halting import watch_origin

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from uuid import UUID

    from tests.servers.ledger_rows import Profile
    from tests.servers.postgres import PostgresServer
    from tocsin_schema.ledger.connection import Connection

ADA = Actor(ActorKind.LOGIN, "ada")
BOB = Actor(ActorKind.LOGIN, "bob")


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as one:
        yield one


async def seed(connection: Connection) -> tuple[Profile, UUID]:
    profile = await add_profile(connection)
    await add_job(connection, profile)
    return profile, await add_worker(connection)


async def watch(connection: Connection) -> list[tuple[str, str]]:
    """Do what a sweep does first; give what it logged, with its level."""
    with capture_logs() as logged:
        await watch_origin(connection)
    return [(entry["log_level"], entry["event"]) for entry in logged]


async def is_allowed(connection: Connection) -> bool:
    row = await (await connection.execute("SELECT sending_is_allowed()")).fetchone()
    return row is not None and bool(row[0])


async def age_origin(connection: Connection, by: str) -> None:
    await connection.execute("UPDATE ledger_origin SET seen_at = now() - %s::interval", [by])


async def test_a_copy_sends_nothing_even_before_a_sweep_and_goes_on_once_it_is_resumed(
    database_url: str, postgres_server: PostgresServer
) -> None:
    async with connected(database_url) as original:
        profile, worker = await seed(original)
    copy = postgres_server.create_database(database_url)
    try:
        async with connected(copy) as connection:
            assert await claim(connection, profile, worker) == []
            assert await sweeping.profiles_to_wake(connection, patience_seconds=0) == []
            found = await sending_halt.read_halt(connection)
            assert found is not None
            assert found.halted_at is None
            assert await watch(connection) == [("error", "all sending is halted")]
            assert await watch(connection) == []
            halt = await sending_halt.read_halt(connection)
            assert halt is not None
            assert (halt.cause, halt.actor) == (HaltCause.RESTORED, None)
            for word in ("restored from a backup", "twice", "`tocsin job list --open`"):
                assert word in halt.reason
            assert not await sending_halt.halt_by_hand(connection, "stop", ADA)
            assert await claim(connection, profile, worker) == []
            assert await sending_halt.resume_sending(connection, ADA) == halt
            assert await watch(connection) == [("info", "sending goes on")]
            assert await claim(connection, profile, worker)
            lifted = await sending_halt.read_last_halt(connection)
            assert lifted is not None
            assert (lifted.actor, lifted.lifted_by, lifted.cause) == (None, "ada", HaltCause.RESTORED)
    finally:
        postgres_server.drop_database(copy)
    async with connected(database_url) as original:
        assert await is_allowed(original)


async def test_a_pause_by_hand_that_came_with_the_backup_gives_way_to_what_is_worse(database_url: str) -> None:
    async with connected(database_url) as connection:
        assert await sending_halt.halt_by_hand(connection, "fire drill", ADA)
        await connection.execute("UPDATE ledger_origin SET system_identifier = 1")
        assert await watch(connection) == [("error", "all sending is halted")]
        halt = await sending_halt.read_halt(connection)
        assert halt is not None
        assert (halt.cause, halt.actor) == (HaltCause.RESTORED, None)
        assert halt.reason.endswith("Before, ada had paused all sending: fire drill")


async def test_under_a_pause_nothing_is_claimed_and_nothing_that_was_claimed_is_begun(database_url: str) -> None:
    async with connected(database_url) as connection:
        profile, worker = await seed(connection)
        batch = await claim_one(connection, profile, worker)
        assert await sending.has_due_work(connection, profile.id)
        assert await sending_halt.halt_by_hand(connection, "stop", ADA)
        assert not await mark(connection, worker, batch, 0b01)
        assert not await sending.has_due_work(connection, profile.id)
        assert await claim(connection, profile, worker) == []
        await sending_halt.resume_sending(connection, ADA)
        assert await mark(connection, worker, batch, 0b01)
        assert await claim(connection, profile, worker)


async def test_a_ledger_at_home_is_noted_as_alive_from_time_to_time(database_url: str) -> None:
    async with connected(database_url) as connection:
        await age_origin(connection, "1 day")
        before = await sending_halt.read_place(connection)
        assert await watch(connection) == []
        after = await sending_halt.read_place(connection)
        assert before.is_to_be_noted
        assert not after.is_to_be_noted
        assert await watch(connection) == []
        assert (await sending_halt.read_place(connection)).seen_at == after.seen_at


async def test_a_pause_by_hand_and_its_resume_are_told_once_with_who_and_why(database_url: str) -> None:
    async with connected(database_url) as connection:

        async def told() -> list[dict[str, object]]:
            with capture_logs() as logged:
                await watch_origin(connection)
            return [dict(entry) for entry in logged]

        assert await told() == []
        assert await sending_halt.halt_by_hand(connection, "wrong list", ADA)
        [halted] = await told()
        assert (halted["event"], halted["log_level"]) == ("all sending was halted", "info")
        assert (halted["by"], halted["reason"]) == ("ada", "wrong list")
        assert await told() == []
        await sending_halt.resume_sending(connection, BOB)
        [resumed] = await told()
        assert (resumed["event"], resumed["log_level"]) == ("sending goes on", "info")
        assert (resumed["by"], resumed["halted_by"], resumed["reason"]) == ("bob", "ada", "wrong list")
        assert await told() == []


class Cluster:
    """A server of one's own, which can be recovered to another timeline."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.server = EmbeddedPostgres(directory)

    def recover(self) -> None:
        """Do what ends a recovery from a backup: replay what there is of the log, and begin a timeline."""
        self._stop_with("recovery.signal")
        # No archive: what lies in pg_wal is all there is.
        url = EmbeddedPostgres(self._directory, settings={"restore_command": "false"}).start()
        with psycopg.connect(url, autocommit=True) as connection:
            # It may be read before it is done.
            while connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
                pass

    def fail_over(self) -> None:
        """Let it be a standby that is promoted."""
        self._stop_with("standby.signal")
        with psycopg.connect(self.server.start(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def _stop_with(self, signal: str) -> None:
        self.server.stop()
        file = self.server.home / "data" / signal
        file.touch()
        owner = file.parent.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="tocsin-recovered-"))
    directory.chmod(0o711)  # under root the server runs as another user, who must pass through
    cluster = Cluster(directory)
    yield cluster
    cluster.server.destroy()
    shutil.rmtree(directory)


async def test_a_server_recovered_to_an_earlier_time_is_a_restored_ledger_and_a_standby_is_not(
    cluster: Cluster,
) -> None:
    await migrate(cluster.server.start())
    async with connected(cluster.server.url) as connection:
        profile, worker = await seed(connection)
        await age_origin(connection, "10 minutes")
    cluster.recover()
    async with connected(cluster.server.url) as connection:
        assert await claim(connection, profile, worker) == []
        assert await watch(connection) == [("error", "all sending is halted")]
        await sending_halt.resume_sending(connection, ADA)
        assert await is_allowed(connection)
        await age_origin(connection, "20 seconds")
    cluster.fail_over()
    async with connected(cluster.server.url) as connection:
        assert await claim(connection, profile, worker) == []
        [(level, said)] = await watch(connection)
        assert level == "warning"
        assert "last seconds may be missing" in said
        assert await sending_halt.read_halt(connection) is None
        assert await claim(connection, profile, worker)
