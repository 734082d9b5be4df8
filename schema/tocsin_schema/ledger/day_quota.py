"""Recipients in a rolling 24 hours, of which a share is kept for urgent jobs: pure decisions.

A message that is not urgent must leave room for what urgent jobs have not yet used of their share; an urgent one may
use all that is left. Retries count like first tries, since providers count them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class DayQuota:
    """How many recipients any 24 hours may have, and how many of them are kept for urgent jobs."""

    limit: int
    share: int


@dataclass(frozen=True, slots=True)
class Used:
    """Recipients that count now, and those of them that were urgent."""

    recipients: int
    urgent: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """Recipients of one minute, the urgent ones among them, and in how many seconds they count no more."""

    in_seconds: float
    recipients: int
    urgent: int


def room(quota: DayQuota, used: Used, *, is_urgent: bool) -> int:
    """Give how many more recipients there is room for; may be negative, where the limit was lowered.

    >>> room(DayQuota(100, 20), Used(70, 5), is_urgent=False)
    15
    """
    kept = 0 if is_urgent else max(0, quota.share - used.urgent)
    return quota.limit - used.recipients - kept


def seconds_until_room(quota: DayQuota, leaving: Sequence[Leaving], wanted: int, *, is_urgent: bool) -> float:
    """Say in how many seconds there is room for so many recipients, as the older ones stop to count; 0 for now.

    `leaving` is all that counts now, the oldest first. What never fits waits until nothing counts any more.
    """
    recipients = sum(minute.recipients for minute in leaving)
    urgent = sum(minute.urgent for minute in leaving)
    seconds = 0.0
    for minute in leaving:
        if room(quota, Used(recipients, urgent), is_urgent=is_urgent) >= wanted:
            break
        recipients -= minute.recipients
        urgent -= minute.urgent
        seconds = minute.in_seconds
    return seconds
