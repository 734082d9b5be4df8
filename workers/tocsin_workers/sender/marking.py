"""Asking for marks: the leave to write bodies, which the ledger gives for a few messages at a time and may take back.

A message begins only under a mark that is hardly old, and its body only if nobody has stopped it since: so whoever
cancels a job, or pauses a job, a profile or everything, waits for silence no longer than a moment.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Self

import structlog

from tocsin_schema.ledger.connection import AWAY
from tocsin_workers.sender import marks
from tocsin_workers.sender.marks import Mark, wanted_marks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from tocsin_workers.sender.preparing import PreparedMessage
    from tocsin_workers.sender.recording import Recorder

_log = structlog.get_logger(__name__)

#: How often a mark is asked for that comes back old: the ledger is slow then, and mail shall go out all the same.
MARK_TRIES = 3


async def mark(recorder: Recorder, messages: Sequence[PreparedMessage], *, ahead: bool = False) -> Mark:
    """Mark messages' recipients in flight; `ahead` of the time they are needed.

    Raises the errors of a Postgres that is away.
    """
    return await recorder.mark(wanted_marks(messages), ahead=ahead)


async def fresh(recorder: Recorder, last: Mark, unbegun: Sequence[PreparedMessage]) -> Mark:
    """Give the mark, or where it is old another one for those who are still to be sent to."""
    for _ in range(MARK_TRIES):
        if not last.is_old:
            break
        last = await mark(recorder, unbegun)
    return last


class Watch:
    """Asks for the mark of messages again and again, until the last of their bodies is begun.

    A server may take minutes to let a message in: with fifty recipients, one command at a time, or when it is busy.
    `unbegun` gives those whose bodies are not begun, `take` takes the new mark.
    """

    def __init__(
        self,
        recorder: Recorder,
        unbegun: Callable[[], Sequence[PreparedMessage]],
        take: Callable[[Mark], None],
    ) -> None:
        self._recorder = recorder
        self._unbegun = unbegun
        self._take = take
        self._asking: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(marks.MARK_SECONDS, self._begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A mark that was asked for and comes too late does no harm: its messages have ended in the same write or
        # before, or their batch is given back.
        self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _begin(self) -> None:
        self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        while unbegun := self._unbegun():
            try:
                self._take(await mark(self._recorder, unbegun))
            except AWAY:
                pass  # the mark that there is holds: mail shall go out all the same
            except Exception:  # noqa: BLE001 - logged, whatever it is
                _log.exception("a mark cannot be asked for again: its messages are not begun")
                self._take(Mark(monotonic(), frozenset()))
            # At moments that all slices have in common, so that one commit serves them.
            await asyncio.sleep(marks.MARK_SECONDS - monotonic() % marks.MARK_SECONDS)
