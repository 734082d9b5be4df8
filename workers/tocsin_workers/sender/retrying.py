"""When a deferred recipient is tried again. Decides, does nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """A schedule fit for notifications: soon at first, then twice as long each time, up to a maximum.

    Mail transfer agents wait five minutes and more (RFC 5321 section 4.5.4.1 even thirty); somebody who waits for
    a warning cannot. Grey-listing servers let a second try through after 30 s to 5 min, which four tries cover.
    """

    first_seconds: float = 30.0
    maximum_seconds: float = 3600.0

    def delay(self, attempts: int, jitter: float) -> float:
        """Give the seconds to wait after so many attempts (at least 1); `jitter` in [0, 1) spreads by ±25 %."""
        doubled = self.first_seconds * 2.0 ** min(max(attempts, 1) - 1, 30)
        return min(doubled, self.maximum_seconds) * (0.75 + 0.5 * jitter)
