"""What becomes of the batches of a worker that died, and of what it says afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from uuid import uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY

from tests.servers.ledger_rows import add_job, add_profile, add_worker, age, batch_states, counts_of, states_of
from tests.servers.ledger_sender import accepted, bury, claim_one, in_doubt, mark, refused, release, write
from tocsin_schema.ledger import mailboxes, sweeping, worker_leases
from tocsin_schema.ledger.connection import open_pool
from tocsin_workers.sweeping import sweep

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection
    from tocsin_workers.waking import Waker


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


async def test_a_release_by_a_fenced_owner_does_nothing(connection: Connection) -> None:
    profile, dead, heir = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2)
    lost = await claim_one(connection, profile, dead)
    await bury(connection, dead)
    batch = await claim_one(connection, profile, heir)
    assert await mark(connection, heir, batch, 0b11)
    assert await release(connection, dead, lost) == []
    assert await states_of(connection, job) == ["in_flight", "in_flight"]


async def test_under_resend_what_was_in_flight_is_pending_again(connection: Connection) -> None:
    profile, dead, heir = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2, on_unknown="resend")
    batch = await claim_one(connection, profile, dead)
    await mark(connection, dead, batch, 0b11)
    assert (await bury(connection, dead)).jobs == [job]
    assert await states_of(connection, job) == ["pending", "pending"]
    assert (await claim_one(connection, profile, heir)).lease_epoch > batch.lease_epoch


async def test_under_hold_what_was_in_flight_is_unknown_and_the_rest_goes_on(connection: Connection) -> None:
    profile, dead, heir = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=4, batch_size=4, on_unknown="hold")
    batch = await claim_one(connection, profile, dead)
    await mark(connection, dead, batch, 0b0111)
    await write(connection, batch, accepted(0))
    await bury(connection, dead)
    assert await states_of(connection, job) == ["sent", "unknown", "unknown", "pending"]
    assert await counts_of(connection, job) == {"sent": 1, "unknown": 2, "pending": 1}
    again = await claim_one(connection, profile, heir)
    await write(connection, again, accepted(3))
    assert await release(connection, heir, again) == ["done"]
    assert await counts_of(connection, job) == {"sent": 2, "unknown": 2}


async def test_under_hold_a_batch_of_nothing_but_unknowns_is_done(connection: Connection) -> None:
    profile, dead = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2, on_unknown="hold")
    await mark(connection, dead, await claim_one(connection, profile, dead), 0b11)
    await bury(connection, dead)
    assert await batch_states(connection, job) == ["done"]
    assert await sweeping.finish_complete_jobs(connection) == [job]


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
async def test_who_was_in_flight_is_counted_as_unknown_once(
    connection: Connection, database_url: str, on_unknown: str
) -> None:
    profile, dead = await add_profile(connection), await add_worker(connection)
    shared = await add_job(connection, profile, recipients=4, batch_size=4, on_unknown=on_unknown)
    batch = await claim_one(connection, profile, dead)
    await mark(connection, dead, batch, 0b1111)
    await write(connection, batch, accepted(0), in_doubt(1))  # its sender has counted these two
    individual = await add_job(connection, profile, recipients=3, batch_size=3, on_unknown=on_unknown)
    await connection.execute("UPDATE jobs SET mode = 'individual' WHERE number = %s", [individual])
    await mark(connection, dead, await claim_one(connection, profile, dead), 0b111)
    await age(connection, dead)
    async with open_pool(database_url, size=2) as pool:
        for _ in range(2):
            await sweep(pool, cast("Waker", Deaf()), may_bury=lambda: True)
    assert await batch_states(connection, shared) != ["leased"]
    labels = {"profile": profile.name, "outcome": "unknown"}
    assert REGISTRY.get_sample_value("tocsin_recipients_total", labels) == 2 + 3
    assert REGISTRY.get_sample_value("tocsin_messages_total", labels) == 1 + 3


class Deaf:
    """Takes wake-ups and sends none."""

    async def wake_sender(self, profile_id: UUID, rank: int) -> None:
        pass


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
async def test_a_late_acceptance_is_recorded_and_wins(connection: Connection, on_unknown: str) -> None:
    profile, dead, heir = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2, on_unknown=on_unknown)
    batch = await claim_one(connection, profile, dead)
    await mark(connection, dead, batch, 0b01)
    await bury(connection, dead)
    await write(connection, batch, accepted(0))
    assert await states_of(connection, job) == ["sent", "pending"]
    assert await counts_of(connection, job) == {"sent": 1, "pending": 1}
    assert (await claim_one(connection, profile, heir)).sent == "10"


async def test_a_late_refusal_does_not_settle_whom_somebody_has_tried_since(connection: Connection) -> None:
    profile, late, heir = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=1, batch_size=1, on_unknown="hold")
    batch = await claim_one(connection, profile, late)
    await mark(connection, late, batch, 0b1)
    await bury(connection, late)
    # A person has it sent again, and that is in doubt too.
    await connection.execute("UPDATE recipient_exceptions SET state = 'pending', due_at = now()")
    await connection.execute("UPDATE batches SET state = 'due', due_at = now(), unknown = 0")
    again = await claim_one(connection, profile, heir)
    await mark(connection, heir, again, 0b1)
    await write(connection, again, in_doubt(0))
    await write(connection, batch, refused(0))
    assert await states_of(connection, job) == ["unknown"]


async def test_after_a_late_acceptance_nobody_of_the_batch_is_skipped(connection: Connection) -> None:
    profile, dead, heir = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2, on_unknown="hold")
    batch = await claim_one(connection, profile, dead)
    await mark(connection, dead, batch, 0b01)
    await bury(connection, dead)
    await write(connection, batch, accepted(0))
    again = await claim_one(connection, profile, heir)
    assert await release(connection, heir, again) == ["due"]  # the second one was never tried
    assert await batch_states(connection, job) == ["due"]


async def test_a_dead_workers_connections_and_row_are_gone(connection: Connection) -> None:
    profile, dead = await add_profile(connection, connections=1), await add_worker(connection)
    assert await mailboxes.take_connection(connection, profile.mailbox_id, dead) == 1
    await bury(connection, dead)
    assert not await worker_leases.beat(connection, dead)
    heir = await add_worker(connection)
    assert await mailboxes.take_connection(connection, profile.mailbox_id, heir) == 1


async def test_a_worker_that_retires_gives_its_batches_back(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=4)
    begun = await claim_one(connection, profile, worker)
    await mark(connection, worker, begun, 0b11)
    await write(connection, begun, accepted(0))
    await worker_leases.retire_worker(connection, worker)
    assert await batch_states(connection, job) == ["due", "due"]
    assert await states_of(connection, job) == ["sent", "pending", "pending", "pending"]


async def test_a_lease_whose_worker_has_no_row_is_taken_back(connection: Connection) -> None:
    # It was buried while it was frozen, thawed, claimed before it noticed, and died.
    profile, gone = await add_profile(connection), uuid4()
    job = await add_job(connection, profile, recipients=2, on_unknown="hold")
    await mark(connection, gone, await claim_one(connection, profile, gone), 0b01)
    assert await sweeping.lapsed_workers(connection) == []
    assert await sweeping.ownerless_leases(connection) == [gone]
    assert (await sweeping.bury_workers(connection, [gone])).jobs == [job]
    assert await states_of(connection, job) == ["unknown", "pending"]
    assert await sweeping.ownerless_leases(connection) == []


async def test_a_claim_whose_reply_was_lost_is_given_back(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=4)
    known = await claim_one(connection, profile, worker)
    await claim_one(connection, profile, worker)  # nobody heard of it
    keys = [(known.job_number, known.number, known.lease_epoch)]
    given_back = worker_leases.release_forgotten_batches
    assert await given_back(connection, worker, keys, older_than_seconds=3600) == 0  # it may just be on its way
    assert await given_back(connection, worker, keys, older_than_seconds=0) == 1
    assert await batch_states(connection, job) == ["leased", "due"]
    assert await mark(connection, worker, known, 0b11)


async def test_a_worker_with_a_fresh_heartbeat_is_left_alone(connection: Connection) -> None:
    worker = await add_worker(connection, lease_seconds=30)
    assert await worker_leases.beat(connection, worker)
    assert await sweeping.lapsed_workers(connection) == []


async def test_nothing_is_reclaimed_in_the_first_lease_time_after_postgres_started(connection: Connection) -> None:
    row = await (
        await connection.execute("SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float8")
    ).fetchone()
    assert row is not None
    up_for = float(row[0])
    long = await add_worker(connection, lease_seconds=up_for + 3600)
    short = await add_worker(connection, lease_seconds=up_for / 2)
    await age(connection, long, by="10 years")
    await age(connection, short, by="10 years")
    assert await sweeping.lapsed_workers(connection) == [short]


async def test_one_sweep_runs_at_a_time(connection: Connection, database_url: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(database_url) as other,
        connection.transaction(),
    ):
        assert await sweeping.try_lock_sweep(connection)
        assert not await sweeping.try_lock_sweep(other)


async def test_a_batch_whose_workers_keep_dying_waits_longer_each_time(connection: Connection) -> None:
    profile = await add_profile(connection)
    await add_job(connection, profile, recipients=2)
    waits: list[float] = []
    for _ in range(4):
        await connection.execute("UPDATE batches SET due_at = now()")
        dead = await add_worker(connection)
        await claim_one(connection, profile, dead)
        await bury(connection, dead)
        row = await (
            await connection.execute("SELECT extract(epoch FROM max(due_at) - now())::float8 FROM batches")
        ).fetchone()
        assert row is not None
        waits.append(round(float(row[0])))
    assert waits == [0, 1, 3, 7]


async def test_what_a_frozen_transaction_has_locked_does_not_hold_up_the_sweep(
    connection: Connection, database_url: str
) -> None:
    profile, dead = await add_profile(connection), await add_worker(connection)
    await add_job(connection, profile, recipients=4)
    begun = await claim_one(connection, profile, dead)
    await claim_one(connection, profile, dead)
    async with await psycopg.AsyncConnection.connect(database_url) as frozen:
        await frozen.execute("SELECT FROM batches WHERE number = %s FOR UPDATE", (begun.number,))
        reclaimed = await bury(connection, dead)
        assert len(reclaimed.jobs) == 1
    assert await sweeping.ownerless_leases(connection) == [dead]
    assert len((await sweeping.bury_workers(connection, [dead])).jobs) == 1
