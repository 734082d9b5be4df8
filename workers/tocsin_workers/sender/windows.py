"""How much is claimed and put in flight at once. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tocsin_workers.sender.preparing import PreparedMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tocsin_workers.sender.preparing import UnrenderableRecipient

T = TypeVar("T")

#: Messages that are marked in flight and of which no outcome is committed, at most: what a kill puts in doubt, a
#: connection.
WINDOW = 20
#: Messages that are marked by one commit. Half of a window: the next ones are marked while these are sent.
MARKED_AT_ONCE = WINDOW // 2
#: Octets of messages that are marked at once, which are all in memory: of those with large attachments fewer fit.
WINDOW_OCTETS = 512 * 1024
#: Batches that a slice claims at first, and at most.
FIRST_CLAIM = 2
LARGEST_CLAIM = 32
#: A claim that was worked off faster than this share of a slice may be twice as large next time.
QUICK_SHARE = 0.25


def window_size(messages_per_minute: float | None) -> int:
    """Give how many messages to mark at once: on a limited mailbox not more than half a second's worth."""
    if messages_per_minute is None:
        return MARKED_AT_ONCE
    return max(1, min(MARKED_AT_ONCE, int(messages_per_minute // 120)))


def next_claim(claimed: int, took_seconds: float, slice_seconds: float) -> int:
    """Give how many batches to claim next, after so many took so long."""
    if took_seconds < slice_seconds * QUICK_SHARE:
        return min(LARGEST_CLAIM, claimed * 2)
    return max(1, min(claimed, int(claimed * slice_seconds / max(took_seconds, 0.001))))


def windows(items: Iterable[T], size: int, octets_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut items into lists of up to `size` and `WINDOW_OCTETS`, lazily: the next one is made when it is asked for."""
    window: list[T] = []
    octets = 0
    for item in items:
        weight = octets_of(item)
        if window and (len(window) == size or octets + weight > WINDOW_OCTETS):
            yield window
            window, octets = [], 0
        window.append(item)
        octets += weight
    if window:
        yield window


def octets_of(item: PreparedMessage | UnrenderableRecipient) -> int:
    """Give the octets of a message; one that cannot be made weighs nothing."""
    return len(item.octets) if isinstance(item, PreparedMessage) else 0
