"""The Message-ID of a message: the same on every attempt, so that a receiving system can discard a twin.

It is made from the job's id and a place in the job, never from an address.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

_PART = re.compile(r"[a-z0-9][a-z0-9-]{0,40}", re.ASCII)
_PLACE = "place"


def message_id(job_id: UUID, part: str, domain: str) -> str:
    """Return `<job.part@domain>` (RFC 5322 section 3.6.4).

    `part` comes from `recipient_part` or `batch_part`; `domain` is the sender's, ASCII.
    Raises ValueError for a part or domain that would not be a valid id: a programming error.
    """
    if not _PART.fullmatch(part) or not domain.isascii() or not domain:
        raise ValueError(f"no Message-ID can be made from {part!r} and {domain!r}")
    return f"<{job_id.hex}.{part}@{domain}>"


def recipient_part(part_number: int, ordinal: int) -> str:
    """Return the place of one recipient: the number of its part and its ordinal in it."""
    return f"r{part_number}-{ordinal}"


def batch_part(batch_number: int) -> str:
    """Return the place of one shared batch."""
    return f"b{batch_number}"


class MessageIds:
    """The Message-IDs of one job, as `message_id` would give them."""

    def __init__(self, job_id: UUID, domain: str) -> None:
        """Raise ValueError for a domain that would not be valid: a programming error."""
        before, after = message_id(job_id, _PLACE, domain).split(f".{_PLACE}@")
        self._before, self._after = f"{before}.", f"@{after}"

    def of_recipient(self, part_number: int, ordinal: int) -> str:
        """Return that of one recipient's message."""
        return f"{self._before}{recipient_part(part_number, ordinal)}{self._after}"

    def of_batch(self, batch_number: int) -> str:
        """Return that of one shared batch's message."""
        return f"{self._before}{batch_part(batch_number)}{self._after}"
