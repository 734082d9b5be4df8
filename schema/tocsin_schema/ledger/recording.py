"""Writing down what became of messages: every function is one named query of `recording.sql`.

Masks are Python integers here and bit strings in the ledger (`bit_strings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("recording")


class Settlement(Struct, frozen=True, gc=False):
    """What a batch row learns: which recipients were `sent`, and which are `settled` (no longer in flight).

    `lease_epoch` is that of the claim under which they were marked.
    """

    job_number: int
    batch_number: int
    lease_epoch: int
    size: int
    sent: int
    settled: int


class WantedMark(Struct, frozen=True, gc=False):
    """Recipients of a batch whose bodies are about to be written, under the claim of `lease_epoch`."""

    job_number: int
    batch_number: int
    lease_epoch: int
    size: int
    mask: int


@dataclass(frozen=True, slots=True)
class WrittenBatches:
    """What came of it: the batches (job, number) whose exceptions have to be counted again, and those marked.

    `outranked` are those of the marked whose profile has mail of a better rank that is due.
    """

    to_count: set[tuple[int, int]]
    marked: set[tuple[int, int]]
    outranked: set[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class RecordedException:
    """A recipient that was deferred (`pending`, due in some seconds), failed, is of unknown fate, or suppressed.

    `attempts` is how many tries there were so far; `is_try` says that this was one which is kept for good, and not a
    throttle or a session that broke before it was asked anything. `dead_address` says that the server refused the
    address itself for good (RCPT), so that it may be suppressed.
    """

    job_number: int
    ordinal: int
    batch_number: int
    lease_epoch: int
    state: str
    attempts: int
    due_in_seconds: float | None
    phase: str | None
    code: int | None
    enhanced_code: str | None
    reply: str | None
    reason: str
    alone: bool = False
    is_try: bool = True
    dead_address: bool = False


class CopyRow(NamedTuple):
    """A row of `email_copies`, its fields in the order of COPY: one message that the provider accepted.

    `recipients` is a bit string of the batch's size, `first_index` its first one.
    """

    job_number: int
    batch_number: int
    lease_epoch: int
    first_index: int
    recipients: str
    profile: str
    from_address: str
    reply_to: str | None
    visible_to: str
    subject: str
    message_id: str
    provider_id: str | None
    dated_at: datetime
    accepted_at: datetime
    reply_code: int
    enhanced_code: str | None
    reply: str
    size: int
    sha256: bytes
    content: bytes | None


async def write_batches(
    connection: Connection, worker_id: UUID, settlements: Iterable[Settlement], marks: Iterable[WantedMark]
) -> WrittenBatches:
    """Write what became of recipients on their batch rows, and mark others in flight: one of each a batch at most.

    Not marked is a batch that has another owner by now, or whose job was cancelled or paused or has expired, or whose
    profile or all sending was paused.
    """
    rows: dict[tuple[int, int], _BatchWrite] = {}
    for settlement in settlements:
        rows.setdefault((settlement.job_number, settlement.batch_number), _BatchWrite()).settlement = settlement
    for mark in marks:
        rows.setdefault((mark.job_number, mark.batch_number), _BatchWrite()).mark = mark
    keys = sorted(rows)
    writes = [rows[key] for key in keys]
    cursor = await connection.execute(
        _QUERIES["write_batches"],
        {
            "worker_id": worker_id,
            "job_numbers": [job for job, _ in keys],
            "numbers": [number for _, number in keys],
            "epochs": [None if one.settlement is None else one.settlement.lease_epoch for one in writes],
            "sents": [one.sent for one in writes],
            "settleds": [one.settled for one in writes],
            "marks": [one.marked for one in writes],
            "mark_epochs": [None if one.mark is None else one.mark.lease_epoch for one in writes],
            "jobs_to_mark": sorted({job for (job, _), one in zip(keys, writes, strict=True) if one.mark is not None}),
        },
    )
    written = WrittenBatches(set(), set(), set())
    for job_number, number, counted, marked, outranked in await cursor.fetchall():
        if counted:
            written.to_count.add((job_number, number))
        if marked:
            written.marked.add((job_number, number))
        if outranked:
            written.outranked.add((job_number, number))
    return written


@dataclass(slots=True)
class _BatchWrite:
    """What is written to one batch row."""

    settlement: Settlement | None = None
    mark: WantedMark | None = None

    @property
    def size(self) -> int:
        either = self.settlement or self.mark
        assert either is not None
        return either.size

    @property
    def sent(self) -> str:
        return bit_string(0 if self.settlement is None else self.settlement.sent, self.size)

    @property
    def settled(self) -> str:
        return bit_string(0 if self.settlement is None else self.settlement.settled, self.size)

    @property
    def marked(self) -> str:
        return bit_string(0 if self.mark is None else self.mark.mask, self.size)


async def copy_email_copies(connection: Connection, copies: Iterable[CopyRow]) -> None:
    """Write the email copies of accepted messages."""
    async with connection.cursor() as cursor, cursor.copy(_QUERIES["copy_email_copies"]) as copy:
        for row in copies:
            await copy.write_row(row)


async def record_exceptions(connection: Connection, exceptions: Sequence[RecordedException]) -> set[tuple[int, int]]:
    """Write down who was not sent to; their batches have to be counted again.

    Give those (job, ordinal) that were taken: of the others somebody else has more to say by now.
    """
    cursor = await connection.execute(
        _QUERIES["record_exceptions"],
        {
            "job_numbers": [row.job_number for row in exceptions],
            "ordinals": [row.ordinal for row in exceptions],
            "batch_numbers": [row.batch_number for row in exceptions],
            "states": [row.state for row in exceptions],
            "attempts": [row.attempts for row in exceptions],
            "due_in_seconds": [row.due_in_seconds for row in exceptions],
            "phases": [row.phase for row in exceptions],
            "codes": [row.code for row in exceptions],
            "enhanced_codes": [row.enhanced_code for row in exceptions],
            "replies": [row.reply for row in exceptions],
            "reasons": [row.reason for row in exceptions],
            "alones": [row.alone for row in exceptions],
            "tries": [row.is_try for row in exceptions],
            "epochs": [row.lease_epoch for row in exceptions],
        },
    )
    return {(int(job_number), int(ordinal)) for job_number, ordinal in await cursor.fetchall()}


async def recount_exceptions(connection: Connection, batches: Iterable[tuple[int, int]]) -> None:
    """Count the exceptions of batches (job, number) on their rows; who was sent to is none any more."""
    touched = sorted(batches)
    await connection.execute(
        _QUERIES["recount_exceptions"],
        {"job_numbers": [job for job, _ in touched], "numbers": [number for _, number in touched]},
    )
