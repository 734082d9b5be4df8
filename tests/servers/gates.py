"""Gates in the way of a task: it goes on when the player of the test says so, and how.

Whoever plays several processes in one event loop decides by gates which of them moves next. At a gate a task may be
left standing (its process is frozen), broken off (it was killed), or sent on to meet trouble.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Place(StrEnum):
    """Where a task waits."""

    LEDGER = "before a transaction with the ledger"
    ENVELOPE = "before the envelope of a message"
    BODY = "before the body of a message"
    DOT = "between the begin of a body and its final dot"
    REPLY = "while the reply to the final dot is on its way"


class Fate(StrEnum):
    """How a task goes on."""

    WELL = "well"
    AWAY = "the ledger is away"
    REPLY_LOST = "the commit succeeds and its reply is lost"


class KilledError(BaseException):
    """Ends whatever a killed process was at; nothing that it does on the way out has an effect."""


class Gate:
    """The gate of one task and of those that it makes; they come to it again and again."""

    def __init__(self) -> None:
        self.is_broken = False
        self.in_touch_since = 0
        """What it was in the task's process when the task last wrote to the ledger."""
        self._waiting: list[tuple[Place, asyncio.Future[Fate]]] = []

    @property
    def places(self) -> list[Place]:
        """Where tasks wait now, in the order in which they came."""
        return [place for place, _ in self._waiting]

    async def wait(self, place: Place) -> Fate:
        """Wait to be let on. Raises KilledError."""
        if self.is_broken:
            raise KilledError
        waiter = (place, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            return await waiter[1]
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def let_on(self, which: int, fate: Fate) -> None:
        """Let one of those that wait go on."""
        self._waiting.pop(which)[1].set_result(fate)

    def break_off(self) -> None:
        """Let nobody through any more."""
        self.is_broken = True
        while self._waiting:
            self._waiting.pop()[1].set_exception(KilledError())


_GATE: ContextVar[Gate | None] = ContextVar("gate", default=None)


def gated(coroutine: Coroutine[Any, Any, Any], gate: Gate) -> asyncio.Task[Any]:
    """Run a coroutine, and whatever tasks it makes, with a gate in its way."""
    context = copy_context()
    context.run(_GATE.set, gate)
    return asyncio.get_running_loop().create_task(coroutine, context=context)


def current_gate() -> Gate | None:
    """Give the gate of this task, if it has one."""
    return _GATE.get()


async def pass_gate(place: Place) -> Fate:
    """Wait at the gate of this task; where there is none, go on."""
    gate = _GATE.get()
    return Fate.WELL if gate is None else await gate.wait(place)
