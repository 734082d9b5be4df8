"""The parts that a publisher was given and RabbitMQ has not confirmed yet. Pure bookkeeping, no I/O.

A part waits, is published under a delivery tag, and is gone when the tag is confirmed. Whatever is not
confirmed when a connection ends is published again on the next: intake takes a part that comes twice only
once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count


@dataclass(slots=True, eq=False)
class Part:
    """One body on its way; `number` is its own for the life of the publisher."""

    number: int
    body: bytes
    rank: str
    traceparent: str | None = None
    unroutable: bool = False


@dataclass(slots=True)
class InFlight:
    """Waiting and unconfirmed parts, at most `most` of them and, unless it is a single one, `most_bytes`."""

    most: int
    most_bytes: int
    waiting: deque[Part] = field(default_factory=deque[Part])
    unconfirmed: dict[int, Part] = field(default_factory=dict[int, Part])
    size: int = 0
    _numbers: count[int] = field(default_factory=count)

    def __len__(self) -> int:
        return len(self.waiting) + len(self.unconfirmed)

    def has_room(self, size: int) -> bool:
        """Whether a body of this many bytes may be added."""
        return not len(self) or (len(self) < self.most and self.size + size <= self.most_bytes)

    def add(self, body: bytes, rank: str, traceparent: str | None = None) -> None:
        """Take a body on."""
        self.waiting.append(Part(next(self._numbers), body, rank, traceparent))
        self.size += len(body)

    def publish_next(self, tag: int) -> Part | None:
        """Take the next waiting part, which is now published under `tag`; None where none waits."""
        if not self.waiting:
            return None
        part = self.waiting.popleft()
        part.unroutable = False
        self.unconfirmed[tag] = part
        return part

    def note_unroutable(self, number: int) -> None:
        """RabbitMQ returned a part: the confirm that follows does not mean that it is kept."""
        for part in self.unconfirmed.values():
            if part.number == number:
                part.unroutable = True

    def confirm(self, tag: int, *, multiple: bool) -> bool:
        """RabbitMQ has these; False where one of them reached no queue, and waits again."""
        routed = True
        for part in self._take(tag, multiple=multiple):
            if part.unroutable:
                self.waiting.append(part)
                routed = False
            else:
                self.size -= len(part.body)
        return routed

    def refuse(self, tag: int, *, multiple: bool) -> None:
        """RabbitMQ did not take these; they wait again."""
        self.waiting.extend(self._take(tag, multiple=multiple))

    def reconnect(self) -> None:
        """Forget the tags of a connection that ended.

        Its unconfirmed parts wait again, first and in order.
        """
        self.waiting.extendleft(reversed(self.unconfirmed.values()))
        self.unconfirmed.clear()

    def _take(self, tag: int, *, multiple: bool) -> list[Part]:
        tags = [known for known in self.unconfirmed if known <= tag] if multiple else [tag]
        return [self.unconfirmed.pop(known) for known in tags if known in self.unconfirmed]
