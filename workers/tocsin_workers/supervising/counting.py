"""Counting something that may take its time, or hang, so that a scrape is always answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog

from tocsin_workers.supervising.asking import Question

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


def counting(count: Callable[[], Counted | None]) -> Question[Counted | None]:
    """Ask for a count again and again. `count` gives None where its server does not answer; so does one that fails."""
    return Question(count, good_seconds=_good_seconds, failed=_log_failure, unanswered=None, kept_seconds=KEPT_SECONDS)


def _good_seconds(took: float) -> float:
    return min(STALE_SECONDS, max(FRESH_SECONDS, REST_FACTOR * took))


def _log_failure(error: Exception) -> None:
    _log.error("counting for the metrics failed", exc_info=error)
