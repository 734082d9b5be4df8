"""Counting something that may take its time, or hang: in a thread of its own, so that a scrape is always answered."""

from __future__ import annotations

import time
from concurrent.futures import Future
from threading import Lock, Thread
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)

#: How long a count is good, however many scrape.
FRESH_SECONDS = 5.0
#: A count that takes long is good for so many times longer: counting shall not be what keeps a server busy.
REST_FACTOR = 10.0
#: But no longer than this: alerts judge by the figures.
STALE_SECONDS = 30.0
#: How long the last count stands in for one that takes longer than whoever scrapes will wait.
KEPT_SECONDS = 120.0

Counted = TypeVar("Counted")


class Counting(Generic[Counted]):
    """Counts again and again, one thread at a time. `count` gives None where its server does not answer."""

    def __init__(self, count: Callable[[], Counted | None]) -> None:
        self._count = count
        self._lock = Lock()
        self._latest: Future[Counted | None] | None = None
        self._good_until = float("-inf")
        self._kept: Counted | None = None
        self._kept_until = float("-inf")

    def begin(self) -> Future[Counted | None]:
        """Give the latest count while it is good, or one that is under way; else begin another one."""
        with self._lock:
            latest = self._latest
            if latest is None or (latest.done() and time.monotonic() > self._good_until):
                latest = self._latest = Future()
                Thread(target=self._run, args=(latest,), name="counting", daemon=True).start()
            return latest

    def _run(self, counting: Future[Counted | None]) -> None:
        began_at = time.monotonic()
        counted: Counted | None = None
        try:
            counted = self._count()
        except Exception:  # noqa: BLE001 - logged, whatever it is: whoever scrapes is told that nothing was counted
            _log.exception("counting for the metrics failed")
        ended_at = time.monotonic()
        rest = max(FRESH_SECONDS, REST_FACTOR * (ended_at - began_at))
        self._good_until = ended_at + min(STALE_SECONDS, rest)
        self._kept, self._kept_until = counted, ended_at + KEPT_SECONDS
        counting.set_result(counted)

    def result(self, counting: Future[Counted | None], *, by: float) -> Counted | None:
        """Wait for a count until `by` (`time.monotonic`); then give the one before, or None where there is none."""
        try:
            return counting.result(max(0.0, by - time.monotonic()))
        except TimeoutError:
            return self._kept if time.monotonic() < self._kept_until else None
