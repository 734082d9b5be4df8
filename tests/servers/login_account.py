"""What one login did at a mail server, and what a provider would say to it. Pure: every moment is given.

A provider counts open connections, and messages in any span of so many seconds; a refused one does not count.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Refusal(StrEnum):
    """What a provider says to the DATA of a message that is too many."""

    CONNECTIONS = "432 4.3.2 Concurrent connections limit exceeded"
    RATE = "421 4.4.2 Message submission rate for this client has exceeded the configured limit"


@dataclass(frozen=True, slots=True)
class Enforced:
    """What is refused: messages while more connections than that are open, and more messages in any span of seconds.

    `answer_seconds` is how long the server takes over each body.
    """

    connections: int | None = None
    messages: int | None = None
    span_seconds: float = 60.0
    answer_seconds: float = 0.0


@dataclass(slots=True)
class LoginAccount:
    """Everything that one login did. Moments are those of the server's monotonic clock, in order."""

    open_now: int = 0
    most_open: int = 0
    attempts: list[float] = field(default_factory=list[float])
    """When a message was offered: its MAIL."""
    taken: list[float] = field(default_factory=list[float])
    """When the server took a message: its 250 after the final dot."""
    recipients: list[str] = field(default_factory=list[str])
    """To whom the messages went that were taken, in that order."""
    refused: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """When a message was refused, and what the server said."""
    admitted: list[float] = field(default_factory=list[float])
    """When a body was asked for: what the rate is counted by."""

    def opened(self) -> None:
        """Count a connection that has logged in."""
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)

    def closed(self) -> None:
        """Count one less."""
        self.open_now -= 1

    def offer(self, now: float) -> None:
        """Count a message that is offered."""
        self.attempts.append(now)

    def admit(self, enforced: Enforced, now: float) -> Refusal | None:
        """Answer a DATA: None lets the body come."""
        refusal = self._refusal(enforced, now)
        if refusal is None:
            self.admitted.append(now)
        else:
            self.refused.append((now, refusal.value))
        return refusal

    def take(self, now: float, recipients: Sequence[str] = ()) -> None:
        """Count a message as taken."""
        self.taken.append(now)
        self.recipients += recipients

    def _refusal(self, enforced: Enforced, now: float) -> Refusal | None:
        if enforced.connections is not None and self.open_now > enforced.connections:
            return Refusal.CONNECTIONS
        recent = len(self.admitted) - bisect_right(self.admitted, now - enforced.span_seconds)
        if enforced.messages is not None and recent >= enforced.messages:
            return Refusal.RATE
        return None


def most_within(times: Sequence[float], seconds: float) -> int:
    """Give the most that any span of so many seconds holds. Two that lie exactly so far apart are not in one.

    >>> most_within([0.0, 1.0, 60.0, 60.5], 60.0)
    3
    """
    return max((bisect_left(times, start + seconds) - place for place, start in enumerate(times)), default=0)


def fewest_within(times: Sequence[float], seconds: float) -> int | None:
    """Give the fewest that any full span between the first and the last one holds; None: there is no full span.

    The emptiest spans begin right after one. Its ends do not count.

    >>> fewest_within([0.0, 1.0, 2.0, 4.0, 5.0, 6.0], 2.0)
    0
    """
    return min(
        (
            bisect_left(times, start + seconds) - bisect_right(times, start)
            for start in times
            if start + seconds <= times[-1]
        ),
        default=None,
    )


def earliest_lead(times: Sequence[float], spacing: float) -> float:
    """Give by how many seconds any message came too early after any before it, were they evenly spaced; 0.0 at least.

    Messages that leave up to a second after slots so far apart have a lead of a second at most, however many there are
    and whichever two are compared.

    >>> earliest_lead([0.0, 1.0, 1.5, 3.0], 1.0)
    0.5
    """
    latest = lead = 0.0
    for place, at in enumerate(times):
        lateness = at - place * spacing
        latest = lateness if place == 0 else max(latest, lateness)
        lead = max(lead, latest - lateness)
    return lead
