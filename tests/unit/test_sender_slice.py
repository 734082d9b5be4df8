"""What a slice gives back, and what it leaves behind when it is stopped or the ledger goes away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from hashlib import sha256
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_sender_settling import NOON, OCTETS, SIZE, due, profile
from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sending import ClaimedBatch, Release
from tocsin_workers.sender import claiming, marking, transmitting
from tocsin_workers.sender.claiming import Claim
from tocsin_workers.sender.lease import WorkerLease, lease_clock
from tocsin_workers.sender.marking import Mark
from tocsin_workers.sender.preparing import PreparedMessage
from tocsin_workers.sender.retrying import RetrySchedule
from tocsin_workers.sender.screening import ScreenedBatch
from tocsin_workers.sender.transmitting import LeaseLostError
from tocsin_workers.smtp.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from uuid import UUID

    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.recording import MessageOutcome
    from tocsin_workers.sender.session_pool import PooledSession

KEY = (7, 3)


def batch(number: int = 3) -> ClaimedBatch:
    return ClaimedBatch(7, number, 100, SIZE, 5, bit_string(0, SIZE))


def claim(untouched: int, *, later: float | None = None) -> Claim:
    """Give a claim of one batch of which so many are due now, and the next of the others in so many seconds."""
    one = Claim([ScreenedBatch(batch(), tuple(due(index) for index in range(untouched)), later)], 0, {KEY: untouched})
    if later is not None:
        one.due_in_seconds[KEY] = later
    return one


def released(one: Claim) -> float:
    (release,) = one.releases()
    assert release == Release(7, 3, 5, release.due_in_seconds)
    return release.due_in_seconds


# When a batch is due again


def test_a_batch_that_was_not_touched_is_due_at_once():
    assert released(claim(4)) == 0.0
    assert released(claim(4, later=60.0)) == 0.0


def test_a_batch_of_which_some_were_not_tried_is_due_at_once_whoever_was_deferred():
    one = claim(3)
    one.settle(KEY, 2, [60.0])
    assert released(one) == 0.0


def test_a_batch_that_was_tried_is_due_when_the_first_deferred_recipient_is():
    one = claim(3)
    one.settle(KEY, 2, [60.0, 25.0])
    one.settle(KEY, 1, [90.0])
    assert released(one) == 25.0


def test_who_was_not_due_yet_counts_as_well():
    one = claim(2, later=12.0)
    one.settle(KEY, 2, [60.0])
    assert released(one) == 12.0
    assert released(claim(0, later=12.0)) == 12.0


def test_a_batch_whose_recipients_are_all_settled_is_given_back_at_once():
    one = claim(2)
    one.settle(KEY, 2, [])
    assert released(one) == 0.0


def test_every_claimed_batch_is_given_back_with_the_epoch_of_its_claim():
    batches = [ClaimedBatch(7, 1, 0, 2, 4, "00"), ClaimedBatch(7, 2, 2, 2, 9, "00"), ClaimedBatch(8, 1, 0, 2, 1, "00")]
    one = Claim(
        [ScreenedBatch(each, (), None) for each in batches], 0, {(each.job_number, each.number): 0 for each in batches}
    )
    one.settle((7, 2), 0, [5.0])
    assert one.releases() == [Release(7, 1, 4, 0.0), Release(7, 2, 9, 5.0), Release(8, 1, 1, 0.0)]


@given(st.lists(st.tuples(st.integers(1, 5), st.lists(st.floats(0, 3600), max_size=5)), max_size=6), st.booleans())
def test_a_batch_is_due_at_once_or_with_its_earliest_recipient(tries: list[tuple[int, list[float]]], all_tried: bool):
    total = sum(count for count, _ in tries)
    one = claim(total if all_tried else total + 1)
    for count, times in tries:
        one.settle(KEY, count, times)
    times = [time for _, group in tries for time in group]
    assert released(one) == (min(times, default=0.0) if all_tried else 0.0)


# Being stopped in the middle of a message


def message() -> PreparedMessage:
    return PreparedMessage(
        batch=batch(),
        on_unknown="hold",
        recipients=(due(0),),
        envelope=Envelope("news@campus.example", ("r0@x.org",)),
        octets=OCTETS,
        digest=sha256(OCTETS).digest(),
        subject="x",
        reply_to=None,
        visible_to="r0@x.org",
        message_id="<id@campus.example>",
        dated_at=NOON,
    )


def granted() -> Mark:
    return Mark(monotonic(), frozenset({KEY}))


class SilentServer:
    """Stands for a session that never answers; it asks for the body or not."""

    def __init__(self, *, wants_body: bool) -> None:
        self.is_open = True
        self.reached = asyncio.Event()
        self._wants_body = wants_body

    async def transact(self, _envelope: Envelope, _wire: bytes, begin_body: Callable[[], None]) -> None:
        if self._wants_body:
            begin_body()
        self.reached.set()
        await asyncio.Event().wait()


class NotedOutcomes:
    """Stands for a recorder that commits nothing."""

    def __init__(self) -> None:
        self.put_in: list[tuple[MessageOutcome, asyncio.Future[None]]] = []

    def put(self, outcome: MessageOutcome) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.put_in.append((outcome, future))
        return future


def desk_of(*, holds: bool = True, pool: object = None) -> tuple[Any, NotedOutcomes]:
    lease = WorkerLease(cast("UUID", None), 1e9)
    if holds:
        lease.renew(lease_clock())
    recorder = NotedOutcomes()
    desk = SimpleNamespace(
        lease=lease,
        recorder=recorder,
        schedule=RetrySchedule(),
        pool=pool,
        in_hand=set(),
        stopping=asyncio.Event(),
    )
    return desk, recorder


async def stopped(one: Claim, *, wants_body: bool) -> NotedOutcomes:
    """Stop a slice while the server is silent; give what it has handed to the recorder."""
    desk, recorder = desk_of()
    server = SilentServer(wants_body=wants_body)
    pooled = cast("PooledSession", SimpleNamespace(session=server))
    sending = asyncio.create_task(
        transmitting._send_message(cast("SenderDesk", desk), profile(), pooled, one, message(), mark=granted())
    )
    await server.reached.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    return recorder


async def test_a_message_whose_body_was_begun_is_recorded_as_in_doubt_when_the_worker_stops():
    recorder = await stopped(claim(1), wants_body=True)
    ((outcome, _),) = recorder.put_in
    assert [row.state for row in outcome.exceptions] == ["unknown"]


async def test_a_message_whose_body_was_not_begun_is_no_outcome_when_the_worker_stops():
    assert (await stopped(claim(1), wants_body=False)).put_in == []


async def test_no_body_is_begun_without_a_lease():
    desk, recorder = desk_of(holds=False)
    pooled = cast("PooledSession", SimpleNamespace(session=SilentServer(wants_body=True)))
    with pytest.raises(LeaseLostError):
        await transmitting._send_message(
            cast("SenderDesk", desk), profile(), pooled, claim(1), message(), mark=granted()
        )
    assert recorder.put_in == []


async def test_no_body_is_begun_under_a_lease_that_was_lost_and_taken_again():
    desk, recorder = desk_of()
    one = claim(1)
    desk.lease.lose()
    desk.lease.renew(lease_clock())
    pooled = cast("PooledSession", SimpleNamespace(session=SilentServer(wants_body=True)))
    with pytest.raises(LeaseLostError):
        await transmitting._send_message(cast("SenderDesk", desk), profile(), pooled, one, message(), mark=granted())
    assert recorder.put_in == []


class BrokenServer:
    """Stands for a session with a defect that shows after the body was begun."""

    is_open = True

    async def transact(self, _envelope: Envelope, _wire: bytes, begin_body: Callable[[], None]) -> None:
        begin_body()
        raise AssertionError("a reply that nobody thought of")


async def test_a_message_begins_only_while_its_mark_is_fresh_and_still_granted(monkeypatch: pytest.MonkeyPatch):
    marked: list[int] = []
    begun: list[PreparedMessage] = []

    async def mark(_desk: object, messages: Sequence[PreparedMessage]) -> Mark:
        # Granted at first and for the first message; then somebody has cancelled the job.
        marked.append(len(messages))
        return Mark(0.0, frozenset({KEY} if len(marked) <= 2 else ()))

    async def send(*arguments: Any, mark: Mark) -> transmitting.Next:
        assert mark.covers(arguments[-1])
        begun.append(arguments[-1])
        return transmitting.Next.GO_ON

    monkeypatch.setattr(marking, "MARK_TRIES", 1)
    monkeypatch.setattr(marking, "mark", mark)
    monkeypatch.setattr(transmitting, "_send_message", send)
    desk, _ = desk_of()
    window = [message(), message(), message()]
    pooled = cast("PooledSession", SimpleNamespace())
    await transmitting.send_window(cast("SenderDesk", desk), profile(), pooled, claim(3), window)
    assert begun == window[:1]
    assert marked == [3, 3, 2, 2]


async def test_a_worker_that_is_told_to_stop_begins_no_further_message_of_its_window(monkeypatch: pytest.MonkeyPatch):
    begun: list[PreparedMessage] = []
    desk, _ = desk_of()

    async def mark(*_arguments: object) -> Mark:
        return granted()

    async def send(*arguments: Any, mark: Mark) -> transmitting.Next:
        assert mark.covers(arguments[-1])
        begun.append(arguments[-1])
        desk.stopping.set()
        return transmitting.Next.GO_ON

    monkeypatch.setattr(marking, "mark", mark)
    monkeypatch.setattr(transmitting, "_send_message", send)
    window = [message(), message()]
    pooled = cast("PooledSession", SimpleNamespace())
    await transmitting.send_window(cast("SenderDesk", desk), profile(), pooled, claim(2), window)
    assert begun == window[:1]


async def test_a_defect_after_the_body_was_begun_leaves_the_message_in_doubt_and_not_unsent():
    desk, recorder = desk_of()
    pooled = cast("PooledSession", SimpleNamespace(session=BrokenServer()))
    with pytest.raises(AssertionError):
        await transmitting._send_message(
            cast("SenderDesk", desk), profile(), pooled, claim(1), message(), mark=granted()
        )
    ((outcome, _),) = recorder.put_in
    assert [row.state for row in outcome.exceptions] == ["unknown"]


async def test_a_batch_with_an_outcome_that_could_not_be_recorded_is_not_given_back():
    one = claim(2)
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    refused.set_exception(psycopg.DataError("refused"))
    one.committed.append((KEY, refused))
    assert one.releases() == []


async def test_a_message_in_doubt_is_committed_before_its_batch_is_given_back():
    one = claim(1)
    recorder = await stopped(one, wants_body=True)
    assert [(KEY, future) for _, future in recorder.put_in] == one.committed


class LedgerAwayOnce:
    """Stands for a pool whose first connection breaks."""

    def __init__(self) -> None:
        self.asked = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[object]:
        self.asked += 1
        if self.asked == 1:
            raise psycopg.OperationalError("the connection is lost")
        yield SimpleNamespace(execute=self._execute)

    async def _execute(self, *_: object) -> object:
        async def nothing() -> list[object]:
            return []

        return SimpleNamespace(fetchall=nothing)


async def test_leases_are_given_back_although_the_ledger_was_away_for_a_moment():
    pool = LedgerAwayOnce()
    desk, _ = desk_of(pool=pool)
    await claiming.release(cast("SenderDesk", desk), claim(1))
    assert pool.asked > 1
