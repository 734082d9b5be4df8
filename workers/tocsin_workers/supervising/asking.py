"""A question that is asked again and again, and whose answer may take its time, or never come."""

from __future__ import annotations

import time
from concurrent.futures import Future
from threading import Lock, Thread
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")


class Question(Generic[Answer]):
    """Asks in a thread of its own, one at a time, however many want to know; any thread may begin and take the result.

    `ask` finds the answer; `failed` gives one where that raises. `good_seconds` says how long an answer is good that
    took so many seconds to find. Who cannot wait for an answer is told the one before, for `kept_seconds` after it
    came, and then `unanswered`.
    """

    def __init__(
        self,
        ask: Callable[[], Answer],
        *,
        good_seconds: Callable[[float], float],
        failed: Callable[[Exception], Answer],
        unanswered: Answer,
        kept_seconds: float = 0.0,
    ) -> None:
        self._ask = ask
        self._good_seconds = good_seconds
        self._failed = failed
        self._unanswered = unanswered
        self._kept_seconds = kept_seconds
        self._lock = Lock()
        self._latest: Future[Answer] | None = None
        self._good_until = float("-inf")
        self._kept = unanswered
        self._kept_until = float("-inf")

    def begin(self) -> Future[Answer]:
        """Give where the answer is while it is good, or where it will be if it is on its way; else ask again.

        Raises RuntimeError where the operating system gives us no thread.
        """
        with self._lock:
            if self._latest is None or (self._latest.done() and time.monotonic() > self._good_until):
                asked: Future[Answer] = Future()
                Thread(target=self._run, args=(asked,), name="asking", daemon=True).start()
                # Only now: where no thread is to be had for once, it is asked again the next time.
                self._latest = asked
            return self._latest

    def result(self, asked: Future[Answer], *, by: float) -> Answer:
        """Wait for an answer until `by` (`time.monotonic`); then give what stands in for it."""
        try:
            return asked.result(max(0.0, by - time.monotonic()))
        except TimeoutError:
            return self._kept if time.monotonic() < self._kept_until else self._unanswered

    def _run(self, asked: Future[Answer]) -> None:
        began_at = time.monotonic()
        try:
            answer = self._ask()
        except Exception as error:  # noqa: BLE001 - whoever asks is told, whatever it is
            answer = self._failed(error)
        ended_at = time.monotonic()
        self._good_until = ended_at + self._good_seconds(ended_at - began_at)
        self._kept, self._kept_until = answer, ended_at + self._kept_seconds
        asked.set_result(answer)
