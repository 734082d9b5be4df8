"""Parts of one job that come at the same time: those in the middle side by side, and nobody else kept out by them."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from tests.servers.ledger_rows import add_profile
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger import intake
from tocsin_schema.ledger.connection import open_pool
from tocsin_schema.ledger.job_controls import lock_job
from tocsin_workers.intake.taking import take_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tocsin_schema.ledger.connection import Connection, Pool

PARTS = 12


@pytest.fixture
async def pool(ledger_url: str) -> AsyncIterator[Pool]:
    pool = open_pool(ledger_url, size=PARTS)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


@pytest.fixture
async def profile(ledger_url: str) -> str:
    async with await psycopg.AsyncConnection.connect(ledger_url) as connection:
        return (await add_profile(connection)).name


class Job:
    def __init__(self, profile: str) -> None:
        self._fields: dict[str, Any] = {
            "id": str(uuid4()),
            "profile": profile,
            "content": {"subject": "Water damage", "text": "Please leave."},
        }

    def part(self, number: int, *, last: bool = False) -> bytes:
        recipients = [{"address": f"r{number}-{index}@campus.example"} for index in range(3)]
        position = {"number": number, "last": last}
        return json.dumps({**self._fields, "part": position, "recipients": recipients}).encode()


@asynccontextmanager
async def another_part_under_way(url: str, job_number: int) -> AsyncIterator[Connection]:
    """Hold what a part in the middle of a job holds until it is committed."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await intake.lock_job(connection, job_number, alone=False)
        yield connection
        await connection.rollback()


async def has_somebody_waiting(connection: Connection, number: int) -> None:
    """Wait until so many sessions of this database wait for a lock."""
    waiting = 0
    while waiting < number:
        await asyncio.sleep(0)
        row = await (
            await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        ).fetchone()
        assert row is not None
        waiting = int(row[0])
        await connection.rollback()


async def test_a_part_in_the_middle_does_not_wait_for_another_one(pool: Pool, profile: str, ledger_url: str):
    job = Job(profile)
    number = (await take_in(pool, job.part(1))).job_number
    async with another_part_under_way(ledger_url, number), asyncio.timeout(PATIENCE_SECONDS):
        assert (await take_in(pool, job.part(3))).recipients == 3


async def test_the_last_part_waits_for_those_under_way(pool: Pool, profile: str, ledger_url: str):
    job = Job(profile)
    number = (await take_in(pool, job.part(1))).job_number
    async with await psycopg.AsyncConnection.connect(ledger_url) as watcher, asyncio.timeout(PATIENCE_SECONDS):
        async with another_part_under_way(ledger_url, number):
            last = asyncio.create_task(take_in(pool, job.part(2, last=True)))
            await has_somebody_waiting(watcher, 1)
            assert not last.done()
        await last


async def test_who_controls_a_job_comes_before_parts_that_come_later(pool: Pool, profile: str, ledger_url: str):
    job = Job(profile)
    number = (await take_in(pool, job.part(1))).job_number
    order: list[str] = []

    async def control() -> None:
        async with pool.connection() as connection:
            await lock_job(connection, number)
            order.append("controlled")

    async def take() -> None:
        await take_in(pool, job.part(3))
        order.append("taken in")

    async with await psycopg.AsyncConnection.connect(ledger_url) as watcher, asyncio.timeout(PATIENCE_SECONDS):
        async with another_part_under_way(ledger_url, number):
            controlling = asyncio.create_task(control())
            await has_somebody_waiting(watcher, 1)
            taking = asyncio.create_task(take())
            await has_somebody_waiting(watcher, 2)
        await asyncio.gather(controlling, taking)
    assert order == ["controlled", "taken in"]


async def test_parts_that_all_come_at_once_make_one_whole_job(pool: Pool, profile: str, ledger_url: str):
    job = Job(profile)
    numbers = [*range(2, PARTS), PARTS, 1]
    async with asyncio.timeout(PATIENCE_SECONDS):
        taken = await asyncio.gather(*(take_in(pool, job.part(number, last=number == PARTS)) for number in numbers))
    (number,) = {part.job_number for part in taken}
    async with await psycopg.AsyncConnection.connect(ledger_url) as connection:
        rows = await connection.execute("SELECT state FROM jobs WHERE number = %s", [number])
        assert await rows.fetchall() == [("running",)]
        rows = await connection.execute(
            "SELECT count(*), bool_and(due_at <= now()) FROM batches WHERE job_number = %s", [number]
        )
        assert await rows.fetchall() == [(PARTS, True)]
