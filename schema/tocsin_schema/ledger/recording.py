"""Writing down what became of messages: every function is one named query of `recording.sql`.

Masks are Python integers here and bit strings in the ledger (`bit_strings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("recording")


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a batch row learns: which recipients were `sent`, and which are `settled` (no longer in flight).

    `lease_epoch` is that of the claim under which they were marked.
    """

    job_number: int
    batch_number: int
    lease_epoch: int
    size: int
    sent: int
    settled: int


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


@dataclass(frozen=True, slots=True)
class CopyRow:
    """A row of `email_copies`: one message that the provider accepted."""

    job_number: int
    batch_number: int
    lease_epoch: int
    size_of_batch: int
    recipients: int
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


async def record_outcomes(connection: Connection, settlements: Sequence[Settlement]) -> set[tuple[int, int]]:
    """Write what became of recipients on their batch rows, one settlement a batch.

    Give the batches (job, number) that count exceptions, and have to be counted again.
    """
    cursor = await connection.execute(
        _QUERIES["record_outcomes"],
        {
            "job_numbers": [settlement.job_number for settlement in settlements],
            "numbers": [settlement.batch_number for settlement in settlements],
            "epochs": [settlement.lease_epoch for settlement in settlements],
            "sents": [bit_string(settlement.sent, settlement.size) for settlement in settlements],
            "settleds": [bit_string(settlement.settled, settlement.size) for settlement in settlements],
        },
    )
    return {(int(job_number), int(number)) for job_number, number, counted in await cursor.fetchall() if counted}


async def copy_email_copies(connection: Connection, copies: Iterable[CopyRow]) -> None:
    """Write the email copies of accepted messages."""
    async with connection.cursor() as cursor, cursor.copy(_QUERIES["copy_email_copies"]) as copy:
        for row in copies:
            await copy.write_row(
                (
                    row.job_number,
                    row.batch_number,
                    row.lease_epoch,
                    _lowest_bit(row.recipients),
                    bit_string(row.recipients, row.size_of_batch),
                    row.profile,
                    row.from_address,
                    row.reply_to,
                    row.visible_to,
                    row.subject,
                    row.message_id,
                    row.provider_id,
                    row.dated_at,
                    row.accepted_at,
                    row.reply_code,
                    row.enhanced_code,
                    row.reply,
                    row.size,
                    row.sha256,
                    row.content,
                )
            )


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


def _lowest_bit(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
