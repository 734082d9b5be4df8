"""Taking parts in beside those who end, cancel and remove jobs at the same time."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from tests.servers.ledger_rows import add_profile, batch_states, states_of
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger.connection import open_pool
from tocsin_workers.intake.taking import TakenPart, take_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection, Pool


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[Pool]:
    async with open_pool(database_url, size=2) as one:
        yield one


@pytest.fixture
async def job(connection: Connection) -> dict[str, Any]:
    """The fields of a valid job, without recipients."""
    profile = await add_profile(connection)
    return {
        "id": str(uuid4()),
        "profile": profile.name,
        "content": {"subject": "Water damage", "text": "Please leave."},
    }


async def taken(pool: Pool, job: dict[str, Any], address: str, **fields: Any) -> TakenPart:
    return await take_in(pool, json.dumps({**job, "recipients": [{"address": address}], **fields}).encode())


async def test_an_id_whose_job_is_just_being_removed_for_its_age_makes_a_new_job(
    connection: Connection, pool: Pool, job: dict[str, Any]
) -> None:
    # Of the old job there is no more than its id.
    await connection.execute("INSERT INTO job_ids (id, job_number, digest) VALUES (%s, 1, 'other')", [job["id"]])
    part = await taken(pool, job, "someone@campus.example")
    assert part.is_new_job
    assert await states_of(connection, part.job_number) == ["pending"]


async def test_an_id_that_is_forgotten_in_that_very_moment_makes_a_new_job(
    connection: Connection, database_url: str, pool: Pool, job: dict[str, Any]
) -> None:
    await connection.execute("INSERT INTO job_ids (id, job_number, digest) VALUES (%s, 1, 'other')", [job["id"]])
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("SELECT FROM job_ids WHERE id = %s FOR UPDATE", [job["id"]])
        taking = asyncio.create_task(taken(pool, job, "someone@campus.example"))
        await until_somebody_waits(connection)
        await other.execute("DELETE FROM job_ids WHERE id = %s", [job["id"]])
    assert (await taking).is_new_job


async def test_a_part_of_a_cancelled_job_leaves_nothing_to_do(
    connection: Connection, pool: Pool, job: dict[str, Any]
) -> None:
    first = await taken(pool, job, "one@campus.example", part={"number": 1, "last": False})
    await connection.execute("UPDATE jobs SET state = 'cancelled' WHERE number = %s", [first.job_number])
    await taken(pool, job, "two@campus.example", part={"number": 2, "last": True})
    assert await batch_states(connection, first.job_number) == ["due", "done"]
    assert await states_of(connection, first.job_number) == ["cancelled", "cancelled"]


async def test_a_part_that_comes_after_the_time_that_its_caller_has_set_leaves_nothing_to_do(
    connection: Connection, pool: Pool, job: dict[str, Any]
) -> None:
    timely = {**job, "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    first = await taken(pool, timely, "one@campus.example", part={"number": 1, "last": False})
    await connection.execute("UPDATE jobs SET state = 'finished', finished_at = now(), expires_at = now()")
    await taken(pool, timely, "two@campus.example", part={"number": 2, "last": True})
    assert await batch_states(connection, first.job_number) == ["due", "done"]
    assert await states_of(connection, first.job_number) == ["expired", "expired"]


async def until_somebody_waits(connection: Connection) -> None:
    """Return once a session of this database waits for a lock."""
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await (await connection.execute(waiting)).fetchone() is None:  # noqa: ASYNC110 - another session's doing
            await asyncio.sleep(0.01)
