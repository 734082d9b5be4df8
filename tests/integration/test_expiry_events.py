"""What a sweep writes down of jobs whose time is nearly over, or over."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from tests.servers.ledger_rows import add_job, add_profile, add_worker, batch_states, states_of
from tests.servers.ledger_sender import accepted, claim_one, in_doubt, mark, refused, release, write
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger import sending_halt, sweeping
from tocsin_schema.ledger.actors import Actor, ActorKind
from tocsin_schema.ledger.connection import open_pool
from tocsin_workers.sweeping import close_expired_jobs, sweep, warn_of_expiry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection
    from tocsin_workers.waking import Waker

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


async def live(connection: Connection, job: int, *, life: timedelta, left: timedelta) -> None:
    """Let a job have a life so long, of which so much is left."""
    await connection.execute(
        "UPDATE jobs SET created_at = now() - %s::interval, expires_at = now() + %s::interval WHERE number = %s",
        [life - left, left, job],
    )


async def events_of(connection: Connection, job: int) -> list[tuple[str, dict[str, Any]]]:
    rows = await connection.execute("SELECT event, details, actor FROM job_events WHERE job_number = %s", [job])
    found = await rows.fetchall()
    assert all(actor is None for _, _, actor in found)
    return [(str(event), details if isinstance(details, dict) else json.loads(details)) for event, details, _ in found]


@pytest.mark.parametrize(
    ("life", "warned_at"),
    [
        (timedelta(minutes=10), timedelta(minutes=5)),
        (6 * HOUR, HOUR),
        (3 * DAY, 7.2 * HOUR),
        (7 * DAY, 16.8 * HOUR),
        (365 * DAY, DAY),
    ],
    ids=str,
)
async def test_it_is_told_when_a_tenth_of_the_life_is_left_or_an_hour(
    connection: Connection, life: timedelta, warned_at: timedelta
) -> None:
    job = await add_job(connection, await add_profile(connection))
    await live(connection, job, life=life, left=warned_at + timedelta(seconds=5))
    assert await warn_of_expiry(connection) == []
    await live(connection, job, life=life, left=warned_at - timedelta(seconds=5))
    assert [expiring.number for expiring in await warn_of_expiry(connection)] == [job]


async def test_a_life_begins_with_send_after(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection), send_after=datetime.now(UTC) - HOUR)
    await live(connection, job, life=30 * DAY, left=2 * HOUR)
    # Three hours, not thirty days: an hour before, not a day.
    assert await warn_of_expiry(connection) == []


async def test_the_event_says_for_how_many_and_what_holds_them_up(connection: Connection) -> None:
    profile = await add_profile(connection)
    job = await add_job(connection, profile, recipients=4, batch_size=4)
    worker = await add_worker(connection)
    batch = await claim_one(connection, profile, worker)
    await write(connection, batch, accepted(0), refused(1))
    await release(connection, worker, batch)
    await live(connection, job, life=HOUR, left=timedelta(minutes=1))
    await connection.execute(
        "UPDATE sending_profiles SET paused_at = now(), paused_reason = 'wrong secret', pause_cause = 'credentials'"
    )
    await connection.execute("UPDATE mailboxes SET parked_until = now() + interval '1 hour', parked_reason = '4.7.28'")
    await warn_of_expiry(connection)
    [(event, details)] = await events_of(connection, job)
    assert event == "expires_soon"
    assert details["unsettled"] == 2
    assert details["holds"][0] == "the sending profile is paused: wrong secret"
    assert details["holds"][1].endswith(": 4.7.28")


@pytest.mark.parametrize("rank", [0, 1, 2])
async def test_the_rest_of_a_tenant_is_told_and_what_is_kept_for_urgent_jobs_to_the_others(
    connection: Connection, rank: int
) -> None:
    profile = await add_profile(connection)
    job = await add_job(connection, profile)
    await live(connection, job, life=HOUR, left=timedelta(minutes=1))
    await connection.execute("UPDATE jobs SET rank = %s", [rank])
    await connection.execute(
        "INSERT INTO tenants (name, parked_until, parked_reason, kept_for_urgent_until, kept_for_urgent_reason)"
        " VALUES ('campus', now() + interval '1 hour', 'used up', now() + interval '2 hours', 'kept')"
    )
    await connection.execute("UPDATE mailboxes SET tenant_id = (SELECT id FROM tenants)")
    await warn_of_expiry(connection)
    [(_, details)] = await events_of(connection, job)
    told = [hold.rpartition(": ")[2] for hold in details["holds"]]
    assert told == (["used up"] if rank == 0 else ["used up", "kept"])


async def test_it_is_told_once_for_each_time_that_a_job_is_given(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection))
    for _ in range(2):
        await live(connection, job, life=HOUR, left=timedelta(minutes=1))
        await warn_of_expiry(connection)
        assert await warn_of_expiry(connection) == []
    assert [event for event, _ in await events_of(connection, job)] == ["expires_soon"] * 2


async def test_nothing_is_told_of_a_job_that_has_ended_or_has_only_to_be_finished(connection: Connection) -> None:
    profile = await add_profile(connection)
    done, cancelled = await add_job(connection, profile), await add_job(connection, profile, state="cancelled")
    await connection.execute("UPDATE batches SET state = 'done' WHERE job_number = %s", [done])
    for job in (done, cancelled):
        await live(connection, job, life=HOUR, left=timedelta(minutes=1))
    assert await warn_of_expiry(connection) == []


async def test_a_job_that_ends_says_what_it_had_come_to(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=6, batch_size=6, on_unknown="hold")
    batch = await claim_one(connection, profile, worker)
    await mark(connection, worker, batch, 0b1000)
    await write(connection, batch, accepted(0), refused(1), in_doubt(2))
    await connection.execute("UPDATE jobs SET expires_at = now() - interval '1 second'")
    await close_expired_jobs(connection)
    [(event, details)] = await events_of(connection, job)
    assert (event, details["total"]) == ("expired", 6)
    assert details["recipients"] == {"sent": 1, "failed": 1, "unknown": 1, "in_flight": 1, "expired": 2}


async def test_a_job_whose_last_part_never_came_ends_as_incomplete(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection), state="receiving", expires_in="-1 second")
    await close_expired_jobs(connection)
    assert await events_of(connection, job) == [("incomplete", {"total": 4, "recipients": {"expired": 4}})]


async def test_a_job_that_has_only_to_be_finished_has_not_expired(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection), expires_in="-1 second")
    await connection.execute("UPDATE batches SET state = 'done'")
    assert await close_expired_jobs(connection) == []
    assert await sweeping.finish_complete_jobs(connection) == [job]


async def test_a_paused_job_of_which_everything_is_done_is_finished_and_does_not_expire(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection), state="paused", expires_in="-1 second")
    await connection.execute("UPDATE jobs SET last_part = 1")
    await connection.execute(
        "INSERT INTO job_parts (job_number, number, digest, recipients, duplicates) VALUES (%s, 1, '', 4, 0)", [job]
    )
    await connection.execute("UPDATE batches SET state = 'done'")
    assert await close_expired_jobs(connection) == []
    assert await sweeping.finish_complete_jobs(connection) == [job]


async def test_in_a_restored_ledger_nobody_is_given_up_before_a_person_has_looked(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection), expires_in="-1 second")
    await connection.execute("UPDATE ledger_origin SET database_oid = 1")
    assert await close_expired_jobs(connection) == []
    await sending_halt.halt_restored(connection)
    assert await close_expired_jobs(connection) == []
    somebody = Actor(ActorKind.LOGIN, "ada")
    await sending_halt.resume_sending(connection, somebody)
    await sending_halt.halt_by_hand(connection, "fire drill", somebody)
    assert [one.number for one in await close_expired_jobs(connection)] == [job]


async def test_of_very_many_expired_jobs_a_sweep_ends_some(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "MOST_JOBS", 2)
    profile = await add_profile(connection)
    for _ in range(3):
        await add_job(connection, profile, expires_in="-1 second")
    assert [len(await close_expired_jobs(connection)) for _ in range(3)] == [2, 1, 0]


async def test_a_job_that_somebody_has_locked_does_not_hold_up_the_sweep(
    connection: Connection, database_url: str
) -> None:
    profile = await add_profile(connection)
    locked, other = [await add_job(connection, profile, expires_in="-1 second") for _ in range(2)]
    complete = await add_job(connection, profile)
    await connection.execute("UPDATE batches SET state = 'done' WHERE job_number = %s", [complete])
    async with await psycopg.AsyncConnection.connect(database_url) as frozen:
        await frozen.execute("SELECT FROM jobs WHERE number = ANY (%s) FOR NO KEY UPDATE", [[locked, complete]])
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [job.number for job in await close_expired_jobs(connection)] == [other]
            assert await sweeping.finish_complete_jobs(connection) == []
    assert [job.number for job in await close_expired_jobs(connection)] == [locked]
    assert await sweeping.finish_complete_jobs(connection) == [complete]


async def test_a_job_that_is_just_being_reopened_keeps_its_batches(connection: Connection, database_url: str) -> None:
    job = await add_job(connection, await add_profile(connection), recipients=2, state="finished")
    async with await psycopg.AsyncConnection.connect(database_url) as intake:
        await intake.execute("UPDATE jobs SET state = 'receiving' WHERE number = %s", [job])
        assert await sweeping.close_batches_of_ended_jobs(connection) == 0
    assert await batch_states(connection, job) == ["due"]
    assert await states_of(connection, job) == ["pending", "pending"]


async def test_ten_pods_that_sweep_at_once_tell_everything_once(connection: Connection, database_url: str) -> None:
    profile = await add_profile(connection)
    soon, over = await add_job(connection, profile), await add_job(connection, profile, expires_in="-1 second")
    await live(connection, soon, life=HOUR, left=timedelta(minutes=1))
    async with open_pool(database_url, size=10) as pool:
        swept = await asyncio.gather(*(sweep(pool, cast("Waker", Deaf()), may_bury=lambda: False) for _ in range(10)))
    assert any(result is not None for result in swept)
    assert [event for event, _ in await events_of(connection, soon)] == ["expires_soon"]
    assert [event for event, _ in await events_of(connection, over)] == ["expired"]


class Deaf:
    """Takes wake-ups and sends none."""

    async def wake_sender(self, profile_id: UUID, rank: int) -> None:
        pass
