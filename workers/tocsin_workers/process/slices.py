"""The slices that a process has in hand, and the wake-ups that wait for a place.

Nobody waits for a slice: a wake-up is acknowledged at once, and a mail server that is slow holds no thread. How many
slices there may be is decided in `sender.admission`. A wake-up for which there is no place waits here, and counts as
under way in the ledger meanwhile, so that nobody sends it again and again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

import structlog

from tocsin_schema.ledger.connection import AWAY
from tocsin_workers import metrics
from tocsin_workers.sender import admission
from tocsin_workers.sender.slice import SliceResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

_log = structlog.get_logger(__name__)

#: The `result` of a wake-up that has to wait for a place.
CROWDED = "crowded"


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A profile has work of a rank; the best rank is the lowest."""

    profile_id: UUID
    rank: int


Work: TypeAlias = "Callable[[int], Awaitable[SliceResult]]"
"""Works a slice, for so many wake-ups."""


class RunningSlices:
    """Belongs to one event loop.

    `most` is how many slices run at once; `busy_share` tells for how much of the time the event loop is busy.
    """

    def __init__(self, *, most: int, busy_share: Callable[[], float]) -> None:
        self._most = most
        self._running: dict[asyncio.Task[SliceResult | None], UUID] = {}
        self._earned: Counter[UUID] = Counter()
        """By profile, the slices that it may have beyond the first few."""
        self._busy_share = busy_share
        self._waiting: dict[WakeUp, tuple[Work, int]] = {}
        """What is to be done once there is a place, the oldest first; and for how many wake-ups."""
        self._is_ending = False

    @property
    def tasks(self) -> list[asyncio.Task[SliceResult | None]]:
        """The slices that run now."""
        return list(self._running)

    def begin(self, wake_up: WakeUp, work: Work) -> None:
        """Begin a slice, now or when there is a place for it. Of those that wait, one of a kind stands for all."""
        if self._is_ending:
            return
        if self._admits(wake_up):
            self._start(wake_up, work, 1)
        else:
            metrics.SLICES.labels(CROWDED).inc()
            _, wake_ups = self._waiting.get(wake_up, (work, 0))
            self._waiting[wake_up] = (work, wake_ups + 1)

    def note_worked(self, profile_id: UUID) -> None:
        """Note that a slice of a profile has ended well and goes on in its place with another one."""
        self._earn(profile_id)
        self._begin_waiting()

    async def finish(self, *, by: float) -> None:
        """Wait for the slices that run, until `by` (`time.monotonic`), and begin none any more."""
        self._is_ending = True
        if self._running:
            await asyncio.wait(self._running, timeout=max(0.0, by - monotonic()))

    def _admits(self, wake_up: WakeUp) -> bool:
        return admission.admits(
            Counter(self._running.values()),
            wake_up.profile_id,
            wake_up.rank,
            earned=self._earned[wake_up.profile_id],
            most=self._most,
        )

    def _start(self, wake_up: WakeUp, work: Work, wake_ups: int) -> None:
        new = asyncio.create_task(_log_failures(work(wake_ups)))
        self._running[new] = wake_up.profile_id
        new.add_done_callback(self._ended)

    def _ended(self, ended: asyncio.Task[SliceResult | None]) -> None:
        profile_id = self._running.pop(ended)
        if profile_id not in self._running.values():
            del self._earned[profile_id]
        elif not ended.cancelled() and ended.result() is SliceResult.WORKED:
            self._earn(profile_id)
        self._begin_waiting()

    def _earn(self, profile_id: UUID) -> None:
        self._earned[profile_id] = admission.earned(self._earned[profile_id], self._busy_share())

    def _begin_waiting(self) -> None:
        if self._is_ending:
            return
        for wake_up in sorted(self._waiting, key=attrgetter("rank")):
            if self._admits(wake_up):
                self._start(wake_up, *self._waiting.pop(wake_up))


async def _log_failures(working: Awaitable[SliceResult]) -> SliceResult | None:
    try:
        return await working
    except AWAY as error:
        # The sweeper wakes senders again once the ledger is back.
        _log.warning("slice ended: the ledger is away", error=type(error).__name__)
    except Exception:  # noqa: BLE001 - logged, whatever it is: nobody else waits for the slice
        _log.exception("slice failed")
    return None
