"""From claimed rows to who is to be sent to now. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from tocsin_schema.ledger.sending import ClaimedBatch, ClaimedException, ClaimedRecipient
    from tocsin_schema.ledger.suppressions import ClaimedSuppression


class DueRecipient(Struct, frozen=True, gc=False):
    """A recipient to send to now: `first_ordinal + index` of the batch.

    `attempts` is how many tries came before; `alone` that nobody else may be in the same transaction.
    """

    index: int
    recipient: ClaimedRecipient
    attempts: int
    alone: bool = False


@dataclass(frozen=True, slots=True)
class SuppressedRecipient:
    """A recipient who is due and not sent to, because the address is suppressed: since when, and why."""

    recipient: DueRecipient
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class ScreenedBatch:
    """A claimed batch, whom of it to send to now, when the earliest of the others is due, and who is suppressed."""

    batch: ClaimedBatch
    due: tuple[DueRecipient, ...]
    next_due_in_seconds: float | None
    suppressed: tuple[SuppressedRecipient, ...] = ()


def screen(
    batches: Sequence[ClaimedBatch],
    recipients: Iterable[ClaimedRecipient],
    exceptions: Iterable[ClaimedException],
    suppressions: Iterable[ClaimedSuppression] = (),
) -> list[ScreenedBatch]:
    """Leave out who is settled, who was deferred and is not due yet, and who is suppressed. Batches keep their order.

    Who was deferred and is suppressed by now learns that when they are due.
    """
    known = {(exception.job_number, exception.ordinal): exception for exception in exceptions}
    suppressed = {(one.job_number, one.ordinal): one for one in suppressions}
    of_batch: dict[tuple[int, int], list[ClaimedRecipient]] = {}
    for recipient in recipients:
        of_batch.setdefault((recipient.job_number, recipient.batch_number), []).append(recipient)
    return [
        _screen_batch(batch, of_batch.get((batch.job_number, batch.number), []), known, suppressed) for batch in batches
    ]


def _screen_batch(
    batch: ClaimedBatch,
    recipients: Iterable[ClaimedRecipient],
    known: dict[tuple[int, int], ClaimedException],
    suppressed: dict[tuple[int, int], ClaimedSuppression],
) -> ScreenedBatch:
    due: list[DueRecipient] = []
    held: list[SuppressedRecipient] = []
    later: list[float] = []
    for recipient in recipients:
        index = recipient.ordinal - batch.first_ordinal
        key = (batch.job_number, recipient.ordinal)
        exception = known.get(key)
        if batch.is_sent(index):
            continue
        if exception is None:
            one = DueRecipient(index, recipient, attempts=0)
        elif exception.due_in_seconds is None:
            continue
        elif exception.due_in_seconds <= 0:
            one = DueRecipient(index, recipient, exception.attempts, exception.alone)
        else:
            later.append(exception.due_in_seconds)
            continue
        if (suppression := suppressed.get(key)) is None:
            due.append(one)
        else:
            held.append(SuppressedRecipient(one, suppression.since, suppression.reason))
    return ScreenedBatch(batch, tuple(due), min(later, default=None), tuple(held))
