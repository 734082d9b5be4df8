"""From a valid part to the rows that it becomes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from tocsin_schema.contract.part import MAX_RECIPIENTS
from tocsin_schema.contract.recipient_list import RejectedRecipient
from tocsin_schema.ledger.intake import BatchRow, RecipientRow, UnusableRecipient

if TYPE_CHECKING:
    from tocsin_schema.contract.recipient_list import ValidPart, ValidRecipient


@dataclass(frozen=True, slots=True)
class PartRows:
    """What a part adds to the ledger."""

    recipients: list[RecipientRow]
    batches: list[BatchRow]
    unusable: list[UnusableRecipient]


def plan_rows(part: ValidPart, batch_size: int) -> PartRows:
    """Give a part's recipients their numbers and cut them into batches of up to `batch_size`.

    Numbers follow from the part's number alone, so that parts may come in any order: part n has the ordinals and
    batch numbers from (n - 1) × 1,000 on. Malformed recipients keep their place and count as failed.
    """
    base = (part.part.part.number - 1) * MAX_RECIPIENTS
    entries: list[ValidRecipient | RejectedRecipient] = sorted(
        [*part.recipients, *part.rejected], key=lambda entry: entry.ordinal
    )
    rows = PartRows([], [], [])
    for index in range(0, len(entries), batch_size):
        chunk = entries[index : index + batch_size]
        number = base + index // batch_size
        for ordinal, entry in enumerate(chunk, start=base + index):
            if isinstance(entry, RejectedRecipient):
                rows.recipients.append(RecipientRow(ordinal, number, entry.address, None, None))
                rows.unusable.append(UnusableRecipient(ordinal, number, entry.reason))
            else:
                rows.recipients.append(RecipientRow(ordinal, number, entry.address, entry.name, _json(entry.data)))
        failed = sum(isinstance(entry, RejectedRecipient) for entry in chunk)
        rows.batches.append(BatchRow(number, base + index, len(chunk), failed))
    return rows


def _json(data: dict[str, object]) -> str | None:
    return msgspec.json.encode(data).decode() if data else None
