"""One connection that carries exchanges: writes what they say and brings them the replies, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from tocsin_workers.smtp.dialogue import Cut, CutKind, Exchange
from tocsin_workers.smtp.phases import TimedPhase
from tocsin_workers.smtp.replies import MalformedReplyError, Reply, ReplyParser

if TYPE_CHECKING:
    from tocsin_workers.smtp.deadlines import Deadlines

Observe = Callable[[TimedPhase, float], None]
"""Takes a phase and the seconds that it took."""
OnBody = Callable[[], None]
"""Called right before the first octet of a body is written, and, where the body does not fit in one piece,
again right before the piece with the final dot. It runs inside the event loop and must not block."""

_CHUNK = 64 * 1024
"""Octets of a body that are handed over at once. The final dot rides in the last chunk, so that a connection
that breaks in the middle of a big body is known to have delivered nothing."""


def unobserved(_phase: TimedPhase, _seconds: float) -> None:
    """Observe nothing."""


class Wire(asyncio.Protocol):
    """Runs one exchange at a time on a transport that has been greeted, secured and authenticated already.

    Everything happens in the transport's callbacks, so that a transaction costs one wake-up of its task
    however many replies it has. A cut of any kind aborts the connection.
    """

    def __init__(self, transport: asyncio.Transport, deadlines: Deadlines, observe: Observe) -> None:
        self._transport = transport
        self._deadlines = deadlines
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._exchange: Exchange | None = None
        self._finished: asyncio.Future[None] | None = None
        self._body, self._body_size = memoryview(b""), 0
        self._on_body: OnBody | None = None
        self._writable = True
        self._lost = False
        self._timing: TimedPhase | None = None
        self._since = 0.0
        self._expires_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self.farewell: Reply | None = None
        """What the server said, unasked, before it closed: mostly a 421."""

    @property
    def is_open(self) -> bool:
        """Whether another exchange may be tried."""
        return not (self._lost or self.farewell is not None or self._transport.is_closing())

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None

    async def run(self, exchange: Exchange, body: bytes = b"", on_body: OnBody | None = None) -> None:
        """Run the exchange to its end, which may be a cut; nothing is raised for what the server does.

        If `on_body` raises, the final dot is not written, the connection is aborted, and the exception comes
        out of here. On cancellation the connection is aborted too.

        A body and the next envelope in one flight would have their place here: a second exchange, taken while
        the first one waits for its 354, started in the same write as the first one's body, and given the
        replies after the first's last. Some servers break on it.
        """
        if self._exchange is not None:
            raise RuntimeError("a session carries one transaction at a time")
        if not self.is_open:
            said = self.farewell
            kind = CutKind.LOST if said is None else CutKind.CLOSING
            exchange.interrupt(Cut(kind, exchange.phase, str(said or "the connection was closed"), said))
            return
        self._exchange = exchange
        self._body, self._body_size = memoryview(body), len(body)
        self._on_body = on_body
        self._timing = TimedPhase.ENVELOPE if body else None
        self._since = monotonic()
        self._finished = self._loop.create_future()
        self._transport.write(exchange.start())
        self._extend_deadline()
        try:
            await self._finished
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._exchange = self._finished = self._on_body = None
            self._body = memoryview(b"")

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
        """Bring replies to the exchange."""
        if self._lost:
            return
        replies: list[Reply] = []
        try:
            self._parser.feed_into(replies, data)
        except MalformedReplyError as error:
            self._take(replies)
            self._cut(CutKind.PROTOCOL, f"the server sent {error}")
            return
        if replies:
            self._take(replies)

    def eof_received(self) -> bool:
        """Let the transport close: a server that has nothing more to say takes no mail either."""
        self._cut(CutKind.LOST, "the server closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Cut the exchange under way."""
        self._gone.set()
        reason = "the connection was closed" if exc is None else f"the connection was lost: {exc}"
        self._cut(CutKind.LOST, reason)

    def pause_writing(self) -> None:
        """Hold the rest of a body back."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on with a body."""
        self._writable = True
        if self._exchange is not None and self._exchange.owes_body:
            self._write_body(self._exchange)
            self._extend_deadline()

    # Steps.

    def _take(self, replies: list[Reply]) -> None:
        exchange = self._exchange
        answered = False
        for reply in replies:
            if exchange is None or exchange.done:
                self._end(exchange)
                self._close_unasked(reply)
                return
            if answered and not reply.closing:
                # It came before what it would have to answer was written.
                self._cut(CutKind.PROTOCOL, f"a reply too many: {reply}")
                return
            answer = exchange.receive(reply)
            if answer:
                self._transport.write(answer)
                answered = True
            elif exchange.owes_body and not answered:
                self._begin_body(exchange)
                answered = True
        if exchange is None or self._lost:
            return
        if exchange.done:
            self._end(exchange)
        else:
            self._extend_deadline()

    def _begin_body(self, exchange: Exchange) -> None:
        self._lap(TimedPhase.DATA)
        if self._permitted():
            self._write_body(exchange)

    def _write_body(self, exchange: Exchange) -> None:
        in_one_piece = len(self._body) == self._body_size <= _CHUNK
        # A transport that broke takes, and drops, whatever it is given; its connection_lost comes later.
        while self._writable and not self._transport.is_closing():
            chunk, self._body = self._body[:_CHUNK], self._body[_CHUNK:]
            if self._body:
                self._transport.write(chunk)
            elif in_one_piece or self._permitted():
                exchange.body_written()
                self._transport.write(chunk)
                self._lap(TimedPhase.FINAL)
                return
            else:
                return

    def _permitted(self) -> bool:
        if self._on_body is None:
            return True
        try:
            self._on_body()
        except Exception as error:  # noqa: BLE001  # the caller's own; it gets it back from `run`
            self.abort()
            if self._finished is not None and not self._finished.done():
                self._finished.set_exception(error)
            return False
        return True

    def _end(self, exchange: Exchange | None) -> None:
        if exchange is None or self._finished is None or self._finished.done():
            return
        self._lap(None)
        if exchange.cut is not None:
            self.abort()
        self._finished.set_result(None)

    def _close_unasked(self, reply: Reply) -> None:
        """Close: the server is going away, or we are out of step with it."""
        self.farewell = reply
        self.close()

    def _cut(self, kind: CutKind, detail: str) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.done:
            exchange.interrupt(Cut(kind, exchange.phase, detail))
        self.abort()
        self._end(exchange)

    def _lap(self, following: TimedPhase | None) -> None:
        if self._timing is not None:
            now = monotonic()
            self._observe(self._timing, now - self._since)
            self._since = now
            self._timing = following

    # Deadlines: one timer that is moved only when it would come too late, since most never matter.

    def _extend_deadline(self) -> None:
        assert self._exchange is not None
        seconds = self._deadlines.seconds(self._exchange.phase)
        self._expires_at = self._loop.time() + seconds
        if self._watch is not None:
            if self._watch.when() <= self._expires_at:
                return
            self._watch.cancel()
        self._watch = self._loop.call_later(seconds, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._watch = None
        if self._exchange is None:
            return
        left = self._expires_at - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look_at_deadline)
            return
        seconds = self._deadlines.seconds(self._exchange.phase)
        self._cut(CutKind.DEADLINE, f"no reply within {seconds:g} s")

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
