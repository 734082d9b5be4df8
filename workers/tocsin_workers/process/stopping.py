"""Stopping a worker process: in good order at the first SIGTERM or SIGINT, at once at a second one.

The signals are blocked, and taken by a thread of their own (sigwait(3)). A handler would run in the main thread: not
before that has returned from C code, and, where it interrupts `Event.wait`, in a deadlock with `Event.set`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dramatiq import Broker, Worker
    from dramatiq.worker import ConsumerThread, WorkerThread

#: What is left of the grace period for closing sessions and recording, in seconds; of a shorter one, all of it.
CLOSING_SECONDS: Final = 2.0
#: What a process may take beyond that before it ends in any case.
LAST_CALL_MARGIN_SECONDS: Final = 1.0
#: How long queues are waited for at the end: what a message broker that hangs does not take back, it finds out itself.
QUEUES_SECONDS: Final = 2.0
#: Within this time of the first signal another one is the same: a service manager tells the whole group, and our
#: supervisor tells us once more.
ECHO_SECONDS: Final = 0.5

_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_POLL_SECONDS: Final = 0.02


class Stop:
    """Whether this process was told to stop, and by when it has to be through.

    Make it before any thread is started: they all inherit that the signals are blocked.
    """

    def __init__(self, grace_seconds: float) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._grace_seconds = grace_seconds
        self._told = threading.Event()
        self._deadline = float("inf")

    @property
    def is_told(self) -> bool:
        """Whether it is time to stop."""
        return self._told.is_set()

    @property
    def closing_begins_at(self) -> float:
        """When work that is still under way is cut off, by `time.monotonic`; infinity before we were told."""
        return self._deadline - CLOSING_SECONDS

    def watch(self, on_told: Callable[[], None]) -> None:
        """Wait for signals from now on; `on_told` is called once, in another thread."""
        threading.Thread(target=self._watch, args=(on_told,), name="signals", daemon=True).start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until told to stop, or for so long."""
        self._told.wait(seconds)

    def _watch(self, on_told: Callable[[], None]) -> None:
        signal.sigwait(_SIGNALS)
        told_at = monotonic()
        allowed = max(self._grace_seconds, CLOSING_SECONDS)
        # Whatever hangs, the ledger's end of the line for instance: nobody waits for us for ever.
        last_call = threading.Timer(allowed + LAST_CALL_MARGIN_SECONDS, leave, [1])
        last_call.daemon = True
        last_call.start()
        self._deadline = told_at + allowed
        self._told.set()
        on_told()
        while True:
            signal.sigwait(_SIGNALS)
            if monotonic() - told_at > ECHO_SECONDS:
                leave(1)


def stop_actors(worker: Worker, *, by: float) -> None:
    """Let the actors' threads end what they have in hand, until `by` (`time.monotonic`)."""
    _stop_threads(worker.workers, by=by)


def close_queues(worker: Worker | None, broker: Broker) -> None:
    """Give back what was not begun and disconnect from the message broker, unless that takes too long."""
    closing = threading.Thread(target=_close_queues, args=(worker, broker), name="closing queues", daemon=True)
    closing.start()
    closing.join(QUEUES_SECONDS)


def leave(code: int) -> NoReturn:
    """End the process now. Threads that wait for a server which hangs do not keep it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _close_queues(worker: Worker | None, broker: Broker) -> None:
    if worker is not None:
        _stop_threads(worker.consumers.values(), by=monotonic() + QUEUES_SECONDS)
        worker.stop(timeout=0)
    broker.close()


def _stop_threads(threads: Iterable[WorkerThread | ConsumerThread], *, by: float) -> None:
    """Tell threads of dramatiq to stop, again and again: one that has just been started forgets that it was told."""
    known = list(threads)
    while (alive := [thread for thread in known if thread.is_alive()]) and monotonic() < by:
        for thread in alive:
            thread.stop()
        alive[0].join(_POLL_SECONDS)
