"""What the metrics count in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers.ledger_rows import add_job, add_profile, counts_of
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.depths import (
    LedgerDepths,
    OpenJobs,
    OpenRecipients,
    ledger_depths,
    open_jobs,
    open_recipients,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection

NOBODY = OpenRecipients(pending=0, in_flight=0, sent=0, failed=0, unknown=0, suppressed=0)


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with connect(database_url) as connection:
        yield connection


async def test_an_empty_ledger_counts_nothing(connection: Connection) -> None:
    assert await ledger_depths(connection) == LedgerDepths(due=0, waiting=0, leased=0, dead_letters=0, open_jobs=0)
    assert await open_jobs(connection) == OpenJobs(receiving=0, running=0, paused=0)
    assert await open_recipients(connection) == NOBODY


async def test_jobs_and_batches_are_counted_by_state(connection: Connection) -> None:
    profile = await add_profile(connection)
    for state in ("receiving", "running", "running", "paused", "cancelled", "finished"):
        await add_job(connection, profile, state=state, recipients=2)
    later = await add_job(connection, profile, recipients=6)
    await connection.execute(
        "UPDATE batches SET due_at = CASE number WHEN 0 THEN 'infinity' ELSE now() + interval '1 hour' END"
        " WHERE job_number = %s AND number < 2",
        [later],
    )
    await connection.execute("INSERT INTO dead_letters (queue, code, reason, body, digest, details)"
                             " VALUES ('q', 'not_json', 'no JSON', '', '', '{}')")  # fmt: skip
    depths = await ledger_depths(connection)
    assert (depths.due, depths.waiting, depths.leased, depths.dead_letters) == (4, 5, 0, 1)
    assert depths.open_jobs == 5
    assert await open_jobs(connection) == OpenJobs(receiving=1, running=3, paused=1)


async def test_recipients_of_open_jobs_are_counted_as_each_job_tells_them(connection: Connection) -> None:
    profile = await add_profile(connection)
    one = await add_job(connection, profile, recipients=20, batch_size=10)
    paused = await add_job(connection, profile, state="paused", recipients=5, batch_size=10)
    ended = await add_job(connection, profile, state="finished", recipients=100, batch_size=10)
    await connection.execute(
        "UPDATE batches SET sent = B'1110000000', in_flight = B'0011100000', failed = 2, unknown = 1"
        " WHERE job_number IN (%s, %s) AND number = 0",
        [one, ended],
    )
    assert await open_recipients(connection) == OpenRecipients(
        pending=17, in_flight=2, sent=3, failed=2, unknown=1, suppressed=0
    )
    assert await counts_of(connection, one) == {"pending": 12, "in_flight": 2, "sent": 3, "failed": 2, "unknown": 1}
    assert await counts_of(connection, paused) == {"pending": 5}
