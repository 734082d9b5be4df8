"""How much is claimed and put in flight at once. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

#: Messages whose recipients are marked in flight by one commit: what a kill puts in doubt, a connection.
WINDOW = 20
#: Batches that a slice claims at first, and at most.
FIRST_CLAIM = 2
LARGEST_CLAIM = 32
#: A claim that was worked off faster than this share of a slice may be twice as large next time.
QUICK_SHARE = 0.25


def window_size(messages_per_minute: int | None) -> int:
    """Give how many messages to mark at once: on a limited mailbox not more than half a second's worth."""
    if messages_per_minute is None:
        return WINDOW
    return max(1, min(WINDOW, messages_per_minute // 120))


def next_claim(claimed: int, took_seconds: float, slice_seconds: float) -> int:
    """Give how many batches to claim next, after so many took so long."""
    if took_seconds < slice_seconds * QUICK_SHARE:
        return min(LARGEST_CLAIM, claimed * 2)
    return max(1, min(claimed, int(claimed * slice_seconds / max(took_seconds, 0.001))))


def windows(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut items into lists of `size`, lazily: the next one is made when it is asked for."""
    window: list[T] = []
    for item in items:
        window.append(item)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
