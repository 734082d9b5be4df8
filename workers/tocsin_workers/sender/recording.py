"""The one writer of a process: groups the outcomes and the marks of all its slices and commits them together.

While one group is being committed the next one gathers, so groups are large under load and single when idle. With
Postgres away the writer keeps the outcomes and tries again; who asked for a mark is told. What the ledger refuses is
written as barely as need be.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import structlog
from msgspec import Struct
from psycopg.errors import UniqueViolation

from tocsin_schema.ledger import recording, suppressions
from tocsin_schema.ledger.connection import AWAY
from tocsin_workers.sender.marks import Mark, merge_marks

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Sequence
    from uuid import UUID

    from tocsin_schema.ledger.connection import Pool

#: More than all windows of a process: a mark goes in one group with all outcomes before it.
LARGEST_GROUP = 5000
RETRY_SECONDS = 0.5
#: How long the next group gathers for each outcome of the last one, and at most: a commit costs much the same for one
#: outcome and for many. After a small group nobody waits.
GATHERING_SECONDS = 0.001
LONGEST_GATHERING_SECONDS = 0.02
SMALL_GROUP = 5
#: Who has been sending for longer than this has a slow server: nobody waits for it.
QUICK_SECONDS = 0.05
#: How long a group may gather that nobody waits for, since all who will be told of it are busy sending. What is sent
#: meanwhile is in doubt for so much longer should the process be killed; how many can be is bounded by their marks.
UNAWAITED_SECONDS = 0.05

_log = structlog.get_logger(__name__)


class MessageOutcome(Struct, frozen=True):
    """What one transmitted message taught: a settlement of its batch, a copy if accepted, exceptions if there are."""

    settlement: recording.Settlement
    copy: recording.CopyRow | None = None
    exceptions: tuple[recording.RecordedException, ...] = ()


Outcomes: TypeAlias = list[tuple[MessageOutcome, asyncio.Future[None]]]


@dataclass(frozen=True, slots=True)
class MarkRequest:
    """What a slice asks leave for, and what it is told."""

    wanted: Sequence[recording.WantedMark]
    given: asyncio.Future[Mark]


def gathering_seconds(last_group: int) -> float:
    """Give how long to gather after a group of so many outcomes."""
    return 0.0 if last_group < SMALL_GROUP else min(LONGEST_GATHERING_SECONDS, last_group * GATHERING_SECONDS)


def is_sent_quickly(now: float, sending_since: Iterable[float]) -> bool:
    """Whether one of those who have been sending since then is likely to be through soon. Times by `monotonic`."""
    return any(now - begun_at < QUICK_SECONDS for begun_at in sending_since)


def still_to_gather(now: float, *, sending_since: Collection[float], last_group: int, is_awaited: bool) -> float:
    """Give for how many seconds, from now on, a group may still grow.

    `sending_since` are those whose outcomes may come into it. While it is not awaited it may grow until it is; from
    then on, or where nobody came to wait, only until all have sent who will soon, if the last group was large.
    """
    if not sending_since:
        return 0.0
    if not is_awaited:
        return UNAWAITED_SECONDS
    seconds = gathering_seconds(last_group)
    return seconds if seconds > 0.0 and is_sent_quickly(now, sending_since) else 0.0


def merge_settlements(outcomes: Iterable[MessageOutcome]) -> list[recording.Settlement]:
    """Make one settlement a batch out of those of its messages, in the order of the keys.

    Sorted, so that two processes that write to the same batches lock them in the same order.
    """
    merged: dict[tuple[int, int], recording.Settlement] = {}
    for outcome in outcomes:
        new = outcome.settlement
        key = (new.job_number, new.batch_number)
        merged[key] = new if key not in merged else _merged(merged[key], new)
    return [merged[key] for key in sorted(merged)]


def _merged(one: recording.Settlement, other: recording.Settlement) -> recording.Settlement:
    """Add up what was sent; of marks, only those of the newer claim are still ours to clear."""
    older, newer = sorted((one, other), key=lambda settlement: settlement.lease_epoch)
    settled = newer.settled | (older.settled if older.lease_epoch == newer.lease_epoch else 0)
    return msgspec.structs.replace(newer, sent=older.sent | newer.sent, settled=settled)


def merge_exceptions(outcomes: Iterable[MessageOutcome]) -> list[recording.RecordedException]:
    """Give the exceptions, the last word on each recipient only: one statement may touch a row once."""
    last = {(row.job_number, row.ordinal): row for outcome in outcomes for row in outcome.exceptions}
    return [last[key] for key in sorted(last)]


def _bare(row: recording.RecordedException) -> recording.RecordedException:
    """Keep what counts of an exception, and nothing that came from outside."""
    return replace(
        row,
        phase=None,
        code=None,
        enhanced_code=None,
        reply=None,
        reason="could not be recorded in full",
        dead_address=False,
    )


class Recorder:
    """Commits outcomes and marks in groups. `run` is the writer."""

    def __init__(self, pool: Pool, worker_id: UUID) -> None:
        self._pool = pool
        self._worker_id = worker_id
        self._outcomes: Outcomes = []
        self._requests: list[MarkRequest] = []
        self._something = asyncio.Event()
        self._sending_since: dict[object, float] = {}
        """When each slice that is sending began, by `monotonic`."""
        self._all_have_sent = asyncio.Event()
        self._waiting = 0
        """Slices that wait for the next group and do nothing else meanwhile."""
        self._somebody_waits = asyncio.Event()
        self._last_group = 0
        """Outcomes of the last group."""

    def put(self, outcome: MessageOutcome) -> asyncio.Future[None]:
        """Hand over an outcome; the future is done once it is committed."""
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcomes.append((outcome, committed))
        self._something.set()
        return committed

    async def mark(self, wanted: Sequence[recording.WantedMark], *, ahead: bool = False) -> Mark:
        """Mark recipients in flight, one mark a batch: from the commit on, a body may be written.

        All outcomes that were handed over before are committed then too. A mark that is asked for `ahead` is not
        needed yet, and may wait a moment so that it goes with others.

        Raises the errors of a Postgres that is away.
        """
        given: asyncio.Future[Mark] = asyncio.get_running_loop().create_future()
        self._requests.append(MarkRequest(wanted, given))
        self._something.set()
        if ahead:
            return await given
        with self.awaited():
            return await given

    async def run(self) -> None:
        """Write until cancelled. What is still waiting then is written by `drain`."""
        while True:
            await self._something.wait()
            await self._gather()
            await self._write_next_group()

    @contextmanager
    def sending(self) -> Generator[None]:
        """Say that a slice is sending: of its messages there will be outcomes soon, which may go in the next group."""
        sender = object()
        self._sending_since[sender] = monotonic()
        self._all_have_sent.clear()
        try:
            yield
        finally:
            del self._sending_since[sender]
            if not is_sent_quickly(monotonic(), self._sending_since.values()):
                self._all_have_sent.set()

    @contextmanager
    def awaited(self) -> Generator[None]:
        """Say that somebody waits for what was handed over, and does nothing else meanwhile."""
        self._waiting += 1
        self._somebody_waits.set()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._somebody_waits.clear()

    async def drain(self) -> None:
        """Write all outcomes that wait: the last thing that a process does. Nobody waits for a mark any more."""
        self._requests.clear()
        while self._outcomes:
            await self._write_next_group()

    async def _gather(self) -> None:
        """Let the next group grow: while nobody waits for it, then for a moment until all have sent who will soon."""
        await _wait_for(self._somebody_waits, self._still_to_gather(is_awaited=False))
        await _wait_for(self._all_have_sent, self._still_to_gather(is_awaited=True))

    def _still_to_gather(self, *, is_awaited: bool) -> float:
        return still_to_gather(
            monotonic(),
            sending_since=self._sending_since.values(),
            last_group=self._last_group,
            is_awaited=is_awaited,
        )

    async def _write_next_group(self) -> None:
        group, self._outcomes = self._outcomes[:LARGEST_GROUP], self._outcomes[LARGEST_GROUP:]
        requests: list[MarkRequest] = []
        if not self._outcomes:
            # No mark before the outcomes that were handed over before it: together they are what is in doubt.
            requests, self._requests = [one for one in self._requests if not one.given.done()], []
            self._something.clear()
        self._last_group = len(group)
        writing = asyncio.ensure_future(self._commit_until_done(group, requests))
        interrupted = False
        while not writing.done():
            try:
                # However often we are cancelled: a commit that has begun is waited for.
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                interrupted = True
        if interrupted:
            raise asyncio.CancelledError

    async def _commit_until_done(self, group: Outcomes, requests: Sequence[MarkRequest] = ()) -> None:
        was_away = False
        while group or requests:
            try:
                await self._write([outcome for outcome, _ in group], requests)
            except AWAY as error:
                was_away = True
                # A slice does not wait for the ledger with a connection in hand: it ends, and others are woken.
                _refuse([*requests, *self._requests], error)
                requests, self._requests = (), []
                if group:
                    _log.warning("outcomes wait for the ledger", outcomes=len(group), error=type(error).__name__)
                    await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other outcomes are written
                await self._write_apart(group, requests, error, was_away=was_away)
                return
            else:
                break
        _confirm(group)

    async def _write_apart(
        self, group: Outcomes, requests: Sequence[MarkRequest], error: Exception, *, was_away: bool
    ) -> None:
        """Write apart what the ledger refuses together: it is an outcome that it minds."""
        if not group:
            _refuse(requests, error)
            return
        if was_away and isinstance(error, UniqueViolation):
            # The first try did commit, and only its reply was lost: the copies are there.
            _confirm(group)
        else:
            await self._isolate(group, error)
        await self._commit_until_done([], requests)

    async def _isolate(self, group: Outcomes, error: Exception) -> None:
        """Write one by one what the ledger refuses together, so that one bad outcome takes no others with it.

        Of one that is refused alone, who was sent to and who was not is recorded all the same, without the copy and
        without what the server said: better a bare record than a second mail.
        """
        [(outcome, committed), *others] = group
        if others:
            for one in group:
                await self._commit_until_done([one])
            return
        _log.error("an outcome cannot be recorded whole", error=type(error).__name__, job=outcome.settlement.job_number)
        bare = MessageOutcome(outcome.settlement, exceptions=tuple(_bare(row) for row in outcome.exceptions))
        if outcome != bare:
            await self._commit_until_done([(bare, committed)])
        elif not committed.done():
            committed.set_exception(error)

    async def _write(self, outcomes: list[MessageOutcome], requests: Sequence[MarkRequest]) -> None:
        exceptions = merge_exceptions(outcomes)
        copies = [outcome.copy for outcome in outcomes if outcome.copy is not None]
        marks = merge_marks(mark for request in requests for mark in request.wanted)
        made_at = monotonic()
        async with self._pool.connection() as connection:
            written = await recording.write_batches(connection, self._worker_id, merge_settlements(outcomes), marks)
            if copies:
                await recording.copy_email_copies(connection, copies)
            if exceptions:
                taken = await recording.record_exceptions(connection, exceptions)
                dead = [row for row in exceptions if row.dead_address and (row.job_number, row.ordinal) in taken]
                if dead:
                    await suppressions.suppress_refused(connection, dead)
            to_count = written.to_count | {(row.job_number, row.batch_number) for row in exceptions}
            if to_count:
                await recording.recount_exceptions(connection, to_count)
        marked = {_claim_of(mark) for mark in marks if _claim_of(mark)[:2] in written.marked}
        _give(requests, marked, written.outranked, made_at)


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, so long at most."""
    if seconds <= 0.0 or event.is_set():
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _confirm(group: Outcomes) -> None:
    for _, committed in group:
        if not committed.done():
            committed.set_result(None)


def _give(
    requests: Iterable[MarkRequest], marked: set[tuple[int, int, int]], outranked: set[tuple[int, int]], made_at: float
) -> None:
    """Tell each slice which of its batches were marked, by the claims that it has of them."""
    for request in requests:
        if not request.given.done():
            ours = frozenset(_claim_of(mark)[:2] for mark in request.wanted if _claim_of(mark) in marked)
            request.given.set_result(Mark(made_at, ours, is_outranked=not ours.isdisjoint(outranked)))


def _refuse(requests: Iterable[MarkRequest], error: Exception) -> None:
    for request in requests:
        if not request.given.done():
            request.given.set_exception(error)


def _claim_of(mark: recording.WantedMark) -> tuple[int, int, int]:
    return (mark.job_number, mark.batch_number, mark.lease_epoch)
