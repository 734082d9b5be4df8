"""A person's hand on a job: what it changes in the ledger while senders, intake and the sweeper go on."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from tests.servers.ledger_rows import Profile, add_job, add_profile, add_worker, batch_states, counts_of, states_of
from tests.servers.ledger_sender import (
    accepted,
    bury,
    claim,
    claim_one,
    deferred,
    in_doubt,
    mark,
    refused,
    release,
    write,
)
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger import intake, recipient_controls, recording, sending, suppressions
from tocsin_schema.ledger.actors import Actor, ActorKind
from tocsin_schema.ledger.job_controls import cancel_job, pause_job, resume_job
from tocsin_schema.ledger.job_events import read_events
from tocsin_schema.ledger.job_reading import TRIES_SHOWN, read_job, read_recipients
from tocsin_schema.ledger.recipient_control_rules import Settlement
from tocsin_schema.ledger.recipient_controls import retry_failed, settle_unknown
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.job_events import RecordedEvent
    from tocsin_schema.ledger.sending import ClaimedBatch

ADA: Final = Actor(ActorKind.LOGIN, "ada")


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


async def state_of(connection: Connection, job: int) -> str:
    row = await (await connection.execute("SELECT state FROM jobs WHERE number = %s", [job])).fetchone()
    assert row is not None
    return str(row[0])


async def newest_event(connection: Connection, job: int) -> RecordedEvent:
    return (await read_events(connection, job, limit=1))[0]


async def add_parts(connection: Connection, job: int, *numbers: int, last: int | None = None) -> None:
    for number in numbers:
        await intake.insert_part(connection, job, number, digest=b"", recipients=1, duplicates=0)
    if last is not None:
        await intake.note_last_part(connection, job, last)


async def finish(connection: Connection, job: int) -> None:
    assert await sending.finish_jobs(connection, [job]) == [job]


async def give_up(connection: Connection, job: int) -> None:
    """Do what the sweeper does with a job whose time is over."""
    await connection.execute(
        "UPDATE jobs SET state = 'finished', finished_at = now(), state_reason = 'expired',"
        " expires_at = now() - interval '1 minute' WHERE number = %s",
        [job],
    )
    await connection.execute("UPDATE batches SET state = 'done' WHERE job_number = %s AND state = 'due'", [job])


async def refuse_at_intake(connection: Connection, job: int, ordinal: int) -> None:
    row = intake.UnusableRecipient(ordinal, ordinal // 2, "it is no address")
    await intake.copy_unusable_recipients(connection, job, [row])
    await connection.execute(
        "UPDATE batches SET failed = failed + 1 WHERE job_number = %s AND number = %s", [job, ordinal // 2]
    )


async def tried(connection: Connection, profile: Profile, *, recipients: int = 6, **fields: str) -> int:
    """A finished job: of each batch of two, the first was sent and the second refused."""
    worker = await add_worker(connection)
    job = await add_job(connection, profile, recipients=recipients, **fields)  # pyright: ignore[reportArgumentType]  # its texts only
    await add_parts(connection, job, 1, last=1)
    for batch in await claim(connection, profile, worker):
        assert await mark(connection, worker, batch, 0b11)
        await write(connection, batch, accepted(0), refused(1))
        await release(connection, worker, batch)
    await finish(connection, job)
    return job


# -- Cancelling, pausing, resuming


async def test_of_a_cancelled_job_nothing_new_begins_and_what_was_under_way_is_recorded(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=8)
    done, begun = await claim(connection, profile, worker, 2)
    assert await mark(connection, worker, done, 0b11)
    await write(connection, done, accepted(0, 1))
    assert await mark(connection, worker, begun, 0b01)
    cancelled = await cancel_job(connection, job, actor=ADA, reason="wrong building")
    assert (cancelled.changed, cancelled.counts.sent, cancelled.counts.in_flight, cancelled.counts.unsettled) == (
        True, 2, 1, 5,
    )  # fmt: skip
    assert not await mark(connection, worker, begun, 0b10)
    assert await claim(connection, profile, worker) == []
    await write(connection, begun, accepted(0))
    await release(connection, worker, begun)
    assert await counts_of(connection, job) == {"sent": 3, "cancelled": 5}
    event = await newest_event(connection, job)
    assert (event.event, event.actor_kind, event.actor) == ("cancelled", "login", "ada")
    assert event.details == {"reason": "wrong building", "sent": 2, "in_flight": 1, "not_sent": 5}
    assert (await read_job(connection, str(job))).state_reason == "cancelled by ada: wrong building"
    again = await cancel_job(connection, job, actor=ADA, reason=None)
    assert not again.changed
    assert len(await read_events(connection, job, limit=9)) == 1


async def test_a_paused_job_stays_paused_while_its_parts_come_in_and_then_runs(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, state="receiving")
    await add_parts(connection, job, 1)
    assert (await pause_job(connection, job, actor=ADA, reason=None)).changed
    assert not (await pause_job(connection, job, actor=ADA, reason="again")).changed
    await add_parts(connection, job, 2, last=2)
    await intake.end_receiving(connection, job)
    assert await state_of(connection, job) == "paused"
    assert await claim(connection, profile, worker) == []
    assert (await resume_job(connection, job, actor=ADA)).job.state == "running"
    assert not (await resume_job(connection, job, actor=ADA)).changed
    assert await claim(connection, profile, worker) != []
    assert [one.event for one in await read_events(connection, job, limit=9)] == ["resumed", "paused"]


async def test_a_job_that_lacks_parts_goes_back_to_receiving(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection), state="receiving")
    await add_parts(connection, job, 1, 3, last=3)
    await pause_job(connection, job, actor=ADA, reason=None)
    assert (await resume_job(connection, job, actor=ADA)).job.state == "receiving"


async def test_a_late_part_reopens_a_job_and_lets_a_paused_one_be(connection: Connection) -> None:
    profile = await add_profile(connection)
    closed, paused = await add_job(connection, profile), await add_job(connection, profile, state="receiving")
    await give_up(connection, closed)
    await pause_job(connection, paused, actor=ADA, reason="moving")
    await connection.execute("UPDATE jobs SET expires_at = now() WHERE number = %s", [paused])
    for job in (closed, paused):
        await intake.reopen_job(connection, job, expiry_hours=1)
        event = await newest_event(connection, job)
        assert (event.event, event.actor) == ("reopened", None)
        assert datetime.fromisoformat(event.details["expires_at"]) > datetime.now(UTC)
    assert (await state_of(connection, closed), await state_of(connection, paused)) == ("receiving", "paused")
    assert (await read_job(connection, str(paused))).state_reason == "paused by ada: moving"


async def test_what_has_ended_is_left_alone(connection: Connection) -> None:
    job = await tried(connection, await add_profile(connection))
    for control in (
        cancel_job(connection, job, actor=ADA, reason=None),
        pause_job(connection, job, actor=ADA, reason=None),
        resume_job(connection, job, actor=ADA),
        cancel_job(connection, 42, actor=ADA, reason=None),
    ):
        with pytest.raises(UsageError):
            await control
    assert await state_of(connection, job) == "finished"
    assert await read_events(connection, job, limit=9) == []


# -- Retrying


async def test_who_failed_by_a_try_is_tried_again_and_who_intake_refused_is_not(connection: Connection) -> None:
    profile = await add_profile(connection)
    job = await tried(connection, profile)
    await connection.execute(
        "UPDATE recipient_exceptions SET attempts = 0, phase = NULL, code = NULL WHERE job_number = %s AND ordinal = 5",
        [job],
    )
    retried = await retry_failed(connection, job, actor=ADA)
    assert (retried.failed, retried.expired, retried.job.state) == (2, 0, "running")
    assert await counts_of(connection, job) == {"sent": 3, "pending": 2, "failed": 1}
    assert await batch_states(connection, job) == ["due", "due", "done"]
    event = await newest_event(connection, job)
    assert (event.event, event.actor, event.details) == (
        "retried", "ada", {"failed": 2, "suppressed": 0, "expired": 0},
    )  # fmt: skip
    worker = await add_worker(connection)
    one, other = await claim(connection, profile, worker)
    assert [row.attempts for row in await sending.read_claimed_exceptions(connection, [one])] == [1]
    for batch, outcome in ((one, accepted(1)), (other, refused(1))):
        assert await mark(connection, worker, batch, 0b10)
        await write(connection, batch, outcome, attempts=2)
        assert await release(connection, worker, batch) == ["done"]
    await finish(connection, job)
    assert await counts_of(connection, job) == {"sent": 4, "failed": 2}


async def test_a_retry_of_nobody_changes_nothing(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2)
    await refuse_at_intake(connection, job, 0)
    batch = await claim_one(connection, profile, worker)
    await write(connection, batch, accepted(1))
    await release(connection, worker, batch)
    await finish(connection, job)
    later = datetime.now(UTC) + timedelta(days=9)
    retried = await retry_failed(connection, job, actor=ADA, expires_at=later)
    assert (retried.failed, retried.expired, retried.job.state) == (0, 0, "finished")
    assert retried.job.expires_at < later
    assert await read_events(connection, job, limit=9) == []


async def test_a_batch_that_somebody_works_on_stays_theirs_and_comes_back_with_who_is_retried(
    connection: Connection,
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=3, batch_size=3)
    batch = await claim_one(connection, profile, worker)
    assert await mark(connection, worker, batch, 0b011)
    await write(connection, batch, refused(0))
    assert (await retry_failed(connection, job, actor=ADA)).failed == 1
    assert await batch_states(connection, job) == ["leased"]
    assert await mark(connection, worker, batch, 0b100)
    await write(connection, batch, accepted(1), refused(2))
    assert await counts_of(connection, job) == {"pending": 1, "sent": 1, "failed": 1}
    assert await release(connection, worker, batch) == ["due"]
    again = await claim_one(connection, profile, worker)
    due = {row.ordinal: row.state for row in await sending.read_claimed_exceptions(connection, [again])}
    assert due == {0: "pending", 2: "failed"}


async def test_a_job_whose_time_is_over_is_opened_with_a_new_one_for_all_whom_it_left_out(
    connection: Connection,
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=6)
    await add_parts(connection, job, 1, last=1)
    batch = await claim_one(connection, profile, worker)
    await write(connection, batch, accepted(0), refused(1))
    await release(connection, worker, batch)
    await give_up(connection, job)
    with pytest.raises(UsageError, match="--expires-at"):
        await retry_failed(connection, job, actor=ADA)
    later = datetime.now(UTC) + timedelta(hours=2)
    with pytest.raises(UsageError, match=r"had expired \(4\) comes back"):
        await retry_failed(connection, job, actor=ADA, addresses=["r1@campus.example"], expires_at=later)
    assert await counts_of(connection, job) == {"sent": 1, "failed": 1, "expired": 4}
    retried = await retry_failed(connection, job, actor=ADA, expires_at=later)
    assert (retried.failed, retried.expired, retried.job.state) == (1, 4, "running")
    assert retried.job.expires_at == later
    assert await counts_of(connection, job) == {"sent": 1, "pending": 5}
    assert await batch_states(connection, job) == ["due"] * 3
    assert (await newest_event(connection, job)).details["expired"] == 4


async def test_who_was_deferred_when_the_time_was_over_is_tried_at_once_with_the_new_one(
    connection: Connection,
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    closed, open_still = await add_job(connection, profile), await add_job(connection, profile)
    for batch in await claim(connection, profile, worker):
        await write(connection, batch, deferred(0, seconds=9000), accepted(1))
        await release(connection, worker, batch, 9000.0)
    await give_up(connection, closed)
    # The sweeper has not come by yet.
    await connection.execute("UPDATE jobs SET expires_at = now() WHERE number = %s", [open_still])
    for job in (closed, open_still):
        retried = await retry_failed(connection, job, actor=ADA, expires_at=datetime.now(UTC) + timedelta(hours=2))
        assert retried.expired == 2
    again = await claim(connection, profile, worker)
    assert [batch.job_number for batch in again] == [closed] * 2 + [open_still] * 2
    known = await sending.read_claimed_exceptions(connection, again)
    assert [row.state for row in known] == ["pending"] * 4
    assert max(row.due_in_seconds or 0.0 for row in known) <= 0


async def suppress(connection: Connection, *addresses: str, source: str | None = None) -> None:
    await suppressions.add_suppressions(connection, addresses, source=source, reason="left", actor=ADA)


async def test_who_failed_and_is_suppressed_is_left_out_until_the_suppression_is_gone(connection: Connection) -> None:
    profile = await add_profile(connection)
    job = await tried(connection, profile)
    await suppress(connection, "r1@campus.example")
    await suppress(connection, "r3@campus.example", source="others")
    retried = await retry_failed(connection, job, actor=ADA)
    assert (retried.failed, retried.left_out) == (2, 1)
    assert await states_of(connection, job) == ["sent", "failed", "sent", "pending", "sent", "pending"]
    with pytest.raises(UsageError, match="tocsin suppression remove r1@campus") as refused:
        await retry_failed(connection, job, actor=ADA, addresses=["r1@campus.example"])
    assert "r1@campus.example is suppressed and would not be sent to" in refused.value.problem
    await suppressions.remove_suppressions(connection, ["r1@campus.example"], source=None, actor=ADA)
    retried = await retry_failed(connection, job, actor=ADA, addresses=["r1@campus.example"])
    assert (retried.failed, retried.left_out) == (1, 0)
    assert await counts_of(connection, job) == {"sent": 3, "pending": 3}


async def test_who_was_suppressed_is_sent_to_once_the_suppression_is_gone(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=3, batch_size=3)
    await add_parts(connection, job, 1, last=1)
    batch = await claim_one(connection, profile, worker)
    await write(connection, batch, accepted(0), refused(1, 2))
    await release(connection, worker, batch)
    await finish(connection, job)
    await connection.execute("UPDATE recipient_exceptions SET state = 'suppressed', attempts = 0, phase = NULL")
    await connection.execute("UPDATE batches SET failed = 0, suppressed = 2")
    await suppress(connection, "r1@campus.example", "r2@campus.example")
    nobody = await retry_failed(connection, job, actor=ADA)
    assert (nobody.failed, nobody.suppressed, nobody.left_out, nobody.job.state) == (0, 0, 0, "finished")
    assert await read_events(connection, job, limit=9) == []
    await suppressions.remove_suppressions(connection, ["r1@campus.example"], source=None, actor=ADA)
    retried = await retry_failed(connection, job, actor=ADA)
    assert (retried.failed, retried.suppressed, retried.job.state) == (0, 1, "running")
    assert await counts_of(connection, job) == {"sent": 1, "pending": 1, "suppressed": 1}
    assert (await newest_event(connection, job)).details["suppressed"] == 1
    again = await claim_one(connection, profile, worker)
    await write(connection, again, accepted(1))
    assert await release(connection, worker, again) == ["done"]
    assert await counts_of(connection, job) == {"sent": 2, "suppressed": 1}


async def test_an_urgent_job_is_retried_whoever_is_suppressed(connection: Connection) -> None:
    job = await tried(connection, await add_profile(connection), recipients=2)
    await connection.execute("UPDATE jobs SET rank = 0")
    await suppress(connection, "r1@campus.example")
    retried = await retry_failed(connection, job, actor=ADA, addresses=["r1@campus.example"])
    assert (retried.failed, retried.left_out) == (1, 0)


async def test_a_job_that_never_got_its_part_1_still_waits_for_it(connection: Connection) -> None:
    job = await add_job(connection, await add_profile(connection), recipients=2, state="receiving")
    await add_parts(connection, job, 2, last=2)
    await connection.execute("UPDATE batches SET due_at = 'infinity'")
    await give_up(connection, job)
    later = datetime.now(UTC) + timedelta(hours=2)
    assert (await retry_failed(connection, job, actor=ADA, expires_at=later)).job.state == "receiving"
    row = await (await connection.execute("SELECT state, due_at = 'infinity' FROM batches")).fetchone()
    assert row == ("due", True)


async def test_only_the_called_are_tried_again_and_with_one_wrong_address_nobody_is(connection: Connection) -> None:
    job = await tried(connection, await add_profile(connection))
    with pytest.raises(UsageError) as wrong:
        await retry_failed(connection, job, actor=ADA, addresses=["r1@campus.example", "r0@campus.example", "x@y.z"])
    assert "r0@campus.example is sent, not failed or suppressed; x@y.z is not in this job" in wrong.value.problem
    assert await counts_of(connection, job) == {"sent": 3, "failed": 3}
    retried = await retry_failed(connection, job, actor=ADA, addresses=["r1@CAMPUS.example", "r1@campus.example"])
    assert retried.failed == 1
    assert await states_of(connection, job) == ["sent", "pending", "sent", "failed", "sent", "failed"]


async def test_a_paused_job_stays_paused_and_a_cancelled_one_cancelled(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile)
    await write(connection, await claim_one(connection, profile, worker), refused(0))
    await pause_job(connection, job, actor=ADA, reason=None)
    assert (await retry_failed(connection, job, actor=ADA)).job.state == "paused"
    await cancel_job(connection, job, actor=ADA, reason=None)
    with pytest.raises(UsageError, match="cancelled"):
        await retry_failed(connection, job, actor=ADA)


async def test_a_job_without_its_sending_profile_is_not_opened_again(connection: Connection) -> None:
    profile = await add_profile(connection)
    job = await tried(connection, profile)
    await connection.execute("DELETE FROM sending_profiles WHERE id = %s", [profile.id])
    with pytest.raises(UsageError, match="was removed"):
        await retry_failed(connection, job, actor=ADA)
    assert await counts_of(connection, job) == {"sent": 3, "failed": 3}


async def test_many_are_retried_in_short_transactions_under_one_event_and_an_interrupted_retry_goes_on(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipient_controls, "RECIPIENTS_AT_A_TIME", 4)
    job = await tried(connection, await add_profile(connection), recipients=20)
    real, chunks = recipient_controls.recount_exceptions, list[int]()

    async def stop_at_the_third(connection: Connection, batches: list[tuple[int, int]]) -> None:
        chunks.append(len(batches))
        if len(chunks) == 3:
            raise KeyboardInterrupt
        await real(connection, batches)

    monkeypatch.setattr(recipient_controls, "recount_exceptions", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        await retry_failed(connection, job, actor=ADA)
    assert chunks == [2, 2, 2]
    assert await counts_of(connection, job) == {"sent": 10, "pending": 4, "failed": 6}
    assert (await newest_event(connection, job)).details == {"failed": 4, "suppressed": 0, "expired": 0}
    assert (await retry_failed(connection, job, actor=ADA)).failed == 6
    assert await counts_of(connection, job) == {"sent": 10, "pending": 10}
    assert [one.details["failed"] for one in await read_events(connection, job, limit=9)] == [6, 4]


async def test_a_job_that_is_finished_in_the_very_moment_of_a_retry_is_opened_again(
    connection: Connection, database_url: str
) -> None:
    profile = await add_profile(connection)
    job = await tried(connection, profile)
    await connection.execute("UPDATE jobs SET state = 'running', finished_at = NULL WHERE number = %s", [job])
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as sender,
        await psycopg.AsyncConnection.connect(database_url) as gate,
    ):
        # The retry waits at the gate with the job locked; the sender has seen all batches done, and waits for the job.
        await gate.execute("SELECT FROM batches WHERE job_number = %s FOR UPDATE", [job])
        retrying = asyncio.ensure_future(retry_failed(connection, job, actor=ADA))
        await until_waiting(gate, 1)
        finishing = asyncio.ensure_future(sending.finish_jobs(sender, [job]))
        await until_waiting(gate, 2)
        await gate.commit()
        await asyncio.gather(retrying, finishing)
    assert await state_of(connection, job) == "running"
    assert await batch_states(connection, job) == ["due"] * 3


async def test_a_retry_gives_a_job_more_time_and_never_less(connection: Connection) -> None:
    profile = await add_profile(connection)
    job = await tried(connection, profile)
    sooner = datetime.now(UTC) + timedelta(minutes=1)
    retried = await retry_failed(connection, job, actor=ADA, expires_at=sooner)
    assert retried.failed == 3
    assert retried.job.expires_at > sooner


async def test_who_is_retried_while_the_batch_is_worked_on_need_not_wait_for_the_others(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=3, batch_size=3)
    batch = await claim_one(connection, profile, worker)
    await write(connection, batch, refused(0), accepted(1), deferred(2, seconds=3600))
    await retry_failed(connection, job, actor=ADA)
    await release(connection, worker, batch, 3600.0)
    again = await claim_one(connection, profile, worker)
    assert (again.job_number, again.number) == (job, batch.number)


async def test_a_worked_on_batch_is_due_at_once_when_it_is_given_back_and_the_job_is_read_meanwhile(
    connection: Connection,
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile)
    leased, other = await claim(connection, profile, worker)
    await write(connection, leased, refused(0))
    await write(connection, other, refused(0))
    await release(connection, worker, other, 3600.0)
    await retry_failed(connection, job, actor=ADA)
    rows = await connection.execute("SELECT state, due_at = '-infinity', due_at <= now() FROM batches ORDER BY number")
    assert await rows.fetchall() == [("leased", True, True), ("due", False, True)]
    assert (await read_job(connection, str(job))).is_worked_on


async def test_a_batch_that_is_given_back_in_the_very_moment_of_a_retry_is_due_at_once(
    connection: Connection, database_url: str
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2)
    batch = await claim_one(connection, profile, worker)
    await write(connection, batch, refused(0), deferred(1, seconds=3600))
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as sender,
        await psycopg.AsyncConnection.connect(database_url) as gate,
    ):
        await gate.execute("SELECT FROM batches WHERE job_number = %s FOR UPDATE", [job])
        retrying = asyncio.ensure_future(retry_failed(connection, job, actor=ADA))
        await until_waiting(gate, 1)
        releasing = asyncio.ensure_future(release(sender, worker, batch, 3600.0))
        await until_waiting(gate, 2)
        await gate.commit()
        await asyncio.gather(retrying, releasing)
    assert (await claim_one(connection, profile, worker)).number == batch.number


# -- How much of a large job is read

CHANGES: Final = {
    "retry_recipients": ("failed", {}),
    "make_deferred_due": ("pending", {}),
    "settle_unknown": ("unknown", {"state": "failed"}),
    "settle_as_sent": ("unknown", {}),
}


@pytest.mark.parametrize("query", CHANGES)
async def test_a_change_of_some_batches_of_a_large_job_reads_their_exceptions_only(
    connection: Connection, query: str
) -> None:
    state, parameters = CHANGES[query]
    # Many small batches: what looks much is joined as a whole where nothing holds Postgres back.
    job = await add_job(connection, await add_profile(connection), recipients=40_000, batch_size=2)
    await connection.execute(
        "INSERT INTO recipient_exceptions (job_number, ordinal, batch_number, state, attempts, reason, due_at)"
        " SELECT job_number, ordinal, batch_number, %s, 1, 'x',"
        " CASE WHEN %s = 'pending' THEN now() + interval '1 hour' END FROM recipients",
        [state, state],
    )
    await suppress(connection, *(f"r{n}@campus.example" for n in range(0, 40_000, 20)))
    called = {"job_number": job, "ordinals": None, "reason": "y", "numbers": [*range(300, 800)], **parameters}
    explain = b"EXPLAIN (ANALYZE, FORMAT JSON) " + named_queries("recipient_controls")[query]
    for analysed in (False, True):
        if analysed:
            await connection.execute("ANALYZE")
        async with connection.transaction(force_rollback=True):
            row = await (await connection.execute(explain, called)).fetchone()
        assert row is not None
        read = {"recipient_exceptions": 0, "batches": 0, "recipients": 0, "suppressions": 0}
        for table, rows in scans_of(row[0][0]["Plan"]):
            read[table] = read.get(table, 0) + rows
        assert 1000 <= read["recipient_exceptions"] <= 2000, (query, analysed, read)
        assert max(read["batches"], read["recipients"], read["suppressions"]) <= 1000


def scans_of(plan: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Give how many rows each scan of a plan has looked at, by table (a month's partition counts as its table)."""
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable":
        looked_at = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        yield re.sub(r"_[0-9]{6}$", "", plan["Relation Name"]), round(looked_at * plan["Actual Loops"])
    for part in plan.get("Plans", ()):
        yield from scans_of(part)


async def until_waiting(connection: Connection, sessions: int) -> None:
    """Return once so many sessions of this database wait for a lock."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if await cursor.fetchone() == (sessions,):
                return
            await asyncio.sleep(0.01)


async def test_senders_that_work_meanwhile_and_retries_keep_the_counts_true(
    connection: Connection, database_url: str
) -> None:
    profile = await add_profile(connection)
    job = await add_job(connection, profile, recipients=240, batch_size=4)

    async def send(own: Connection, worker: UUID) -> None:
        while batches := await claim(own, profile, worker, 3):
            for batch in batches:
                await _send_batch(own, worker, batch)

    async def retry(own: Connection) -> None:
        for _ in range(6):
            await retry_failed(own, job, actor=ADA)

    async with AsyncExitStack() as stack:
        connect = psycopg.AsyncConnection.connect
        own = [await stack.enter_async_context(await connect(database_url, autocommit=True)) for _ in range(4)]
        workers = [await add_worker(connection) for _ in range(3)]
        await asyncio.gather(*map(send, own[:3], workers), retry(own[3]))
        for _ in range(3):  # nobody is refused more than twice
            states = await states_of(connection, job)
            assert await counts_of(connection, job) == {state: states.count(state) for state in set(states)}
            await asyncio.gather(*map(send, own[:3], workers))
            await retry_failed(connection, job, actor=ADA)
    assert await counts_of(connection, job) == {"sent": 240}
    assert set(await batch_states(connection, job)) == {"done"}


async def _send_batch(own: Connection, worker: UUID, batch: ClaimedBatch) -> None:
    """Refuse the odd ones the first two times, and accept all others."""
    known = {row.ordinal: row for row in await sending.read_claimed_exceptions(own, [batch])}
    for index in range(batch.size):
        row = known.get(batch.first_ordinal + index)
        if batch.is_sent(index) or (row is not None and row.state != "pending"):
            continue
        assert await mark(own, worker, batch, 1 << index)
        attempts = 0 if row is None else row.attempts
        outcome = refused(index) if index % 2 and attempts < 2 else accepted(index)
        await write(own, batch, outcome, attempts=attempts + 1)
    await release(own, worker, batch)


# -- Settling


async def doubtful(connection: Connection, profile: Profile) -> int:
    """A finished job: one was sent, of two the fate is unknown, one waits no more."""
    worker = await add_worker(connection)
    job = await add_job(connection, profile, on_unknown="hold")
    await add_parts(connection, job, 1, last=1)
    one, other = await claim(connection, profile, worker)
    await write(connection, one, accepted(0), in_doubt(1))
    await write(connection, other, refused(0), in_doubt(1))
    for batch in (one, other):
        await release(connection, worker, batch)
    await finish(connection, job)
    return job


async def test_unknown_ones_are_settled_as_sent_or_failed_and_the_job_stays_finished(connection: Connection) -> None:
    job = await doubtful(connection, await add_profile(connection))
    settled = await settle_unknown(connection, job, Settlement.SENT, actor=ADA, addresses=["r1@campus.example"])
    assert (settled.recipients, settled.job.state) == (1, "finished")
    assert await states_of(connection, job) == ["sent", "sent", "failed", "unknown"]
    assert (await settle_unknown(connection, job, Settlement.FAILED, actor=ADA)).recipients == 1
    assert await counts_of(connection, job) == {"sent": 2, "failed": 2}
    assert await batch_states(connection, job) == ["done", "done"]
    found = [one async for one in read_recipients(connection, job)]
    assert [(one.attempts, one.reason) for one in found[1:]] == [
        (1, "settled as sent, by ada"), (1, "the server said so"), (1, "settled as failed, by ada"),
    ]  # fmt: skip
    events = await read_events(connection, job, limit=9)
    assert [one.details for one in events] == [{"as": "failed", "recipients": 1}, {"as": "sent", "recipients": 1}]
    assert (await settle_unknown(connection, job, Settlement.SENT, actor=ADA)).recipients == 0
    copies = await (await connection.execute("SELECT count(*) FROM email_copies")).fetchone()
    assert copies == (0,)


async def test_unknown_ones_are_sent_again_at_once_and_a_late_acceptance_still_wins(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await doubtful(connection, profile)
    settled = await settle_unknown(connection, job, Settlement.PENDING, actor=ADA)
    assert (settled.recipients, settled.job.state) == (2, "running")
    assert await counts_of(connection, job) == {"sent": 1, "failed": 1, "pending": 2}
    one, other = await claim(connection, profile, worker)
    await write(connection, one, accepted(1))
    await write(connection, other, accepted(1))
    assert [*await release(connection, worker, one), *await release(connection, worker, other)] == ["done", "done"]
    assert await counts_of(connection, job) == {"sent": 3, "failed": 1}


async def test_only_unknown_ones_can_be_settled(connection: Connection) -> None:
    job = await doubtful(connection, await add_profile(connection))
    with pytest.raises(UsageError, match=r"r2@campus\.example is failed, not unknown"):
        await settle_unknown(
            connection, job, Settlement.SENT, actor=ADA, addresses=["r1@campus.example", "r2@campus.example"]
        )
    assert await counts_of(connection, job) == {"sent": 1, "failed": 1, "unknown": 2}


# -- The story of an address


async def test_who_was_in_flight_when_a_worker_died_and_was_sent_to_again_has_both_tries_told(
    connection: Connection,
) -> None:
    profile, dying, worker = await add_profile(connection), await add_worker(connection), await add_worker(connection)
    job = await add_job(connection, profile, recipients=2)
    assert await mark(connection, dying, await claim_one(connection, profile, dying), 0b01)
    await bury(connection, dying)
    again = await claim_one(connection, profile, worker)
    settlement = recording.Settlement(job, again.number, again.lease_epoch, again.size, sent=0b11, settled=0b11)
    async with connection.transaction():
        await recording.write_batches(connection, worker, [settlement], [])
        await connection.execute(
            "INSERT INTO email_copies (job_number, batch_number, lease_epoch, first_index, recipients, profile,"
            " from_address, visible_to, subject, message_id, dated_at, accepted_at, reply_code, reply, size, sha256)"
            " VALUES (%s, %s, %s, 0, '11', 'news', 'n@x.y', 'n@x.y', 'Hello', '<1@x.y>', now(), now(), 250, 'Ok', 1,"
            " sha256(''))",
            [job, again.number, again.lease_epoch],
        )
    ada, ben = [one async for one in read_recipients(connection, job)]
    assert [(one.state, one.phase, one.code) for one in ada.tries] == [
        ("pending", "final", None),
        ("sent", "final", 250),
    ]
    assert ada.tries[0].reason == "the worker stopped while this message was in flight: it may have been sent"
    assert (ada.state, ada.attempts) == ("sent", 2)
    assert ([one.state for one in ben.tries], ben.attempts) == (["sent"], 1)


async def test_the_story_of_an_address_is_told_oldest_first_and_of_very_many_tries_the_newest(
    connection: Connection,
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    job = await add_job(connection, profile)
    batch = await claim_one(connection, profile, worker)
    await write(connection, batch, refused(0), deferred(1, seconds=60))
    await connection.execute("DELETE FROM delivery_attempts")
    for ordinal, tries in ((0, TRIES_SHOWN + 7), (1, 2)):
        await connection.execute(
            "INSERT INTO delivery_attempts (job_number, ordinal, lease_epoch, state, phase, code, reason, at)"
            " SELECT %s, %s, n, 'pending', 'rcpt', 451, 'try ' || n, now() + n * interval '1 second'"
            " FROM generate_series(1, %s) AS n",
            [job, ordinal, tries],
        )
    found = [one async for one in read_recipients(connection, job)]
    assert [one.reason for one in found[0].tries] == [f"try {n}" for n in range(8, TRIES_SHOWN + 8)]
    assert [(one.state, one.phase, one.code, one.reason) for one in found[1].tries] == [
        ("pending", "rcpt", 451, "try 1"), ("pending", "rcpt", 451, "try 2"),
    ]  # fmt: skip
    assert [one.tries for one in found[2:]] == [(), ()]
