"""What is claimed first where jobs are many, and that no call of a slice costs more for what else is in the ledger."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from tests.servers.ledger_rows import add_job, add_profile, add_worker
from tests.servers.ledger_sender import claim
from tocsin_schema.ledger import recording, sending, suppressions, wakeups
from tocsin_schema.ledger.recording import Settlement, WantedMark
from tocsin_schema.ledger.sending import Release

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from tests.servers.ledger_rows import Profile
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.sending import ClaimedBatch


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


# -- Whose turn it is


async def move_back(connection: Connection, job: int, *, minutes: int) -> int:
    """Let a job have come earlier than it did; its number tells when it came."""
    earlier = job - (minutes * 60_000 << 12)
    await connection.execute("UPDATE jobs SET number = %s WHERE number = %s", [earlier, job])
    await connection.execute("UPDATE batches SET job_number = %s WHERE job_number = %s", [earlier, job])
    return earlier


async def test_jobs_of_one_rank_all_have_their_turn_whenever_they_came(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    jobs = [await add_job(connection, profile, recipients=200) for _ in range(10)]
    jobs[0] = await move_back(connection, jobs[0], minutes=1)
    turns: Counter[int] = Counter()
    for _ in range(100):
        claimed = await claim(connection, profile, worker, 4)
        assert len(claimed) == 4
        turns.update(batch.job_number for batch in claimed)
    assert set(turns) == set(jobs)


async def test_an_urgent_job_passes_thousands_of_others_and_none_of_them_is_left_out(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    await add_small_jobs(connection, profile, jobs=2000, recipients=1)
    urgent = await add_job(connection, profile, rank=0, recipients=4)
    first = await claim(connection, profile, worker, 32)
    assert [(batch.job_number, batch.rank) for batch in first] == [(urgent, 0)] * 2
    claimed: list[int] = []
    while batches := await claim(connection, profile, worker, 32):
        assert {batch.rank for batch in batches} == {1}
        claimed += [batch.job_number for batch in batches]
    assert len(claimed) == len(set(claimed)) == 2000


async def test_whoever_marks_learns_that_mail_of_a_better_rank_is_due_on_the_same_profile(
    connection: Connection,
) -> None:
    async def outranked() -> set[int]:
        written = await recording.write_batches(connection, worker, [], map(wanted, [*mine, *theirs]))
        assert written.marked == {(one.job_number, one.number) for one in (*mine, *theirs)}
        return {number for number, _ in written.outranked}

    profile, other, worker = await add_profile(connection), await add_profile(connection), await add_worker(connection)
    bulk = await add_job(connection, profile, rank=2)
    await add_job(connection, other, rank=2)
    mine, theirs = await claim(connection, profile, worker), await claim(connection, other, worker)
    assert await outranked() == set()
    urgent = await add_job(connection, profile, rank=0, recipients=2)
    assert await outranked() == {bulk}
    await connection.execute("UPDATE jobs SET send_after = now() + interval '1 hour' WHERE number = %s", [urgent])
    assert await outranked() == set()
    await connection.execute("UPDATE jobs SET send_after = NULL WHERE number = %s", [urgent])
    assert [batch.job_number for batch in await claim(connection, profile, worker)] == [urgent]
    assert await outranked() == set()


async def test_of_a_paused_profile_nothing_is_claimed(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    await add_job(connection, profile)
    await connection.execute(
        "UPDATE sending_profiles SET paused_at = now(), paused_reason = 'x', pause_cause = 'by_hand'"
    )
    assert await claim(connection, profile, worker) == []
    await connection.execute("UPDATE sending_profiles SET paused_at = NULL, paused_reason = NULL, pause_cause = NULL")
    assert len(await claim(connection, profile, worker)) == 2


async def test_of_a_profile_whose_mailbox_rests_nothing_is_claimed(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    await add_job(connection, profile)
    await connection.execute("UPDATE mailboxes SET parked_until = now() + interval '1 minute', parked_reason = 'x'")
    assert await claim(connection, profile, worker) == []
    await connection.execute("UPDATE mailboxes SET parked_until = now() - interval '1 second'")
    assert len(await claim(connection, profile, worker)) == 2


# -- What a call costs

SMALL_JOBS: Final = 2000
BATCH: Final = 50
LARGE_JOB: Final = 100_000
CALLS: Final = 20
LIMIT: Final = 16


async def add_small_jobs(connection: Connection, profile: Profile, *, jobs: int, recipients: int) -> None:
    """Add jobs of one batch each, all at once."""
    await connection.execute(
        "WITH added AS (INSERT INTO jobs (number, id, profile_id, mode, rank, on_unknown, state, expires_at)"
        " SELECT next_job_number(), gen_random_uuid(), %(profile)s, 'shared', 1, 'resend', 'running', now() + '1 day'"
        " FROM generate_series(1, %(jobs)s) RETURNING number),"
        " batched AS (INSERT INTO batches (job_number, number, first_ordinal, size, state, due_at, sent, in_flight)"
        " SELECT number, 0, 0, %(size)s, 'due', now(), repeat('0', %(size)s)::varbit, repeat('0', %(size)s)::varbit"
        " FROM added)"
        " INSERT INTO recipients (job_number, ordinal, batch_number, address)"
        " SELECT number, o, 0, 'r' || o || '@campus.example' FROM added, generate_series(0, %(size)s - 1) AS o",
        {"profile": profile.id, "jobs": jobs, "size": recipients},
    )


async def work_like_a_slice(connection: Connection, profile: Profile, worker: UUID) -> int:
    """Make every call that slices make again and again; give how many batches were claimed."""
    await wakeups.note_wakeup(connection, profile.id, 1)
    await wakeups.take_wakeups(connection, profile.id, 1)
    await sending.has_due_work(connection, profile.id)
    batches = await claim(connection, profile, worker, LIMIT)
    people = await sending.read_claimed_recipients(connection, batches)
    assert len(people) == sum(batch.size for batch in batches)
    await sending.read_claimed_exceptions(connection, batches)
    await suppressions.read_claimed_suppressions(connection, batches)
    await recording.write_batches(connection, worker, [], [wanted(batch) for batch in batches])
    written = await recording.write_batches(connection, worker, [settled(batch) for batch in batches], [])
    assert not written.marked
    released = await sending.release_batches(
        connection, worker, [Release(one.job_number, one.number, one.lease_epoch, 0.0) for one in batches]
    )
    assert {state for _, state in released} <= {"done"}
    await sending.finish_jobs(connection, sorted({job for job, _ in released}))
    return len(batches)


def wanted(batch: ClaimedBatch) -> WantedMark:
    return WantedMark(batch.job_number, batch.number, batch.lease_epoch, batch.size, (1 << batch.size) - 1)


def settled(batch: ClaimedBatch) -> Settlement:
    everybody = (1 << batch.size) - 1
    return Settlement(batch.job_number, batch.number, batch.lease_epoch, batch.size, sent=everybody, settled=everybody)


#: Rows that all calls together may read for each batch that is claimed, by the table: those of the batch itself, some
#: more than once, and nothing that grows with the ledger.
ROWS_A_BATCH: Final = {
    "jobs": 12,
    "job_parts": 2,
    "batches": 12,
    "recipients": 2 * BATCH,
    "recipient_exceptions": BATCH,
    "suppressions": BATCH,
}


async def read_so_far(connection: Connection) -> tuple[Counter[str], Counter[str]]:
    """By table, all months together: how often it was read from end to end, and how many rows were read."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    cursor = await connection.execute(
        "SELECT regexp_replace(relname, '_[0-9]{6}$', ''), seq_scan, seq_tup_read + coalesce(idx_tup_fetch, 0)"
        " FROM pg_stat_user_tables"
    )
    scans, rows = Counter[str](), Counter[str]()
    for table, times, count in await cursor.fetchall():
        scans[table] += times
        rows[table] += count
    return scans, rows


async def fill(connection: Connection, profile: Profile) -> None:
    """Put 200,000 recipients into the ledger: of one large job, of many small ones, and of another profile's."""
    await add_job(connection, profile, recipients=LARGE_JOB, batch_size=BATCH)
    await add_small_jobs(connection, profile, jobs=SMALL_JOBS // 2, recipients=BATCH)
    await add_small_jobs(connection, await add_profile(connection), jobs=SMALL_JOBS // 2, recipients=BATCH)
    await connection.execute(
        "INSERT INTO recipient_exceptions (job_number, ordinal, batch_number, state, attempts, due_at, reason)"
        " SELECT job_number, ordinal, batch_number, 'pending', 1, now(), 'x' FROM recipients WHERE ordinal % 10 = 3"
    )
    await connection.execute(
        "INSERT INTO suppressions (address, reason)"
        " SELECT 'gone' || n || '@campus.example', 'x' FROM generate_series(1, 10000) AS n"
    )


async def test_no_call_of_a_slice_costs_more_in_a_full_ledger_though_it_was_planned_in_an_empty_one(
    connection: Connection,
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    # The session plans every statement of the functions once: now.
    await add_job(connection, profile, recipients=2)
    assert await work_like_a_slice(connection, profile, worker) == 1
    await fill(connection, profile)
    scans_before, rows_before = await read_so_far(connection)
    claimed = sum([await work_like_a_slice(connection, profile, worker) for _ in range(CALLS)])
    scans, rows = await read_so_far(connection)
    assert claimed >= CALLS * LIMIT
    assert {table for table in ROWS_A_BATCH if scans[table] > scans_before[table]} == set()
    read = {table: (rows[table] - rows_before[table]) / claimed for table in ROWS_A_BATCH}
    assert {table: count for table, count in read.items() if count > ROWS_A_BATCH[table]} == {}, read
