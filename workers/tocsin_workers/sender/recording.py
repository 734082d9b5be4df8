"""The one writer of outcomes in a process: groups what has come and commits it together.

While one group is being committed the next one gathers, so groups are large under load and single when idle. With
Postgres away the writer keeps what it has and tries again. What the ledger refuses is written as barely as need be.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import structlog
from psycopg.errors import UniqueViolation

from tocsin_schema.ledger import recording, suppressions
from tocsin_schema.ledger.connection import AWAY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tocsin_schema.ledger.connection import Pool

LARGEST_GROUP = 1000
RETRY_SECONDS = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MessageOutcome:
    """What one transmitted message taught: a settlement of its batch, a copy if accepted, exceptions if there are."""

    settlement: recording.Settlement
    copy: recording.CopyRow | None = None
    exceptions: tuple[recording.RecordedException, ...] = field(default=())


Group: TypeAlias = list[tuple[MessageOutcome, asyncio.Future[None]]]


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
    return replace(newer, sent=older.sent | newer.sent, settled=settled)


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
    """Commits outcomes in groups. `run` is the writer; `record` returns once an outcome is committed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[tuple[MessageOutcome, asyncio.Future[None]]] = []
        self._something = asyncio.Event()

    def put(self, outcome: MessageOutcome) -> asyncio.Future[None]:
        """Hand over an outcome; the future is done once it is committed."""
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((outcome, committed))
        self._something.set()
        return committed

    async def run(self) -> None:
        """Write until cancelled. What is still waiting then is written by `drain`."""
        while True:
            await self._something.wait()
            await self._write_next_group()

    async def drain(self) -> None:
        """Write all that waits: the last thing that a process does."""
        while self._waiting:
            await self._write_next_group()

    async def _write_next_group(self) -> None:
        group, self._waiting = self._waiting[:LARGEST_GROUP], self._waiting[LARGEST_GROUP:]
        if not self._waiting:
            self._something.clear()
        writing = asyncio.ensure_future(self._commit_until_done(group))
        interrupted = False
        while not writing.done():
            try:
                # However often we are cancelled: a commit that has begun is waited for.
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                interrupted = True
        if interrupted:
            raise asyncio.CancelledError

    async def _commit_until_done(self, group: Group) -> None:
        was_away = False
        while True:
            try:
                await self._write([outcome for outcome, _ in group])
            except AWAY as error:
                was_away = True
                _log.warning("outcomes wait for the ledger", outcomes=len(group), error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other outcomes are written
                if was_away and isinstance(error, UniqueViolation):
                    # The first try did commit, and only its reply was lost: the copies are there.
                    break
                await self._isolate(group, error)
                return
            else:
                break
        for _, committed in group:
            if not committed.done():
                committed.set_result(None)

    async def _isolate(self, group: Group, error: Exception) -> None:
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

    async def _write(self, outcomes: list[MessageOutcome]) -> None:
        exceptions = merge_exceptions(outcomes)
        copies = [outcome.copy for outcome in outcomes if outcome.copy is not None]
        async with self._pool.connection() as connection:
            to_count = await recording.record_outcomes(connection, merge_settlements(outcomes))
            if copies:
                await recording.copy_email_copies(connection, copies)
            if exceptions:
                taken = await recording.record_exceptions(connection, exceptions)
                dead = [row for row in exceptions if row.dead_address and (row.job_number, row.ordinal) in taken]
                if dead:
                    await suppressions.suppress_refused(connection, dead)
            to_count |= {(row.job_number, row.batch_number) for row in exceptions}
            if to_count:
                await recording.recount_exceptions(connection, to_count)
