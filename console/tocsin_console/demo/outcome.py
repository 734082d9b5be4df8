"""What the demo came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tocsin_console.demo.comparison import Comparison
    from tocsin_schema.ledger.job_reading import Job, RecipientReading


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo came to."""

    jobs: list[Job]
    awkward: list[RecipientReading]
    """Recipients that were not sent to, or not at the first try."""
    comparison: Comparison
    token_requests: int
    seconds: float
