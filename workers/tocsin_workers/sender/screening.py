"""From claimed rows to who is to be sent to now. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tocsin_schema.ledger.sending import ClaimedBatch, ClaimedException, ClaimedRecipient


@dataclass(frozen=True, slots=True)
class DueRecipient:
    """A recipient to send to now: `first_ordinal + index` of the batch.

    `attempts` is how many tries came before; `alone` that nobody else may be in the same transaction.
    """

    index: int
    recipient: ClaimedRecipient
    attempts: int
    alone: bool = False


@dataclass(frozen=True, slots=True)
class ScreenedBatch:
    """A claimed batch, whom of it to send to now, and when the earliest of the others is due."""

    batch: ClaimedBatch
    due: tuple[DueRecipient, ...]
    next_due_in_seconds: float | None


def screen(
    batches: Sequence[ClaimedBatch],
    recipients: Iterable[ClaimedRecipient],
    exceptions: Iterable[ClaimedException],
) -> list[ScreenedBatch]:
    """Leave out who is settled, and who was deferred and is not due yet. Batches keep their order."""
    known = {(exception.job_number, exception.ordinal): exception for exception in exceptions}
    of_batch: dict[tuple[int, int], list[ClaimedRecipient]] = {}
    for recipient in recipients:
        of_batch.setdefault((recipient.job_number, recipient.batch_number), []).append(recipient)
    return [_screen_batch(batch, of_batch.get((batch.job_number, batch.number), []), known) for batch in batches]


def _screen_batch(
    batch: ClaimedBatch,
    recipients: Iterable[ClaimedRecipient],
    known: dict[tuple[int, int], ClaimedException],
) -> ScreenedBatch:
    due: list[DueRecipient] = []
    later: list[float] = []
    for recipient in recipients:
        index = recipient.ordinal - batch.first_ordinal
        exception = known.get((batch.job_number, recipient.ordinal))
        if batch.is_sent(index):
            continue
        if exception is None:
            due.append(DueRecipient(index, recipient, attempts=0))
        elif exception.due_in_seconds is None:
            continue
        elif exception.due_in_seconds <= 0:
            due.append(DueRecipient(index, recipient, exception.attempts, exception.alone))
        else:
            later.append(exception.due_in_seconds)
    return ScreenedBatch(batch, tuple(due), min(later, default=None))
