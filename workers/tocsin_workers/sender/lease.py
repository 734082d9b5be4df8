"""The lease of a worker process: while its heartbeat is fresh, what it claimed is its own.

The process judges by its own clock, from the moment before each heartbeat was sent, and stops early: so it never writes
a body after the sweeper may have given its batches to somebody else, even if it or its machine was frozen meanwhile.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

#: Seconds of a clock that never goes back and goes on while the machine is suspended, unlike `time.monotonic`.
lease_clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic
)

#: The part of the lease time after which the process no longer trusts its own lease.
SAFE_SHARE = 0.6
#: Heartbeats in a lease time.
BEATS_A_LEASE = 6


@dataclass(slots=True)
class WorkerLease:
    """Whose lease it is, how long it holds, and when it was last renewed (by `lease_clock`)."""

    worker_id: UUID
    lease_seconds: float
    renewed_at: float = field(default=float("-inf"))
    generation: int = 0
    """Grows when the lease is lost: what was claimed before is with others then, however fresh the lease is now."""

    @property
    def beat_every_seconds(self) -> float:
        """How often to give a sign of life."""
        return self.lease_seconds / BEATS_A_LEASE

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be claimed before another lease is taken."""
        return self.renewed_at == float("-inf")

    def renew(self, sent_at: float) -> None:
        """Note a heartbeat that Postgres has confirmed; `sent_at` is when it was sent."""
        self.renewed_at = max(self.renewed_at, sent_at)

    def lose(self) -> None:
        """Note that the lease is gone."""
        self.renewed_at = float("-inf")
        self.generation += 1

    def holds(self, now: float) -> bool:
        """Whether a body may be written now."""
        return now < self.renewed_at + self.lease_seconds * SAFE_SHARE
