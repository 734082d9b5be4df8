"""The recorder on a real ledger: grouped commits, marks, broken connections, late acceptances, a process's end."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, LiteralString, cast
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from tests.servers.ledger_rows import add_profile
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger import sending, worker_leases
from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.connection import open_pool
from tocsin_schema.ledger.recording import CopyRow, RecordedException, Settlement, WantedMark
from tocsin_schema.ledger.sending import Release
from tocsin_workers.sender import recording
from tocsin_workers.sender.recording import MessageOutcome, Recorder
from tocsin_workers.sweeping import sweep

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tocsin_schema.ledger.connection import Connection, Pool
    from tocsin_workers.waking import Waker

NOON = datetime(2026, 11, 3, 12, 0, 0, tzinfo=UTC)
SIZE = 10
BATCHES = 30
EPOCH = 1


@dataclass
class Ledger:
    """A fresh ledger with one running job of a few batches, a pool, and a connection of the test's own."""

    url: str
    pool: Pool
    own: Connection
    job: int
    worker: UUID

    async def ask(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        return await (await self.own.execute(query, parameters)).fetchall()

    async def sent(self) -> dict[int, str]:
        rows = await self.ask(
            "SELECT number, sent::text FROM batches WHERE job_number = %s AND bit_count(sent) > 0", self.job
        )
        return dict(cast("list[tuple[int, str]]", rows))

    async def copies(self) -> Counter[tuple[int, int]]:
        """Count the copies by batch and first recipient."""
        return Counter(
            cast("list[tuple[int, int]]", await self.ask("SELECT batch_number, first_index FROM email_copies"))
        )

    async def counts(self) -> dict[str, int]:
        ((sent, failed, unknown, unsettled),) = await self.ask(
            "SELECT sent, failed, unknown, unsettled FROM job_counts WHERE job_number = %s", self.job
        )
        return {"sent": sent, "failed": failed, "unknown": unknown, "unsettled": unsettled}

    async def terminate_pool(self) -> None:
        """End every server process but our own."""
        await self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    async def blocked(self) -> int:
        """Wait until somebody waits for a lock; give the process id."""
        while not (  # noqa: ASYNC110 - it is the server that we wait for
            found := await self.ask(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        ):
            await asyncio.sleep(0.01)
        return int(found[0][0])

    async def begin_to_hold(self, number: int, holder: Connection) -> None:
        """Lock a batch, so that whoever writes to it has to wait."""
        await holder.execute("SELECT FROM batches WHERE job_number = %s AND number = %s FOR UPDATE", (self.job, number))

    async def prepare_marks(self) -> None:
        """Give the job a profile, so that it may be sent for, and take away all marks."""
        profile = await add_profile(self.own)
        await self.own.execute("UPDATE jobs SET profile_id = %s", (profile.id,))
        await self.own.execute("UPDATE batches SET in_flight = sent")

    async def in_flight(self, number: int) -> str:
        ((bits,),) = await self.ask("SELECT in_flight::text FROM batches WHERE number = %s", number)
        return str(bits)


@pytest.fixture
async def ledger(database_url: str) -> AsyncGenerator[Ledger]:
    pool = open_pool(database_url, size=6)
    await pool.open()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as own:
        worker = uuid4()
        ((job,),) = await (
            await own.execute(
                "INSERT INTO jobs (number, id, profile_id, mode, rank, on_unknown, state, expires_at)"
                " VALUES (next_job_number(), %(id)s, %(id)s, 'individual', 1, 'hold', 'running', now() + '1 d')"
                " RETURNING number",
                {"id": uuid4()},
            )
        ).fetchall()
        await worker_leases.register_worker(own, worker, host="test", pid=1, role="sender", lease_seconds=30.0)
        await own.execute(
            "INSERT INTO batches (job_number, number, first_ordinal, size, state, due_at, leased_by, lease_epoch, sent,"
            " in_flight) SELECT %(job)s, n, n * %(size)s, %(size)s, 'leased', now(), %(worker)s, %(epoch)s,"
            " repeat('0', %(size)s)::varbit, repeat('1', %(size)s)::varbit FROM generate_series(0, %(batches)s - 1) n",
            {"job": job, "size": SIZE, "worker": worker, "epoch": EPOCH, "batches": BATCHES},
        )
        try:
            yield Ledger(database_url, pool, own, job, worker)
        finally:
            await pool.close()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.01)


@asynccontextmanager
async def running(pool: Pool, worker: UUID) -> AsyncIterator[tuple[Recorder, asyncio.Task[None]]]:
    recorder = Recorder(pool, worker)
    task = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield recorder, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def accepted(job: int, batch: int, index: int) -> MessageOutcome:
    """Give the outcome of a message that the provider took for one recipient."""
    octets = f"message {batch} {index}".encode()
    copy = CopyRow(
        job_number=job,
        batch_number=batch,
        lease_epoch=EPOCH,
        first_index=index,
        recipients=bit_string(1 << index, SIZE),
        profile="campus",
        from_address="news@campus.example",
        reply_to=None,
        visible_to=f"r{index}@x.org",
        subject="Übung",
        message_id=f"<{batch}.{index}@campus.example>",
        provider_id=None,
        dated_at=NOON,
        accepted_at=NOON,
        reply_code=250,
        enhanced_code="2.0.0",
        reply="Ok",
        size=len(octets),
        sha256=sha256(octets).digest(),
        content=None,
    )
    return MessageOutcome(Settlement(job, batch, EPOCH, SIZE, sent=1 << index, settled=1 << index), copy)


def excepted(job: int, batch: int, index: int, state: str = "pending", *, attempts: int = 1) -> MessageOutcome:
    row = RecordedException(
        job_number=job,
        ordinal=batch * SIZE + index,
        batch_number=batch,
        lease_epoch=EPOCH,
        state=state,
        attempts=attempts,
        due_in_seconds=60.0 if state == "pending" else None,
        phase="rcpt",
        code=450 if state == "pending" else 550,
        enhanced_code=None,
        reply="no",
        reason="because",
    )
    return MessageOutcome(Settlement(job, batch, EPOCH, SIZE, sent=0, settled=1 << index), exceptions=(row,))


ALL = [(batch, index) for batch in range(BATCHES) for index in range(SIZE)]


async def assert_all_sent(ledger: Ledger) -> None:
    assert await ledger.sent() == dict.fromkeys(range(BATCHES), "1" * SIZE)
    assert await ledger.copies() == Counter(ALL)
    (in_flight,) = (await ledger.ask("SELECT sum(bit_count(in_flight)) FROM batches"))[0]
    assert in_flight == 0


async def test_outcomes_are_committed_in_groups(ledger: Ledger):
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        told = [recorder.put(accepted(ledger.job, *place)) for place in ALL]
        await asyncio.gather(*told)
    await assert_all_sent(ledger)
    ((transactions,),) = await ledger.ask("SELECT count(DISTINCT xmin::text) FROM email_copies")
    assert transactions < len(ALL) / 10


async def test_an_outcome_that_is_told_is_committed(ledger: Ledger):
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        for index in range(3):
            await recorder.put(accepted(ledger.job, 0, index))
            assert (await ledger.sent())[0] == ("1" * (index + 1)).ljust(SIZE, "0")


async def test_exceptions_are_written_and_counted_with_the_rest_of_their_group(ledger: Ledger):
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        await asyncio.gather(
            recorder.put(accepted(ledger.job, 0, 0)),
            recorder.put(excepted(ledger.job, 0, 1, "failed")),
            recorder.put(excepted(ledger.job, 0, 2)),
            recorder.put(excepted(ledger.job, 0, 3, "unknown")),
        )
    assert await ledger.ask("SELECT ordinal, state, attempts FROM recipient_exceptions ORDER BY 1") == [
        (1, "failed", 1),
        (2, "pending", 1),
        (3, "unknown", 1),
    ]
    assert await ledger.ask("SELECT sent::text, failed, unknown FROM batches WHERE number = 0") == [
        ("1000000000", 1, 1)
    ]


async def test_tries_never_become_fewer(ledger: Ledger):
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        for attempts in (1, 2, 1):
            await recorder.put(excepted(ledger.job, 0, 4, attempts=attempts))
    assert await ledger.ask("SELECT attempts FROM recipient_exceptions") == [(2,)]


async def test_a_connection_that_is_ended_in_the_middle_of_a_commit_loses_and_doubles_nothing(ledger: Ledger):
    async with (
        running(ledger.pool, ledger.worker) as (recorder, _),
        await psycopg.AsyncConnection.connect(ledger.url) as holder,
    ):
        await ledger.begin_to_hold(BATCHES - 1, holder)
        told = [recorder.put(accepted(ledger.job, *place)) for place in ALL]
        ended: set[int] = set()
        while len(ended) < 3:
            ended.add(await ledger.blocked())
            await ledger.ask("SELECT pg_terminate_backend(pid) FROM unnest(%s::integer[]) pid", list(ended))
        assert not any(future.done() for future in told)
        await holder.rollback()
        await asyncio.gather(*told)
    await assert_all_sent(ledger)


async def test_connections_that_keep_ending_lose_and_double_nothing(ledger: Ledger):
    told: list[asyncio.Future[None]] = []
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        for number, place in enumerate(ALL):
            told.append(recorder.put(accepted(ledger.job, *place)))
            if number % 50 == 49:
                # Let the writer come anywhere in its work, also between COMMIT and its reply.
                await told[number - 10]
                await ledger.terminate_pool()
        await asyncio.gather(*told)
    await assert_all_sent(ledger)


class LosesReplies:
    """A pool of which the first commits succeed, but their replies do not arrive."""

    def __init__(self, pool: Pool, losses: int) -> None:
        self._pool = pool
        self._losses = losses

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with self._pool.connection() as connection:
            yield connection
        if self._losses:
            self._losses -= 1
            raise psycopg.OperationalError("the connection is lost")


async def test_a_commit_whose_reply_was_lost_is_not_doubled(ledger: Ledger):
    async with running(cast("Pool", LosesReplies(ledger.pool, 2)), ledger.worker) as (recorder, _):
        await recorder.put(accepted(ledger.job, 0, 0))
        await asyncio.gather(
            recorder.put(accepted(ledger.job, 0, 1)), recorder.put(excepted(ledger.job, 0, 2, "failed"))
        )
    assert await ledger.copies() == Counter([(0, 0), (0, 1)])
    assert await ledger.sent() == {0: "1100000000"}
    assert await ledger.ask("SELECT state, attempts FROM recipient_exceptions") == [("failed", 1)]


async def test_two_processes_write_to_the_same_batches_and_lose_nothing(ledger: Ledger):
    other = open_pool(ledger.url, size=2)
    await other.open()
    async with running(ledger.pool, ledger.worker) as (one, _), running(other, uuid4()) as (two, _):
        told = [
            (one if (batch + index) % 2 else two).put(accepted(ledger.job, batch, index))
            for batch, index in sorted(ALL, key=lambda place: place[1])
        ]
        await asyncio.gather(*told)
    await other.close()
    await assert_all_sent(ledger)


async def test_drain_writes_what_a_cancelled_writer_left(ledger: Ledger):
    async with (
        running(ledger.pool, ledger.worker) as (recorder, task),
        await psycopg.AsyncConnection.connect(ledger.url) as holder,
    ):
        await ledger.begin_to_hold(0, holder)
        begun = recorder.put(accepted(ledger.job, 0, 0))
        await ledger.blocked()
        left = [recorder.put(accepted(ledger.job, *place)) for place in ALL[1:]]
        task.cancel()
        await holder.rollback()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert begun.done()
        assert not any(future.done() for future in left)
        await recorder.drain()
        assert all(future.done() for future in left)
    await assert_all_sent(ledger)


async def test_a_late_acceptance_is_recorded_whoever_has_the_batch_by_now(ledger: Ledger):
    await ledger.own.execute("UPDATE batches SET leased_by = %s, lease_epoch = 2 WHERE number = 0", (uuid4(),))
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        await recorder.put(accepted(ledger.job, 0, 0))
    assert await ledger.sent() == {0: "1000000000"}
    assert await ledger.copies() == Counter([(0, 0)])


# Marks


def wanted(job: int, batch: int, *indexes: int, epoch: int = EPOCH) -> WantedMark:
    return WantedMark(job, batch, epoch, SIZE, sum(1 << index for index in indexes))


async def test_outcomes_and_marks_of_all_slices_are_one_transaction(ledger: Ledger):
    await ledger.prepare_marks()
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        async with await psycopg.AsyncConnection.connect(ledger.url) as holder:
            await ledger.begin_to_hold(5, holder)
            first = recorder.put(accepted(ledger.job, 5, 0))
            await ledger.blocked()
            told = [recorder.put(accepted(ledger.job, 0, index)) for index in range(3)]
            marking = asyncio.gather(
                recorder.mark([wanted(ledger.job, 1, 0, 1)]),
                recorder.mark([wanted(ledger.job, 1, 2), wanted(ledger.job, 2, 9)]),
            )
            await asyncio.sleep(0)
            await holder.rollback()
        one, other = await marking
        assert all(future.done() for future in (first, *told))
    assert (one.ours, other.ours) == ({(ledger.job, 1)}, {(ledger.job, 1), (ledger.job, 2)})
    assert [await ledger.in_flight(number) for number in (1, 2)] == ["1110000000", "0000000001"]
    assert await ledger.ask("SELECT count(DISTINCT xmin::text) FROM batches WHERE number < 3") == [(1,)]


async def test_who_is_marked_again_and_has_ended_since_is_not_in_flight(ledger: Ledger):
    await ledger.prepare_marks()
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        marking = asyncio.create_task(recorder.mark([wanted(ledger.job, 0, 0, 1, 2)]))
        await asyncio.sleep(0)
        told = [recorder.put(accepted(ledger.job, 0, 0)), recorder.put(excepted(ledger.job, 0, 1, "failed"))]
        assert (await marking).ours == {(ledger.job, 0)}
        await asyncio.gather(*told)
    assert await ledger.in_flight(0) == "0010000000"
    counts = await ledger.counts()
    assert (counts["sent"], counts["failed"]) == (1, 1)


async def test_the_mark_of_an_older_claim_is_not_given_though_a_newer_one_of_the_same_worker_is(ledger: Ledger):
    await ledger.prepare_marks()
    await ledger.own.execute("UPDATE batches SET lease_epoch = 2 WHERE number = 0")
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        newer, older, settled = await asyncio.gather(
            recorder.mark([wanted(ledger.job, 0, 0, 1, epoch=2)]),
            recorder.mark([wanted(ledger.job, 0, 7), wanted(ledger.job, 1, 7)]),
            # What the older claim has to say takes no mark of the newer one away.
            recorder.put(accepted(ledger.job, 0, 1)),
        )
    assert (newer.ours, older.ours, settled) == ({(ledger.job, 0)}, {(ledger.job, 1)}, None)
    assert await ledger.in_flight(0) == "1100000000"
    assert (await ledger.sent())[0] == "0100000000"


async def test_a_mark_fails_where_the_ledger_is_away_and_an_outcome_waits_for_it(ledger: Ledger):
    await ledger.prepare_marks()
    async with (
        running(ledger.pool, ledger.worker) as (recorder, _),
        await psycopg.AsyncConnection.connect(ledger.url) as holder,
    ):
        await ledger.begin_to_hold(0, holder)
        told = recorder.put(accepted(ledger.job, 0, 0))
        blocked = await ledger.blocked()
        marking = asyncio.create_task(recorder.mark([wanted(ledger.job, 1, 0)]))
        await asyncio.sleep(0)
        await ledger.ask("SELECT pg_terminate_backend(%s)", blocked)
        with pytest.raises(psycopg.OperationalError):
            await marking
        assert not told.done()
        await holder.rollback()
        await told
    assert await ledger.in_flight(1) == "0" * SIZE


async def test_an_outcome_that_the_ledger_refuses_takes_no_marks_and_no_other_outcomes_with_it(ledger: Ledger):
    await ledger.prepare_marks()
    bad, good = accepted(ledger.job, 0, 0), accepted(ledger.job, 0, 1)
    assert bad.copy is not None
    bad = msgspec.structs.replace(bad, copy=bad.copy._replace(reply="a NUL \0 in it"))
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        _, _, mark = await asyncio.gather(
            recorder.put(bad), recorder.put(good), recorder.mark([wanted(ledger.job, 0, 2)])
        )
    assert mark.ours == {(ledger.job, 0)}
    assert await ledger.in_flight(0) == "0010000000"
    assert (await ledger.sent())[0] == "1100000000"
    assert await ledger.copies() == Counter([(0, 1)])


# Faults


async def test_a_try_is_counted_once_although_the_reply_of_its_commit_was_lost(ledger: Ledger):
    async with running(cast("Pool", LosesReplies(ledger.pool, 1)), ledger.worker) as (recorder, _):
        await recorder.put(excepted(ledger.job, 0, 0))
    assert await ledger.ask("SELECT attempts FROM recipient_exceptions") == [(1,)]


async def test_a_late_acceptance_of_an_unknown_recipient_counts_once(ledger: Ledger):
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        await recorder.put(excepted(ledger.job, 0, 0, "unknown"))
        await recorder.put(accepted(ledger.job, 0, 0))
    counts = await ledger.counts()
    assert (counts["sent"], counts["unknown"]) == (1, 0)


async def test_a_late_acceptance_does_not_hide_a_recipient_who_still_waits(ledger: Ledger):
    async with running(ledger.pool, ledger.worker) as (recorder, _):
        await recorder.put(excepted(ledger.job, 0, 0, "unknown"))
        await asyncio.gather(*(recorder.put(accepted(ledger.job, 0, index)) for index in range(SIZE - 1)))
    async with ledger.pool.connection() as connection:
        states = await sending.release_batches(connection, ledger.worker, [Release(ledger.job, 0, EPOCH, 0.0)])
    assert states == [(ledger.job, "due")]


class NobodyToWake:
    """Stands for a waker: no profile of this ledger is there to be woken."""

    async def wake_sender(self, _profile_id: UUID, _rank: int) -> None:
        pytest.fail("nobody is to be woken")


async def test_a_batch_that_a_retired_worker_still_had_is_taken_back(ledger: Ledger):
    async with ledger.pool.connection() as connection:
        await worker_leases.retire_worker(connection, ledger.worker)
    await sweep(ledger.pool, cast("Waker", NobodyToWake()), may_bury=lambda: True)
    assert await ledger.ask("SELECT DISTINCT state FROM batches") == [("due",)]
