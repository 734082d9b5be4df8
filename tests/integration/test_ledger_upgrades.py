"""Steps before and after the new code, on a ledger that is in use: whom they wait for, and who waits for them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
from dramatiq.brokers.stub import StubBroker
from structlog.testing import capture_logs

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.errors import LedgerError
from tocsin_schema.ledger.migrate import check_schema, migrate, read_schema_state
from tocsin_schema.ledger.migration_steps import Migration, OlderWorkersError, Stage, migrations, older_workers
from tocsin_schema.ledger.worker_leases import register_worker, retire_worker
from tocsin_schema.message_broker.topology import Role
from tocsin_schema.sealing import write_new_key_file
from tocsin_schema.settings import Settings
from tocsin_workers.process.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.migration_steps import LivingWorkers

ADDS = Migration("9001_adds", "ALTER TABLE jobs ADD COLUMN added integer")
DROPS = Migration("9002_drops.after", "ALTER TABLE jobs DROP COLUMN added")
ADDS_LATER = Migration("9003_adds", "ALTER TABLE jobs ADD COLUMN later integer")
DROPS_NOTHING = Migration("9001_drops_nothing.after", "SELECT 1")
BROKEN = Migration("9002_broken", "SELECT no_such_function()")


def release(monkeypatch: pytest.MonkeyPatch, *more: Migration) -> None:
    """Let this be a release with more steps."""
    steps = [*migrations(), *more]
    monkeypatch.setattr("tocsin_schema.ledger.migrate.migrations", lambda: steps)


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def add_worker(connection: Connection, *, host: str = "pod-7", lease_seconds: float = 600) -> UUID:
    worker_id = uuid4()
    await register_worker(connection, worker_id, host=host, pid=1, role="sender", lease_seconds=lease_seconds)
    return worker_id


async def upgrade(connection: Connection, worker_id: UUID, version: int = 9003) -> None:
    await connection.execute("UPDATE workers SET schema_version = %s WHERE id = %s", [version, worker_id])


async def until_somebody_waits(connection: Connection, *, table: str | None = None) -> None:
    """Wait until somebody waits for a lock on a table, or else for the test's advisory lock."""
    waits = (
        "SELECT FROM pg_locks WHERE NOT granted"
        " AND (relation = to_regclass(%(table)s) OR %(table)s::text IS NULL AND locktype = 'advisory' AND objid = 1)"
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await (await connection.execute(waits, {"table": table})).fetchone() is None:  # noqa: ASYNC110  no event
            await asyncio.sleep(0.01)


# -- Two steps


async def test_what_takes_away_waits_for_the_end_of_older_workers_and_names_their_pods(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, ADDS, DROPS)
    async with connected(database_url) as connection:
        old = await add_worker(connection)
        assert await migrate(database_url, Stage.BEFORE) == [ADDS.name]
        assert (await read_schema_state(database_url)).before == ()
        new = await add_worker(connection, host="pod-8")
        await upgrade(connection, new)
        with pytest.raises(OlderWorkersError, match=r"9002_drops\.after waits.*pod-7 \(sender, 1 process\)\.") as told:
            await migrate(database_url, Stage.AFTER)
        assert "pod-8" not in str(told.value)
        state = await read_schema_state(database_url)
        assert (state.before, state.after) == ((), (DROPS.name,))
        assert [one.host for one in state.held_up_by] == ["pod-7"]
        await retire_worker(connection, old)
        assert await migrate(database_url, Stage.AFTER) == [DROPS.name]


async def test_both_at_once_leave_what_is_not_safe_for_later(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, ADDS, DROPS)
    async with connected(database_url) as connection:
        old = await add_worker(connection)
        assert await migrate(database_url) == [ADDS.name]
        await retire_worker(connection, old)
    assert await migrate(database_url) == [DROPS.name]


async def test_it_may_wait_for_older_workers_to_end(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, DROPS_NOTHING)
    has_looked = asyncio.Event()

    def look(step: Migration, workers: Sequence[LivingWorkers]) -> list[LivingWorkers]:
        has_looked.set()
        return older_workers(step, workers)

    monkeypatch.setattr("tocsin_schema.ledger.migrate.older_workers", look)
    monkeypatch.setattr("tocsin_schema.ledger.migrate._LOOK_EVERY_SECONDS", 0.01)
    async with connected(database_url) as connection:
        old = await add_worker(connection)
        waiting = asyncio.create_task(migrate(database_url, Stage.AFTER, wait_seconds=30))
        await asyncio.wait_for(has_looked.wait(), PATIENCE_SECONDS)
        await retire_worker(connection, old)
        assert await waiting == [DROPS_NOTHING.name]


async def test_a_worker_whose_lease_has_lapsed_holds_nothing_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, DROPS_NOTHING)
    async with connected(database_url) as connection:
        await add_worker(connection, lease_seconds=0.001)
    assert await migrate(database_url, Stage.AFTER) == [DROPS_NOTHING.name]


async def test_what_the_last_upgrade_left_is_made_up_for_before_the_next_one_unless_somebody_needs_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, ADDS, DROPS, ADDS_LATER)
    async with connected(database_url) as connection:
        worker = await add_worker(connection)
        for stage in (Stage.BEFORE, None):
            with pytest.raises(OlderWorkersError, match="pod-7"):
                await migrate(database_url, stage)
        await upgrade(connection, worker, 9002)
        assert await migrate(database_url, Stage.BEFORE) == [DROPS.name, ADDS_LATER.name]


async def test_a_worker_that_registers_while_something_is_taken_away_is_seen_or_sees_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Migration("9001_slow.after", "SELECT pg_advisory_xact_lock(1)")
    async with connected(database_url) as connection, connected(database_url) as other:
        await connection.execute("SELECT pg_advisory_lock(1)")
        with monkeypatch.context() as newer:
            release(newer, slow)
            # It holds whoever registers off, and waits for us.
            migrating = asyncio.create_task(migrate(database_url, Stage.AFTER))
            await until_somebody_waits(connection)
            registering = asyncio.create_task(add_worker(other))
            await until_somebody_waits(connection, table="workers")
            await connection.execute("SELECT pg_advisory_unlock(1)")
            assert await migrating == [slow.name]
        await registering
        with pytest.raises(LedgerError, match=r"9001_slow\.after took away"):
            await check_schema(other)


async def test_a_ledger_that_lacks_what_the_code_needs_is_not_worked_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, ADDS, DROPS)
    assert (await read_schema_state(database_url)).before == (ADDS.name,)
    async with connected(database_url) as connection:
        with pytest.raises(LedgerError, match=r"lacks 9001_adds.*`tocsin migrate --before`"):
            await check_schema(connection)
        await migrate(database_url, Stage.BEFORE)
        await check_schema(connection)


# -- Workers


async def test_a_worker_on_a_ledger_that_it_does_not_fit_waits_and_one_that_was_cut_off_meanwhile_takes_no_work(
    database_url: str, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, lease_seconds=2)
    write_new_key_file(settings.key_file)
    runtime = Runtime(settings, database_url, Role.SENDER, StubBroker())
    async with connected(database_url) as connection:
        with capture_logs() as logs:

            async def until_it_says(event: str) -> None:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not [line for line in logs if line["event"] == event and "9999_less" in line["reason"]]:  # noqa: ASYNC110  no event
                        await asyncio.sleep(0.02)

            await connection.execute(LEAVE_BEHIND)
            opening = asyncio.create_task(runtime.open())
            await until_it_says("worker waits")
            await connection.execute(TAKE_ALONG)
            assert await opening
            try:
                assert not runtime.lease.is_lost
                # While its heartbeats do not come through it is taken for dead, and the ledger upgraded.
                async with connection.transaction():
                    await connection.execute("LOCK TABLE workers IN SHARE ROW EXCLUSIVE MODE")
                    await connection.execute(LEAVE_BEHIND)
                    await connection.execute("DELETE FROM workers")
                await until_it_says("this worker takes no work: its release does not fit the ledger")
                assert runtime.lease.is_lost
                assert await (await connection.execute("SELECT FROM workers")).fetchall() == []
            finally:
                await runtime.close()


LEAVE_BEHIND = "INSERT INTO schema_migrations (name, digest) VALUES ('9999_less.after', '')"
TAKE_ALONG = "DELETE FROM schema_migrations WHERE name = '9999_less.after'"


# -- Locks


async def test_nobody_waits_behind_a_step_that_waits_for_its_lock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, ADDS)
    async with connected(database_url) as backup, connected(database_url) as sender:
        async with backup.transaction():
            await backup.execute("SELECT FROM jobs LIMIT 1")
            migrating = asyncio.create_task(migrate(database_url, Stage.BEFORE))
            for _ in range(2):  # it tries again
                await until_somebody_waits(backup, table="jobs")
                await sender.execute("SET statement_timeout = '5s'")
                await sender.execute("SELECT FROM jobs LIMIT 1")
            assert not migrating.done()
        assert await migrating == [ADDS.name]


async def test_a_step_that_gets_no_lock_changes_nothing_and_says_who_may_hold_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, ADDS)
    async with connected(database_url) as backup, backup.transaction():
        await backup.execute("SET LOCAL application_name = 'pg_dump'")
        await backup.execute("SELECT FROM jobs LIMIT 1")
        with pytest.raises(LedgerError, match=rf"locks within 0 s.*process {backup.info.backend_pid} \(pg_dump\)"):
            await migrate(database_url, locks_within_seconds=0)
    assert (await read_schema_state(database_url)).before == (ADDS.name,)


async def test_a_ledger_in_use_gets_each_step_by_itself(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, ADDS, BROKEN)
    with pytest.raises(LedgerError):
        await migrate(database_url)
    assert (await read_schema_state(database_url)).before == (BROKEN.name,)
