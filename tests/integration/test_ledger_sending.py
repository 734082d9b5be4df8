"""Leases, marks and outcomes: who may claim what, and whose word counts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from tests.servers.ledger_rows import add_job, add_profile, add_worker, batch_states, counts_of, states_of
from tests.servers.ledger_sender import accepted, bury, claim, claim_one, deferred, mark, refused, release, write
from tocsin_schema.ledger import recording, sending, sweeping, wakeups
from tocsin_schema.ledger.recording import WantedMark

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


# -- Claiming


async def test_two_workers_that_claim_at_once_get_different_batches(connection: Connection, database_url: str) -> None:
    profile = await add_profile(connection)
    await add_job(connection, profile, recipients=8)
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        first, second = await add_worker(connection), await add_worker(connection)
        async with connection.transaction():
            mine = await claim(connection, profile, first, 2)
            theirs = await claim(other, profile, second)  # does not wait for the open transaction
        await other.commit()
    assert [batch.number for batch in mine] == [0, 1]
    assert [batch.number for batch in theirs] == [2, 3]


async def test_many_workers_claim_every_batch_once(connection: Connection, database_url: str) -> None:
    profile = await add_profile(connection)
    jobs = [await add_job(connection, profile, recipients=120) for _ in range(3)]

    async def work(own: Connection) -> list[tuple[int, int]]:
        worker, taken = await add_worker(own), list[tuple[int, int]]()
        while batches := await claim(own, profile, worker, 7):
            taken += [(batch.job_number, batch.number) for batch in batches]
        return taken

    async with AsyncExitStack() as stack:
        connect = psycopg.AsyncConnection.connect
        own = [await stack.enter_async_context(await connect(database_url, autocommit=True)) for _ in range(6)]
        taken = [key for keys in await asyncio.gather(*map(work, own)) for key in keys]
    assert sorted(taken) == [(job, number) for job in sorted(jobs) for number in range(60)]


async def test_the_best_rank_goes_first(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    bulk = await add_job(connection, profile, rank=2, recipients=40)
    normal = await add_job(connection, profile, rank=1)
    urgent = await add_job(connection, profile, rank=0)
    assert {batch.job_number for batch in await claim(connection, profile, worker, 2)} == {urgent}
    assert {batch.job_number for batch in await claim(connection, profile, worker, 2)} == {normal}
    assert {batch.job_number for batch in await claim(connection, profile, worker, 2)} == {bulk}


async def test_jobs_of_one_rank_take_turns(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    long = await add_job(connection, profile, recipients=100)
    short = await add_job(connection, profile, recipients=6)
    claimed = [batch.job_number for batch in await claim(connection, profile, worker, 6)]
    assert claimed.count(long) == claimed.count(short) == 3


async def test_another_profiles_batches_are_not_claimed(connection: Connection) -> None:
    mine, theirs = await add_profile(connection), await add_profile(connection)
    await add_job(connection, theirs)
    assert await claim(connection, mine, await add_worker(connection)) == []
    assert not await sending.has_due_work(connection, mine.id)
    assert await sending.has_due_work(connection, theirs.id)


@pytest.mark.parametrize(
    "why",
    [
        {"send_after": datetime.now(UTC) + timedelta(days=1)},
        {"state": "paused"},
        {"state": "cancelled"},
        {"state": "finished"},
        {"expires_in": "-1 second"},
    ],
    ids=["scheduled", "paused", "cancelled", "finished", "expired"],
)
async def test_a_job_that_may_not_be_sent_now_is_not_claimed(connection: Connection, why: dict[str, object]) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    await add_job(connection, profile, **why)  # pyright: ignore[reportArgumentType]  # the five cases above
    assert await claim(connection, profile, worker) == []
    assert not await sending.has_due_work(connection, profile.id)
    assert await sweeping.profiles_to_wake(connection, patience_seconds=0) == []


@pytest.mark.parametrize("state", ["receiving", "running"])
async def test_a_job_is_claimed_while_its_parts_still_come(connection: Connection, state: str) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    await add_job(connection, profile, state=state, send_after=datetime.now(UTC) - timedelta(hours=1))
    assert await sweeping.profiles_to_wake(connection, patience_seconds=0) == [(profile.id, 1)]
    assert len(await claim(connection, profile, worker)) == 2


async def test_a_batch_that_is_not_due_yet_is_left(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    await add_job(connection, profile, recipients=2)
    batch = await claim_one(connection, profile, worker)
    assert await release(connection, worker, batch, due_in=3600) == ["due"]
    assert await claim(connection, profile, worker) == []


# -- Fences


async def test_a_mark_by_another_worker_is_refused(connection: Connection) -> None:
    profile, owner, other = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2)
    batch = await claim_one(connection, profile, owner)
    assert not await mark(connection, other, batch, 0b11)
    assert await states_of(connection, job) == ["pending", "pending"]
    assert await mark(connection, owner, batch, 0b01)
    assert await states_of(connection, job) == ["in_flight", "pending"]


async def test_a_mark_with_the_epoch_of_an_earlier_claim_is_refused(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2)
    earlier = await claim_one(connection, profile, worker)
    await release(connection, worker, earlier)
    now = await claim_one(connection, profile, worker)
    assert now.lease_epoch > earlier.lease_epoch
    assert not await mark(connection, worker, earlier, 0b11)
    assert await states_of(connection, job) == ["pending", "pending"]


async def test_of_several_marks_only_those_of_our_batches_come_back(connection: Connection) -> None:
    profile, worker, other = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    await add_job(connection, profile, recipients=4)
    kept, lost = await claim(connection, profile, worker)
    await connection.execute(
        "UPDATE batches SET leased_by = %s, lease_epoch = lease_epoch + 1 WHERE number = %s", [other, lost.number]
    )
    wanted = [WantedMark(one.job_number, one.number, one.lease_epoch, one.size, 0b01) for one in (kept, lost)]
    written = await recording.write_batches(connection, worker, [], wanted)
    assert written.marked == {(kept.job_number, kept.number)}


@pytest.mark.parametrize(
    "stop",
    [
        "UPDATE jobs SET state = 'cancelled'",
        "UPDATE jobs SET state = 'paused'",
        "UPDATE jobs SET expires_at = now()",
        "UPDATE sending_profiles SET paused_at = now(), paused_reason = 'x', pause_cause = 'by_hand'",
        "INSERT INTO sending_halt (cause, reason) VALUES ('restored', 'x')",
        "UPDATE ledger_origin SET database_oid = 1",
    ],
)
async def test_what_was_stopped_since_the_claim_is_neither_marked_nor_claimed(
    connection: Connection, stop: LiteralString
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=4)
    batch = await claim_one(connection, profile, worker)
    await connection.execute(stop)
    assert not await mark(connection, worker, batch, 0b11)
    assert await claim(connection, profile, worker) == []
    assert "in_flight" not in await states_of(connection, job)


# -- Outcomes


async def test_one_refused_and_one_deferred_recipient_do_not_sink_their_batch(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=3, batch_size=3)
    batch = await claim_one(connection, profile, worker)
    assert await mark(connection, worker, batch, 0b111)
    await write(connection, batch, accepted(0), refused(1), deferred(2, seconds=0.0))
    assert await states_of(connection, job) == ["sent", "failed", "pending"]
    assert await counts_of(connection, job) == {"sent": 1, "failed": 1, "pending": 1}
    assert await release(connection, worker, batch) == ["due"]
    again = await claim_one(connection, profile, worker)
    assert again.sent == "100"
    (refusal, deferral) = await sending.read_claimed_exceptions(connection, [again])
    assert (refusal.state, refusal.attempts, refusal.due_in_seconds) == ("failed", 1, None)
    assert deferral.state == "pending"
    assert deferral.due_in_seconds is not None
    assert deferral.due_in_seconds <= 0
    await write(connection, again, accepted(2))
    assert await release(connection, worker, again) == ["done"]
    assert await sending.finish_jobs(connection, [job]) == [job]
    assert await counts_of(connection, job) == {"sent": 2, "failed": 1}


async def test_an_outcome_written_twice_counts_one_attempt(connection: Connection) -> None:
    # The first commit's reply was lost; its writer cannot know that it was there.
    profile, worker = await add_profile(connection), await add_worker(connection)
    await add_job(connection, profile, recipients=1, batch_size=1)
    for attempts in (1, 2):
        batch = await claim_one(connection, profile, worker)
        for _ in range(2):
            await write(connection, batch, deferred(0, seconds=0.0), attempts=attempts)
        (known,) = await sending.read_claimed_exceptions(connection, [batch])
        assert known.attempts == attempts
        await release(connection, worker, batch)


async def attempts_of(connection: Connection, job: int) -> list[tuple[object, ...]]:
    cursor = await connection.execute(
        "SELECT ordinal, state, reason FROM delivery_attempts WHERE job_number = %s ORDER BY ordinal, lease_epoch",
        [job],
    )
    return await cursor.fetchall()


async def test_every_try_is_kept_once_with_what_was_said(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=1, batch_size=1)
    for attempt in (1, 2):
        batch = await claim_one(connection, profile, worker)
        for _ in range(2):
            await write(connection, batch, deferred(0, seconds=0.0), attempts=attempt)
        await release(connection, worker, batch)
    last = await claim_one(connection, profile, worker)
    await write(connection, last, refused(0), attempts=3)
    said = "the server said so"
    assert await attempts_of(connection, job) == [
        (0, "pending", said), (0, "pending", said), (0, "failed", said)
    ]  # fmt: skip


async def test_a_try_that_another_owner_has_overtaken_is_not_kept(connection: Connection) -> None:
    profile, late, heir = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=1, batch_size=1)
    batch = await claim_one(connection, profile, late)
    await bury(connection, late)
    await claim_one(connection, profile, heir)
    await write(connection, batch, refused(0))
    assert await attempts_of(connection, job) == []


@pytest.mark.parametrize(("on_unknown", "state"), [("resend", "pending"), ("hold", "unknown")])
async def test_a_message_that_was_in_flight_when_its_worker_died_is_a_try_that_is_kept(
    connection: Connection, on_unknown: str, state: str
) -> None:
    profile, dead = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2, batch_size=2, on_unknown=on_unknown)
    batch = await claim_one(connection, profile, dead)
    await mark(connection, dead, batch, 0b01)
    await bury(connection, dead)
    reason = "the worker stopped while this message was in flight: it may have been sent"
    assert await attempts_of(connection, job) == [(0, state, reason)]


async def test_a_released_batch_leaves_nobody_in_flight(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2)
    batch = await claim_one(connection, profile, worker)
    await mark(connection, worker, batch, 0b11)
    await release(connection, worker, batch)
    assert await states_of(connection, job) == ["pending", "pending"]


async def test_a_job_is_not_finished_while_a_batch_is_open(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=4)
    batch = await claim_one(connection, profile, worker)
    await write(connection, batch, accepted(0, 1))
    assert await release(connection, worker, batch) == ["done"]
    assert await sending.finish_jobs(connection, [job]) == []
    assert await sweeping.finish_complete_jobs(connection) == []


async def test_who_was_not_sent_to_is_cancelled_or_expired_with_the_job(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    for ending, state in (("cancelled", "cancelled"), ("finished", "expired")):
        job = await add_job(connection, profile, recipients=2)
        batch = await claim_one(connection, profile, worker)
        await write(connection, batch, accepted(1))
        await connection.execute("UPDATE jobs SET state = %s, finished_at = now() WHERE number = %s", [ending, job])
        await release(connection, worker, batch)
        assert await states_of(connection, job) == [state, "sent"]
        assert await counts_of(connection, job) == {"sent": 1, state: 1}
        assert await sweeping.close_batches_of_ended_jobs(connection) == 1
        assert await batch_states(connection, job) == ["done"]


async def test_an_ended_job_is_looked_after_until_its_last_batch_has_come_back(connection: Connection) -> None:
    async def watched() -> list[tuple[object, ...]]:
        await sweeping.close_batches_of_ended_jobs(connection)
        await connection.execute("UPDATE ended_jobs SET noted_at = noted_at - interval '3 minutes'")
        await sweeping.close_batches_of_ended_jobs(connection)
        return await (await connection.execute("SELECT job_number FROM ended_jobs")).fetchall()

    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=4)
    batch = await claim_one(connection, profile, worker)
    await connection.execute("UPDATE jobs SET state = 'cancelled' WHERE number = %s", [job])
    assert await watched() == [(job,)]
    await release(connection, worker, batch)
    assert await watched() == []
    assert await batch_states(connection, job) == ["done", "done"]


async def test_a_job_that_goes_on_again_keeps_its_batches(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection), recipients=4)
    await connection.execute("UPDATE jobs SET state = 'finished', finished_at = now() WHERE number = %s", [job])
    await connection.execute("UPDATE jobs SET state = 'running', finished_at = NULL WHERE number = %s", [job])
    assert await sweeping.close_batches_of_ended_jobs(connection) == 0
    assert await batch_states(connection, job) == ["due", "due"]


async def test_an_expired_job_is_ended_with_its_reason(connection: Connection) -> None:
    profile = await add_profile(connection)
    whole = await add_job(connection, profile, expires_in="-1 second")
    partial = await add_job(connection, profile, expires_in="-1 second", state="receiving")
    paused = await add_job(connection, profile, expires_in="-1 second", state="paused")
    assert sorted(job.number for job in await sweeping.close_expired_jobs(connection)) == [whole, partial, paused]
    rows = await (await connection.execute("SELECT state, state_reason FROM jobs ORDER BY number")).fetchall()
    assert [state for state, _ in rows] == ["finished"] * 3
    assert "incomplete" in rows[1][1]
    assert await states_of(connection, whole) == ["expired"] * 4


# -- Wake-ups


async def test_no_more_than_a_few_wake_ups_are_under_way_until_one_is_taken(connection: Connection) -> None:
    profile = await add_profile(connection)
    for _ in range(wakeups.MOST_UNDER_WAY):
        assert await wakeups.note_wakeup(connection, profile.id, 1)
    assert not await wakeups.note_wakeup(connection, profile.id, 1)
    assert await wakeups.note_wakeup(connection, profile.id, 0)
    await wakeups.take_wakeups(connection, profile.id, 1)
    assert await wakeups.note_wakeup(connection, profile.id, 1)
    await wakeups.take_wakeups(connection, profile.id, 1, wakeups.MOST_UNDER_WAY + 1)
    for _ in range(wakeups.MOST_UNDER_WAY):
        assert await wakeups.note_wakeup(connection, profile.id, 1)


async def test_a_wake_up_that_was_lost_is_sent_again(connection: Connection) -> None:
    profile = await add_profile(connection)
    await wakeups.note_wakeup(connection, profile.id, 1)
    await connection.execute("UPDATE wakeups SET sent_at = sent_at - interval '1 minute'")
    assert await wakeups.note_wakeup(connection, profile.id, 1)
