"""A ledger that the recorder writes to: it notes what each transaction wrote, and refuses when the test says so."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import uuid4

from psycopg import errors

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger.recording import Settlement, WantedMark
from tocsin_workers.sender.recording import MessageOutcome, Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container

    import psycopg

    from tocsin_schema.ledger.connection import Pool

SIZE = 50


def outcome(index: int = 0, *, batch: int = 0, job: int = 1, sent: bool = True) -> MessageOutcome:
    mask = 1 << index
    return MessageOutcome(Settlement(job, batch, 1, SIZE, sent=mask if sent else 0, settled=mask))


def wanted(mask: int = 1, *, batch: int = 0, epoch: int = 1) -> WantedMark:
    return WantedMark(1, batch, epoch, SIZE, mask)


class Written(NamedTuple):
    """What one transaction wrote to one batch: masks, and the claim under which the mark was wanted."""

    batch: int
    settled: int
    marked: int
    mark_epoch: int | None


class FakeLedger:
    """Stands for a pool and notes what each transaction wrote; batches are claimed for the time of the `epoch`.

    `troubles` are raised one after the other first. What settles a `refused` mask is refused, alone or with others.
    `outranked` are batches that had better give way.
    """

    def __init__(
        self, *troubles: psycopg.Error, epoch: int = 1, refused: int = 0, outranked: Container[int] = ()
    ) -> None:
        self.troubles = list(troubles)
        self.epoch = epoch
        self.outranked = outranked
        self.refused = refused
        self.committed: list[list[Written]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[FakeConnection]:
        self.entered.set()
        await self.open.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        connection = FakeConnection(self)
        yield connection
        self.committed.append(connection.written)

    @property
    def masks(self) -> list[int]:
        """Give what was settled, transaction by transaction, of a single batch."""
        return [one.settled for group in self.committed for one in group if one.settled]


class FakeConnection:
    """Stands for a connection that takes settlements and marks."""

    def __init__(self, ledger: FakeLedger) -> None:
        self.written: list[Written] = []
        self._ledger = ledger

    async def execute(self, _query: bytes, parameters: dict[str, Any]) -> FakeConnection:
        columns = ("numbers", "settleds", "marks", "mark_epochs")
        rows = zip(*(parameters[column] for column in columns), strict=True) if "marks" in parameters else ()
        self.written += [
            Written(number, int(settled[::-1], 2), int(marked[::-1], 2), epoch)
            for number, settled, marked, epoch in rows
        ]
        if any(one.settled & self._ledger.refused for one in self.written):
            raise errors.DataError
        return self

    async def fetchall(self) -> list[tuple[object, ...]]:
        return [
            (1, one.batch, False, one.mark_epoch == self._ledger.epoch, one.batch in self._ledger.outranked)
            for one in self.written
        ]


@asynccontextmanager
async def running(ledger: FakeLedger) -> AsyncIterator[tuple[Recorder, asyncio.Task[None]]]:
    recorder = Recorder(cast("Pool", ledger), uuid4())
    task = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield recorder, task
    finally:
        ledger.open.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
