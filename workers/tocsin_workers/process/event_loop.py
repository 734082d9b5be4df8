"""The event loop of a worker process: one, on uvloop, in a thread that dramatiq's async actors run in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop
from dramatiq.asyncio import EventLoopThread, set_event_loop_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class ProcessLoop(EventLoopThread):
    """dramatiq's event-loop thread on uvloop, and as a daemon: dramatiq's own keeps a process from ending."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger(__name__))  # pyright: ignore[reportUnknownMemberType]  # untyped parameter
        self.loop.close()
        self.loop = uvloop.new_event_loop()
        self.daemon = True

    def begin(self) -> None:
        """Start the loop and make it the one in which actors run."""
        self.start(timeout=5.0)
        set_event_loop_thread(self)

    def run_to_end(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it."""
        return self.run_coroutine(coroutine)

    def call(self, act: Callable[[], None]) -> None:
        """Call something in the loop from another thread."""
        self.loop.call_soon_threadsafe(act)
