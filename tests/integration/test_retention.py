"""Old months go while everything else goes on, however often that is interrupted; unfinished jobs keep theirs."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors, sql
from structlog.testing import capture_logs

from tests.servers.ledger_rows import Profile, add_job, add_profile, states_of
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger import retention, sending_halt
from tocsin_schema.ledger.actors import Actor, ActorKind
from tocsin_schema.ledger.connection import open_pool
from tocsin_schema.ledger.installation_settings import write_value
from tocsin_schema.ledger.retention import Month, TableState
from tocsin_workers import retiring
from tocsin_workers.retiring import Retirement

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tests.servers.pgbouncer import PgBouncer
    from tests.servers.postgres import PostgresServer
    from tocsin_schema.ledger.connection import Connection, Pool

OLD, NEXT = Month(2024, 1), Month(2024, 2)
MONTHS: Final = (OLD, NEXT)


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        await one.execute("SELECT make_partitions('2024-01-15', 1)")
        yield one


@pytest.fixture
async def pool(database_url: str, connection: Connection) -> AsyncGenerator[Pool]:
    async with open_pool(database_url, size=12) as one:
        yield one


async def add_old_job(connection: Connection, profile: Profile, month: Month = OLD, *, state: str = "finished") -> int:
    """Add a job as it is long after: everybody was sent to, or the job's time was over."""
    job = await add_job(connection, profile, state=state)
    row = await (await connection.execute("SELECT job_number_at(%s) + %s %% 4096", [month.first, job])).fetchone()
    assert row is not None
    number = int(row[0])
    # Rows do not move from one partition to another while nobody changes their number.
    for table, column in (("jobs", "number"), ("recipients", "job_number"), ("batches", "job_number")):
        await connection.execute(
            sql.SQL("UPDATE {} SET {} = %s WHERE {} = %s").format(*map(sql.Identifier, (table, column, column))),
            [number, job],
        )
    await connection.execute(
        "UPDATE jobs SET created_at = %(first)s, expires_at = %(first)s::timestamptz + interval '7 days',"
        " finished_at = CASE WHEN state = 'finished' THEN %(first)s::timestamptz + interval '7 days' END"
        " WHERE number = %(number)s",
        {"first": month.first, "number": number},
    )
    await connection.execute("UPDATE batches SET state = 'done' WHERE job_number = %s", [number])
    await connection.execute(
        "INSERT INTO job_ids (id, job_number, digest) SELECT id, number, '' FROM jobs WHERE number = %s", [number]
    )
    return number


async def months_of(connection: Connection) -> dict[Month, set[TableState]]:
    """The old months that are there, with the states of their tables."""
    found = await retention.read_month_tables(connection)
    return {month: set(tables.values()) for month, tables in found.items() if month in MONTHS}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - another process's doing is looked at, again and again
            await asyncio.sleep(0.01)


async def detachment_is_pending(connection: Connection) -> bool:
    return TableState.PENDING in (await months_of(connection)).get(OLD, set())


async def test_a_month_that_is_old_and_finished_goes_with_all_that_was_in_it(
    connection: Connection, pool: Pool
) -> None:
    profile = await add_profile(connection)
    old, recent = await add_old_job(connection, profile), await add_job(connection, profile)
    row = await (await connection.execute("SELECT id FROM job_ids WHERE job_number = %s", [old])).fetchone()
    assert row is not None
    await connection.execute(
        "INSERT INTO suppressions (address, reason, job_number) VALUES ('a@b.example', 'refused', %s)", [old]
    )
    with capture_logs() as logged:
        assert await Retirement(pool).retire_months() == [OLD, NEXT]
        assert await Retirement(pool).retire_months() == []
    assert [(entry["event"], entry["month"]) for entry in logged] == [
        ("a month's jobs were removed", "202401"),
        ("a month's jobs were removed", "202402"),
    ]
    assert await months_of(connection) == {}
    left = await connection.execute("SELECT relname FROM pg_class WHERE relname LIKE '%2024%'")
    assert await left.fetchall() == []
    assert await states_of(connection, recent) == ["pending"] * 4
    assert await (await connection.execute("SELECT job_number FROM suppressions")).fetchone() == (old,)
    again: UUID = row[0]
    await connection.execute("INSERT INTO job_ids (id, job_number, digest) VALUES (%s, next_job_number(), '')", [again])


async def test_it_works_behind_a_bouncer_that_keeps_no_session(
    connection: Connection, database_url: str, pgbouncer_server: PgBouncer
) -> None:
    await add_old_job(connection, await add_profile(connection))
    async with open_pool(pgbouncer_server.url_for(database_url), size=2) as behind:
        assert await Retirement(behind).retire_months() == [OLD, NEXT]
        async with behind.connection() as one:
            assert not one.autocommit
    assert await months_of(connection) == {}


@pytest.mark.parametrize(
    "unfinished",
    [
        "UPDATE jobs SET state = 'paused', finished_at = NULL WHERE number = %s",
        "UPDATE jobs SET finished_at = now() - interval '1 hour' WHERE number = %s",
        "UPDATE batches SET state = 'leased', leased_by = gen_random_uuid() WHERE job_number = %s AND number = 0",
        "INSERT INTO job_events (job_number, event) VALUES (%s, 'cancelled')",
    ],
    ids=["open", "just finished", "in work", "just cancelled"],
)
async def test_a_month_is_kept_for_one_job_that_is_not_over(
    connection: Connection, pool: Pool, unfinished: str
) -> None:
    profile = await add_profile(connection)
    await connection.execute(unfinished.encode(), [await add_old_job(connection, profile)])
    await add_old_job(connection, profile, NEXT)
    assert await Retirement(pool).retire_months() == [NEXT]
    assert await months_of(connection) == {OLD: {TableState.ATTACHED}}


async def test_a_job_that_a_person_retries_at_that_moment_brings_its_month_back(
    connection: Connection, pool: Pool, database_url: str
) -> None:
    job = await add_old_job(connection, await add_profile(connection))
    async with await psycopg.AsyncConnection.connect(database_url) as person:
        await person.execute("UPDATE jobs SET state = 'running', finished_at = NULL WHERE number = %s", [job])
        retiring_it = asyncio.create_task(Retirement(pool).retire_months())
        await until(lambda: detachment_is_pending(connection))
    assert await retiring_it == [NEXT]
    assert await months_of(connection) == {OLD: {TableState.ATTACHED}}
    assert await states_of(connection, job) == ["pending"] * 4
    # What came back is a month like any other.
    await connection.execute("UPDATE jobs SET state = 'finished', finished_at = created_at WHERE number = %s", [job])
    assert await Retirement(pool).retire_months() == [OLD]


async def test_what_was_interrupted_is_ended_by_whoever_comes_next(
    connection: Connection, pool: Pool, database_url: str
) -> None:
    await add_old_job(connection, await add_profile(connection))
    async with await psycopg.AsyncConnection.connect(database_url) as reader:
        await reader.execute("SELECT count(*) FROM jobs")
        killed = asyncio.create_task(Retirement(pool).retire_months())
        await until(lambda: detachment_is_pending(connection))
        killed.cancel()
        with suppress(asyncio.CancelledError):
            await killed
        assert await detachment_is_pending(connection)
    assert await Retirement(pool).retire_months() == [OLD, NEXT]
    async with pool.connection() as one:
        assert not one.autocommit


async def test_a_transaction_that_does_not_end_only_postpones_it(
    connection: Connection, pool: Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_old_job(connection, await add_profile(connection))
    monkeypatch.setattr(retiring, "PATIENCE_SECONDS", 0.2)
    async with await psycopg.AsyncConnection.connect(database_url) as frozen:
        await frozen.execute("UPDATE jobs SET state_reason = 'locked'")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await Retirement(pool).retire_months() == []
        # Nobody waits behind it.
        await connection.execute("SET lock_timeout = '1s'")
        await add_job(connection, await add_profile(connection))
    await frozen.close()
    assert await Retirement(pool).retire_months() == [OLD, NEXT]


async def test_every_stage_in_which_it_may_die_leads_to_the_same_end(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_old_job(connection, await add_profile(connection))
    take = Retirement._take
    steps: list[retention.Step] = []

    async def take_one_and_die(self: Retirement, step: retention.Step, month: Month) -> bool:
        assert await take(self, step, month)
        steps.append(step)
        raise ConnectionError

    monkeypatch.setattr(Retirement, "_take", take_one_and_die)
    while await months_of(connection):
        assert len(steps) < 100
        with suppress(ConnectionError):
            await Retirement(pool).retire_months()
    assert [type(step).__name__ for step in steps] == [*["Detach"] * 10, "Drop"] * 2


async def test_ten_pods_at_once_do_it_once(connection: Connection, pool: Pool) -> None:
    profile = await add_profile(connection)
    for month in MONTHS:
        await add_old_job(connection, profile, month)
    found = await asyncio.gather(*(Retirement(pool).retire_months() for _ in range(10)))
    while rest := await Retirement(pool).retire_months():
        found.append(rest)
    assert sorted(month for gone in found for month in gone) == list(MONTHS)
    assert await months_of(connection) == {}


async def test_who_writes_meanwhile_goes_on(connection: Connection, pool: Pool, database_url: str) -> None:
    profile = await add_profile(connection)
    for month in MONTHS:
        await add_old_job(connection, profile, month)
    longest = 0.0
    written = 0
    is_over = asyncio.Event()

    async def write() -> None:
        nonlocal longest, written
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as writer:
            while not is_over.is_set():
                begun = time.monotonic()
                await add_job(writer, profile)
                await writer.execute("UPDATE jobs SET state_reason = 'seen' WHERE state = 'running'")
                longest = max(longest, time.monotonic() - begun)
                written += 1

    writing = asyncio.create_task(write())
    assert await Retirement(pool).retire_months() == [OLD, NEXT]
    is_over.set()
    await writing
    assert written > 5
    assert longest < 2


async def test_a_month_that_is_to_be_kept_after_all_comes_back(connection: Connection, pool: Pool) -> None:
    job = await add_old_job(connection, await add_profile(connection))
    await connection.execute("ALTER TABLE jobs DETACH PARTITION jobs_202401")
    await connection.execute("ALTER TABLE batches DETACH PARTITION batches_202401")
    await write_value(connection, "RetentionDays", "0")
    assert await Retirement(pool).retire_months() == []
    assert await months_of(connection) == {OLD: {TableState.ATTACHED}, NEXT: {TableState.ATTACHED}}
    assert len(await states_of(connection, job)) == 4


async def test_while_sending_is_halted_nothing_is_removed_and_what_is_on_its_way_out_comes_back(
    connection: Connection, pool: Pool
) -> None:
    await sending_halt.halt_by_hand(connection, "looking", Actor(ActorKind.LOGIN, "ada"))
    await connection.execute("ALTER TABLE jobs DETACH PARTITION jobs_202401")
    assert await Retirement(pool).retire_months() == []
    assert await months_of(connection) == {OLD: {TableState.ATTACHED}, NEXT: {TableState.ATTACHED}}


async def test_a_user_who_may_not_is_told_once(
    connection: Connection, database_url: str, postgres_server: PostgresServer
) -> None:
    name = f"tocsin_guest_{uuid4().hex[:8]}"
    guest = sql.Identifier(name)
    try:
        await connection.execute(sql.SQL("CREATE ROLE {}").format(guest))
    except errors.InsufficientPrivilege:
        pytest.skip("this server's user may make no roles")
    await connection.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(guest))
    try:
        separator = "&" if "?" in database_url else "?"
        async with open_pool(f"{database_url}{separator}options=-crole%3D{name}", size=2) as theirs:
            retirement = Retirement(theirs)
            with capture_logs() as logged:
                for _ in range(2):
                    assert await retirement.retire_months() == []
        [entry] = logged
        assert entry["log_level"] == "error"
        assert "RetentionDays" in entry["event"]
    finally:
        await connection.execute(sql.SQL("DROP OWNED BY {}").format(guest))
        await connection.execute(sql.SQL("DROP ROLE {}").format(guest))
