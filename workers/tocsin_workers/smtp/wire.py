"""One connection that carries talks: writes what they say and brings them the replies, in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from tocsin_workers.smtp.dialogue import Cut, CutKind
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import MalformedReplyError, Reply, ReplyParser

if TYPE_CHECKING:
    from tocsin_workers.smtp.deadlines import Deadlines


class Talk(Protocol):
    """What is said on a connection until it has finished: commands, bodies and their replies, in order."""

    @property
    def phase(self) -> Phase:
        """What is being waited for."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether nothing is to be written and no further reply is due."""
        ...

    @property
    def is_broken(self) -> bool:
        """Whether it ended so that the connection is of no further use."""
        ...

    @property
    def unasked(self) -> Reply | None:
        """A reply that nothing was asked for: the server is going away, or we are out of step with it."""
        ...

    @property
    def error(self) -> Exception | None:
        """What a caller of ours raised, who gets it back."""
        ...

    def flight(self) -> bytes | memoryview:
        """Give what to write now; nothing where it is the server's turn."""
        ...

    def hear(self, replies: list[Reply]) -> None:
        """Take the replies that have come, at least one, before anything more is written."""
        ...

    def interrupt(self, kind: CutKind, detail: str, reply: Reply | None = None) -> None:
        """Take note that no further reply will come. After the end it changes nothing."""
        ...


class Wire(asyncio.Protocol):
    """Runs one talk at a time on a transport that has been greeted, secured and authenticated already.

    Everything happens in the transport's callbacks, so that a whole series of messages costs one wake-up of its
    task. A cut of any kind aborts the connection.
    """

    def __init__(self, transport: asyncio.Transport, deadlines: Deadlines) -> None:
        self._transport = transport
        self._deadline_seconds = {phase: deadlines.seconds(phase) for phase in Phase}
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._talk: Talk | None = None
        self._finished: asyncio.Future[None] | None = None
        self._writable = True
        self._lost = False
        self._expires_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self.farewell: Reply | None = None
        """What the server said, unasked, before it closed: mostly a 421."""

    @property
    def is_open(self) -> bool:
        """Whether another talk may be tried."""
        return not (self._lost or self.farewell is not None or self._transport.is_closing())

    @property
    def is_busy(self) -> bool:
        """Whether a talk is under way."""
        return self._talk is not None

    async def run(self, talk: Talk) -> None:
        """Run the talk to its end, which may be a cut; nothing is raised for what the server does.

        The talk's own `error` is raised when it has finished. On cancellation the talk is cut and the connection
        aborted.
        """
        if self._talk is not None:
            raise RuntimeError("a session carries one transaction at a time")
        if not self.is_open:
            cut = self.end(talk.phase)
            talk.interrupt(cut.kind, cut.detail, cut.reply)
            return
        self._talk = talk
        self._finished = finished = self._loop.create_future()
        try:
            self._go_on(talk)
            await finished
        except asyncio.CancelledError:
            talk.interrupt(CutKind.ABORTED, "we broke it off")
            self.abort()
            if finished.done() and not finished.cancelled():
                finished.exception()  # seen: the cancellation goes before it
            raise
        finally:
            self._talk = self._finished = None

    def end(self, phase: Phase) -> Cut:
        """Say why a connection that is not open any more cannot be used in this phase."""
        said = self.farewell
        kind = CutKind.LOST if said is None else CutKind.CLOSING
        return Cut(kind, phase, str(said or "the connection was closed"), said)

    def abort(self) -> None:
        """Close at once, without a word."""
        self._lost = True
        self._stop_watching()
        self._transport.abort()

    def close(self) -> None:
        """Close after what is still to be written."""
        self._lost = True
        self._stop_watching()
        self._transport.close()

    async def gone(self, *, within_seconds: float) -> None:
        """Wait until the connection is closed on both sides; what takes longer is aborted."""
        try:
            async with asyncio.timeout(within_seconds):
                await self._gone.wait()
        except TimeoutError:
            self.abort()

    # What the transport tells.

    def data_received(self, data: bytes) -> None:
        """Bring replies to the talk."""
        if self._lost:
            return
        replies: list[Reply] = []
        try:
            self._parser.feed_into(replies, data)
        except MalformedReplyError as error:
            self._hear(replies)
            self._cut(CutKind.PROTOCOL, f"the server sent {error}")
            return
        if replies:
            self._hear(replies)
            if self._talk is not None:
                self._go_on(self._talk)

    def eof_received(self) -> bool:
        """Let the transport close: a server that has nothing more to say takes no mail either."""
        self._cut(CutKind.LOST, "the server closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Cut the talk under way."""
        self._gone.set()
        self._cut(CutKind.LOST, "the connection was closed" if exc is None else f"the connection was lost: {exc}")

    def pause_writing(self) -> None:
        """Hold back what else there is to write."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on with it."""
        self._writable = True
        if self._talk is not None:
            self._go_on(self._talk)

    # Steps.

    def _hear(self, replies: list[Reply]) -> None:
        if not replies:
            return
        talk = self._talk
        if talk is None or talk.is_finished:
            self._close_unasked(replies[0])
            return
        talk.hear(replies)
        if talk.unasked is not None:
            self._close_unasked(talk.unasked)

    def _go_on(self, talk: Talk) -> None:
        # A transport that broke takes, and drops, whatever it is given; its connection_lost comes later.
        while self._writable and not self._transport.is_closing():
            flight = talk.flight()
            if not flight:
                break
            self._transport.write(flight)
        if talk.is_finished:
            self._finish(talk)
        else:
            self._extend_deadline(talk)

    def _finish(self, talk: Talk) -> None:
        if talk.is_broken:
            self.abort()
        finished = self._finished
        if finished is None or finished.done():
            return
        if talk.error is None:
            finished.set_result(None)
        else:
            finished.set_exception(talk.error)

    def _close_unasked(self, reply: Reply) -> None:
        self.farewell = reply
        self.close()

    def _cut(self, kind: CutKind, detail: str) -> None:
        talk = self._talk
        if talk is not None:
            talk.interrupt(kind, detail)
        self.abort()
        if talk is not None:
            self._finish(talk)

    # Deadlines: one timer that is moved only when it would come too late, since most never matter.

    def _extend_deadline(self, talk: Talk) -> None:
        seconds = self._deadline_seconds[talk.phase]
        self._expires_at = self._loop.time() + seconds
        if self._watch is not None:
            if self._watch.when() <= self._expires_at:
                return
            self._watch.cancel()
        self._watch = self._loop.call_later(seconds, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._watch = None
        if self._talk is None or self._talk.is_finished:
            return
        left = self._expires_at - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look_at_deadline)
            return
        seconds = self._deadline_seconds[self._talk.phase]
        self._cut(CutKind.DEADLINE, f"no reply within {seconds:g} s")

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
