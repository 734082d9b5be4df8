"""Marks: the leave to write bodies, which the ledger gives for a few messages at a time and may take back.

A message begins only under a mark that is hardly old, and its body only if nobody has stopped it since: so whoever
cancels a job, or pauses a job, a profile or everything, waits for silence no longer than a moment.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Self

from tocsin_schema.ledger import sending
from tocsin_schema.ledger.connection import AWAY
from tocsin_workers.sender.claiming import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tocsin_schema.ledger.sending import ClaimedBatch
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.preparing import PreparedMessage

#: How old a mark may be when a message begins.
MARK_SECONDS = 0.5
#: How often a mark is asked for that comes back old: the ledger is slow then, and mail shall go out all the same.
MARK_TRIES = 3


class StoppedError(Exception):
    """A job, a profile or all sending was stopped before this message's body was begun."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What may be sent: the batches (job, number) that were ours and might be sent when it was asked for.

    Not among them: what was given to another worker, or whose job or profile was stopped meanwhile.
    """

    made_at: float
    ours: frozenset[tuple[int, int]]

    @property
    def is_old(self) -> bool:
        """Whether it is to be asked for again before a message begins."""
        return monotonic() - self.made_at > MARK_SECONDS

    def covers(self, message: PreparedMessage) -> bool:
        """Whether this message may be begun."""
        return key_of(message.batch) in self.ours


async def mark(desk: SenderDesk, messages: Sequence[PreparedMessage]) -> Mark:
    """Mark messages' recipients in flight: from this commit on, a body may be written."""
    made_at = monotonic()
    masks: dict[tuple[int, int], tuple[ClaimedBatch, int]] = {}
    for message in messages:
        _, mask = masks.get(key_of(message.batch), (message.batch, 0))
        masks[key_of(message.batch)] = (message.batch, mask | message.mask)
    async with desk.pool.connection() as connection:
        ours = await sending.mark_in_flight(connection, desk.lease.worker_id, [masks[key] for key in sorted(masks)])
    return Mark(made_at, frozenset(ours))


async def fresh(desk: SenderDesk, last: Mark, untried: Sequence[PreparedMessage]) -> Mark:
    """Give the mark, or where it is old another one for those who are still to be sent to."""
    for _ in range(MARK_TRIES):
        if not last.is_old:
            break
        last = await mark(desk, untried)
    return last


class Watch:
    """Asks for a message's mark again and again until its body is begun, where that takes its time.

    A server may take minutes to let a message in: with fifty recipients, one command at a time, or when it is busy.
    """

    def __init__(self, desk: SenderDesk, message: PreparedMessage, last: Mark) -> None:
        self._desk = desk
        self._message = message
        self._mark = last
        self._asking: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(MARK_SECONDS, self._begin)

    def check(self) -> None:
        """Say that the body is about to be begun. Raises StoppedError where it is known that it shall not be."""
        self._timer.cancel()
        if not self._mark.covers(self._message):
            raise StoppedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._asking is not None:
            # To its end: a mark that is committed after the outcome would stay.
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _begin(self) -> None:
        self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        while True:
            with suppress(*AWAY):
                self._mark = await mark(self._desk, [self._message])
            await asyncio.sleep(MARK_SECONDS)
