"""How busy a thread is: the share of the time in which it ran, or wanted to and had to wait for a processor."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, thread_time

NANOSECONDS = 1_000_000_000
#: A share is taken over so many seconds at least.
SHORTEST_SECONDS = 0.2

_SCHEDULED = Path("/proc/thread-self/schedstat")


class Busyness:
    """Of the thread that asks, and always the same one: since it asked before, but for the very last moments."""

    def __init__(self) -> None:
        self._since: tuple[float, float] | None = None
        self._share = 0.0

    def share(self) -> float:
        """Give it, from 0 to 1; 0 where it was never asked before."""
        now, busy = monotonic(), busy_seconds()
        if self._since is None:
            self._since = (now, busy)
        elif (seconds := now - self._since[0]) >= SHORTEST_SECONDS:
            self._share = min(1.0, (busy - self._since[1]) / seconds)
            self._since = (now, busy)
        return self._share


def busy_seconds() -> float:
    """Give the seconds in which this thread ran or waited for a processor so far; elsewhere than on Linux, ran.

    https://docs.kernel.org/scheduler/sched-stats.html, `/proc/<pid>/schedstat`.
    """
    try:
        ran, waited, _ = _SCHEDULED.read_text(encoding="ascii").split()
    except OSError:
        return thread_time()
    return (int(ran) + int(waited)) / NANOSECONDS or thread_time()
