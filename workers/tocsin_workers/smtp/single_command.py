"""One command outside a transaction and its one reply, without I/O: QUIT, or MAIL for a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_workers.smtp.dialogue import Cut, CutKind

if TYPE_CHECKING:
    from tocsin_workers.smtp.phases import Phase
    from tocsin_workers.smtp.replies import Reply


class SingleCommand:
    """A talk (see `wire.Talk`) of one command. `reply` is None where none came, and `cut` tells why."""

    __slots__ = ("_unsaid", "cut", "phase", "reply", "unasked")

    error = None

    def __init__(self, command: bytes, phase: Phase) -> None:
        self._unsaid = command
        self.phase = phase
        self.reply: Reply | None = None
        self.cut: Cut | None = None
        self.unasked: Reply | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the reply has come, or never will."""
        return self.reply is not None or self.cut is not None

    @property
    def is_broken(self) -> bool:
        """Whether the connection is of no further use."""
        return self.cut is not None

    def flight(self) -> bytes:
        """Give the command, once."""
        command, self._unsaid = self._unsaid, b""
        return command

    def hear(self, replies: list[Reply]) -> None:
        """Take the reply."""
        self.reply, *too_many = replies
        if self.reply.closing:
            self.cut = Cut(CutKind.CLOSING, self.phase, str(self.reply), self.reply)
        elif too_many:
            self.unasked = too_many[0]

    def interrupt(self, kind: CutKind, detail: str, reply: Reply | None = None) -> None:
        """Take note that no reply will come."""
        if not self.is_finished:
            self.cut = Cut(kind, self.phase, detail, reply)
