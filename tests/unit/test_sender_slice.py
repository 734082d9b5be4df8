"""What a slice gives back of what it claimed, and when."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_sender_profile
from tests.unit.test_sender_settling import SIZE, due
from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sending import ClaimedBatch, Release
from tocsin_workers.sender import claiming, slice  # noqa: A004  # the module's name
from tocsin_workers.sender.claiming import Claim
from tocsin_workers.sender.recording import Recorder
from tocsin_workers.sender.screening import ScreenedBatch
from tocsin_workers.sender.tally import SliceTally
from tocsin_workers.sender.transmitting import Next

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tocsin_schema.ledger.connection import Pool
    from tocsin_workers.sender.desk import SenderDesk

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


async def test_a_batch_with_an_outcome_that_could_not_be_recorded_is_not_given_back():
    one = claim(2)
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    refused.set_exception(psycopg.DataError("refused"))
    one.committed.append((KEY, refused))
    assert one.releases() == []


# Giving back


class PlayedLedger:
    """Stands for a pool that takes releases; `away` connections break first."""

    def __init__(self, *, away: int = 0) -> None:
        self.away = away
        self.released = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[object]:
        if self.away:
            self.away -= 1
            raise psycopg.OperationalError("the connection is lost")
        yield SimpleNamespace(execute=self._execute)
        self.released += 1

    async def _execute(self, *_: object) -> object:
        async def nothing() -> list[object]:
            return []

        return SimpleNamespace(fetchall=nothing)


async def release(ledger: PlayedLedger, one: Claim) -> None:
    recorder = Recorder(cast("Pool", ledger), uuid4())
    desk = SimpleNamespace(lease=SimpleNamespace(worker_id=None), pool=ledger, recorder=recorder, in_hand=set())
    await claiming.release(cast("SenderDesk", desk), one)


async def test_a_batch_is_given_back_once_the_last_word_on_it_is_committed():
    ledger, one = PlayedLedger(), claim(1)
    committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    one.committed.append((KEY, committed))
    releasing = asyncio.create_task(release(ledger, one))
    for _ in range(10):
        await asyncio.sleep(0)
    assert ledger.released == 0
    committed.set_result(None)
    await releasing
    assert ledger.released == 1


async def test_leases_are_given_back_although_the_ledger_was_away_for_a_moment():
    ledger = PlayedLedger(away=1)
    await release(ledger, claim(1))
    assert (ledger.away, ledger.released) == (0, 1)


# The end of a slice


class PlayedSessions:
    """Stands for a pool of sessions, and notes in `happened` what is given back; `fails` where that cannot be done."""

    def __init__(self, happened: list[str], *, fails: bool) -> None:
        self._happened = happened
        self._fails = fails

    async def take(self, *_: object, **__: object) -> object:
        return SimpleNamespace(
            session=SimpleNamespace(is_open=True, capabilities=SimpleNamespace(recipients_limit=None))
        )

    def has_left(self, _profile: object) -> bool:
        return False

    async def give_back(self, _pooled: object) -> None:
        self._happened.append("connection given back")
        if self._fails:
            raise psycopg.OperationalError("the ledger is away")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_slice_gives_back_what_it_has_before_it_tells_and_tells_also_where_that_fails(
    fails: bool, monkeypatch: pytest.MonkeyPatch
):
    happened: list[str] = []
    claimed = claim(1)

    async def profile_with_due_work(*_: object) -> object:
        return a_sender_profile()

    async def claim_one(_desk: object, _profile: object, _limit: int, tally: SliceTally) -> Claim:
        tally.count(7, "sent", 1)
        return claimed

    async def send_claim(*_: object) -> Next:
        return Next.MAILBOX_FULL

    async def give_back(_desk: object, one: Claim) -> None:
        assert one is claimed
        happened.append("batches given back")

    monkeypatch.setattr(slice, "_profile_with_due_work", profile_with_due_work)
    monkeypatch.setattr(slice, "claim", claim_one)
    monkeypatch.setattr(slice, "_send_claim", send_claim)
    monkeypatch.setattr(slice, "release", give_back)
    desk = SimpleNamespace(
        stopping=asyncio.Event(),
        lease=SimpleNamespace(holds=lambda _now: True),
        sessions=PlayedSessions(happened, fails=fails),
        spans=SimpleNamespace(slice_worked=lambda *_: happened.append("told")),
        claim_sizes={},
    )
    with pytest.raises(psycopg.OperationalError) if fails else nullcontext():
        await slice._work_once(cast("SenderDesk", desk), uuid4(), 1)
    assert happened == ["batches given back", "connection given back", "told"]


# Claiming


async def test_a_claim_that_the_ledger_has_forgotten_and_made_again_stays_with_the_slice_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
):
    async def claim_batches(*_: object, **__: object) -> list[ClaimedBatch]:
        return [batch(3), batch(4)]

    async def nothing(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(claiming.sending, "claim_batches", claim_batches)
    for read in ("read_claimed_recipients", "read_claimed_exceptions"):
        monkeypatch.setattr(claiming.sending, read, nothing)
    monkeypatch.setattr(claiming.suppressions, "read_claimed_suppressions", nothing)
    lease = SimpleNamespace(worker_id=None, generation=0)
    desk = SimpleNamespace(lease=lease, pool=PlayedLedger(), in_hand={(7, 3, 5)})
    claimed = await claiming.claim(cast("SenderDesk", desk), a_sender_profile(), 2, SliceTally())
    assert claimed is not None
    assert [one.batch.number for one in claimed.screened] == [4]
    assert desk.in_hand == {(7, 3, 5), (7, 4, 5)}
    assert await claiming.claim(cast("SenderDesk", desk), a_sender_profile(), 2, SliceTally()) is None
