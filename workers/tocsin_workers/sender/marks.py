"""Marks as values: what is asked for, what was given, and how those of several slices are put together. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from tocsin_schema.ledger.recording import WantedMark

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tocsin_workers.sender.preparing import PreparedMessage

#: How old a mark may be when a message begins.
MARK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Mark:
    """What may be sent: the batches (job, number) that were ours and might be sent when it was asked for.

    Not among them: what was given to another worker, or whose job or profile was stopped meanwhile.
    """

    made_at: float
    ours: frozenset[tuple[int, int]]
    is_outranked: bool = False
    """Whether mail of a better rank is due that could go instead."""

    @property
    def is_old(self) -> bool:
        """Whether it is to be asked for again before a message begins."""
        return monotonic() - self.made_at > MARK_SECONDS

    def covers(self, message: PreparedMessage) -> bool:
        """Whether this message may be begun."""
        return (message.batch.job_number, message.batch.number) in self.ours


def wanted_marks(messages: Iterable[PreparedMessage]) -> list[WantedMark]:
    """Give what to ask for before these messages are sent: one mark a batch."""
    return merge_marks(
        WantedMark(
            message.batch.job_number,
            message.batch.number,
            message.batch.lease_epoch,
            message.batch.size,
            message.mask,
        )
        for message in messages
    )


def merge_marks(wanted: Iterable[WantedMark]) -> list[WantedMark]:
    """Make one mark a batch; where a batch was claimed again meanwhile, only the newer claim can still be marked."""
    merged: dict[tuple[int, int], WantedMark] = {}
    for new in wanted:
        key = (new.job_number, new.batch_number)
        known = merged.get(key)
        if known is None or known.lease_epoch < new.lease_epoch:
            merged[key] = new
        elif known.lease_epoch == new.lease_epoch:
            merged[key] = msgspec.structs.replace(known, mask=known.mask | new.mask)
    return list(merged.values())
