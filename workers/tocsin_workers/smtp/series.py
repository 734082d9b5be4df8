"""Messages one behind the other over one connection: whose turn it is and what to write, without I/O (RFC 2920)."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from tocsin_workers.smtp.body import LONE_DOT
from tocsin_workers.smtp.dialogue import Cut, CutKind, Dialogue, Transaction
from tocsin_workers.smtp.envelope import LocalRefusal, commands
from tocsin_workers.smtp.phases import Phase, TimedPhase
from tocsin_workers.smtp.pipelining import Pipelining

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tocsin_workers.smtp.capabilities import Capabilities
    from tocsin_workers.smtp.envelope import Envelope
    from tocsin_workers.smtp.pipelining import PipeliningWatch
    from tocsin_workers.smtp.replies import Reply

CHUNK = 64 * 1024
"""Octets of a body that are handed over at once. The final dot rides in the last chunk, so that a connection
that breaks in the middle of a big body is known to have delivered nothing."""


class Delivery(Protocol):
    """One message on its way. All of it is called from inside the event loop and must not block."""

    @property
    def envelope(self) -> Envelope:
        """Who sends to whom."""
        ...

    def begin_body(self) -> bytes:
        """Give the octets to write after the 354 (`body.to_wire`); called right before the first one is written.

        Where it raises, the final dot is not written, the connection is aborted, and the exception comes out of
        `Session.deliver`.
        """
        ...

    def may_end_body(self) -> None:
        """Raise where the final dot must not be written; for a body of several pieces, right before the last one."""
        ...

    def done(self, transaction: Transaction) -> None:
        """Take what became of it: once for each message that was asked for, in order, however the session ends.

        One that cannot be sent on this server is told so at once, while the one before it may still be under way.
        A cut of the kind `ABORTED` says that we broke the connection off.
        """
        ...


class _UnderWay:
    """A message that was begun. `was_behind`: its envelope was written behind a body."""

    __slots__ = ("delivery", "dialogue", "was_behind")

    def __init__(self, delivery: Delivery, dialogue: Dialogue, *, was_behind: bool) -> None:
        self.delivery = delivery
        self.dialogue = dialogue
        self.was_behind = was_behind


class Counters:
    """What a session has carried so far; a pool recycles by them.

    `bodies` are the messages whose final dot was written, `recipients` those that were asked for.
    """

    __slots__ = ("bodies", "recipients", "transactions")

    def __init__(self) -> None:
        self.transactions = 0
        self.bodies = 0
        self.recipients = 0


class Series:
    """A talk (see `wire.Talk`) that carries messages until there are no more of them, or the session ends.

    The next delivery is asked for when its envelope may be written: after the last one is done, and with FULL when
    the last one's body is about to go, so that both go in one flight. The replies belong to the first until it is
    done. An exception of the deliveries' own iterator ends the series like its end, and is raised afterwards.
    """

    __slots__ = (
        "_answer",
        "_behind",
        "_counters",
        "_deliveries",
        "_is_exhausted",
        "_now",
        "_observe",
        "_offered",
        "_rest",
        "_since",
        "_timing",
        "_watch",
        "error",
        "is_broken",
        "is_finished",
        "unasked",
    )

    def __init__(
        self,
        deliveries: Iterator[Delivery],
        offered: Capabilities,
        *,
        watch: PipeliningWatch,
        counters: Counters,
        observe: Callable[[TimedPhase, float], None],
    ) -> None:
        self._deliveries = deliveries
        self._offered = offered
        self._watch = watch
        self._counters = counters
        self._observe = observe
        self._now: _UnderWay | None = None
        self._behind: _UnderWay | None = None
        self._answer = b""
        self._rest: memoryview | None = None
        self._is_exhausted = False
        self._timing: TimedPhase | None = None
        self._since = 0.0
        self.is_finished = False
        self.is_broken = False
        """Whether the connection is of no further use."""
        self.unasked: Reply | None = None
        """What the server said when nothing was asked."""
        self.error: Exception | None = None
        """What a delivery or the iterator raised."""

    @property
    def phase(self) -> Phase:
        """What is being waited for."""
        return Phase.MAIL if self._now is None else self._now.dialogue.phase

    def hear(self, replies: list[Reply]) -> None:
        """Take the replies that have come, before anything more is written."""
        place = 0
        while place < len(replies) and not self.is_finished:
            now, reply = self._now, replies[place]
            if now is None:
                self._hear_unasked(reply)
            elif self._answer and not reply.closing:
                # It came before what it would have to answer was written.
                self.interrupt(CutKind.PROTOCOL, f"a reply too many: {reply}")
            elif welcomes := now.dialogue.receive_welcomes(replies, place):
                place += welcomes
                continue
            else:
                self._answer = now.dialogue.receive(reply)
                if now.dialogue.done:
                    self._end(now)
            place += 1

    def flight(self) -> bytes | memoryview:
        """Give what to write now; nothing where it is the server's turn, or where the series has finished."""
        now = self._now
        if now is None:
            return self._open()
        if self._answer:
            answer, self._answer = self._answer, b""
            return answer
        if now.dialogue.owes_body:
            return self._body(now)
        return b""

    def interrupt(self, kind: CutKind, detail: str, reply: Reply | None = None) -> None:
        """Take note that no further reply will come: what is under way is cut, and told."""
        if self.is_finished:
            return
        self.is_finished = self.is_broken = True
        now, behind = self._now, self._behind
        self._now = self._behind = self._rest = None
        self._answer = b""
        self._lap(None)
        for under_way in (now, behind):
            if under_way is None:
                continue
            dialogue = under_way.dialogue
            if dialogue.cut is None:
                dialogue.interrupt(Cut(kind, dialogue.phase, detail, reply))
            self._tell(under_way, is_followed=under_way is now and behind is not None)

    # Steps.

    def _open(self) -> bytes:
        """Begin the next message, or finish."""
        if self.is_finished:
            return b""
        self._now = now = self._pull(was_behind=False)
        if now is None:
            self.is_finished = True
            return b""
        self._since, self._timing = monotonic(), TimedPhase.ENVELOPE
        return now.dialogue.start()

    def _body(self, now: _UnderWay) -> bytes | memoryview:
        """Give the next piece of the body that is owed; a small one is one piece."""
        piece: bytes | memoryview | None = self._rest
        try:
            if piece is None:
                self._lap(TimedPhase.DATA)
                piece = now.delivery.begin_body()
                if piece[-len(LONE_DOT) :] != LONE_DOT:
                    # What comes behind it would be taken for a part of it.
                    raise ValueError("a body without its final dot: it has to come from to_wire")  # noqa: TRY301
            elif len(piece) <= CHUNK:
                now.delivery.may_end_body()
        except Exception as error:  # noqa: BLE001  # the caller's own; it gets it back from `deliver`
            self._fail(error)
            return b""
        if len(piece) > CHUNK:
            whole = memoryview(piece)
            self._rest = whole[CHUNK:]
            return whole[:CHUNK]
        return self._end_of_body(now, piece)

    def _end_of_body(self, now: _UnderWay, piece: bytes | memoryview) -> bytes | memoryview:
        self._rest = None
        behind = self._pull(was_behind=True) if self._watch.form is Pipelining.FULL else None
        if self.is_finished:
            return b""
        now.dialogue.body_written()
        self._lap(TimedPhase.FINAL)
        if behind is None:
            return piece
        self._behind = behind
        return b"".join((piece, behind.dialogue.start()))

    def _pull(self, *, was_behind: bool) -> _UnderWay | None:
        """Take the next message that the server can be asked to take, if there is one."""
        limit = self._offered.transactions_limit
        while not (self._is_exhausted or self.is_finished):
            if limit is not None and self._counters.transactions >= limit:
                # MAILMAX (RFC 9422): one more would be refused, and is for another session.
                break
            try:
                delivery = next(self._deliveries)
                envelope = delivery.envelope
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001  # raised when what is under way is done
                self.error = error
                break
            built = commands(envelope, self._offered)
            if not isinstance(built, LocalRefusal):
                self._counters.transactions += 1
                self._counters.recipients += len(envelope.recipients)
                dialogue = Dialogue(built, pipelined=self._watch.form is not Pipelining.OFF)
                return _UnderWay(delivery, dialogue, was_behind=was_behind)
            self._hand_over(delivery, Transaction(built, (built,) * len(envelope.recipients)))
        self._is_exhausted = True
        return None

    def _end(self, now: _UnderWay) -> None:
        """Tell what became of the first message; the one behind it, if there is one, is the first now."""
        cut = now.dialogue.cut
        if cut is None:
            behind = self._behind
            self._now, self._behind = behind, None
            self._lap(None if behind is None else TimedPhase.ENVELOPE)
            self._tell(now, is_followed=behind is not None)
        else:
            self.interrupt(cut.kind, cut.detail, cut.reply)

    def _hear_unasked(self, reply: Reply) -> None:
        """Stop: the server is going away, or we are out of step with it."""
        self.unasked = reply
        self.is_finished = True

    def _tell(self, under_way: _UnderWay, *, is_followed: bool) -> None:
        transaction = under_way.dialogue.result
        self._counters.bodies += transaction.body_written
        self._watch.look(transaction, was_behind=under_way.was_behind, is_followed=is_followed)
        self._hand_over(under_way.delivery, transaction)

    def _hand_over(self, delivery: Delivery, transaction: Transaction) -> None:
        try:
            delivery.done(transaction)
        except Exception as error:  # noqa: BLE001  # the caller's own; it gets it back from `deliver`
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
        self.interrupt(CutKind.ABORTED, "we broke it off")

    def _lap(self, following: TimedPhase | None) -> None:
        now = monotonic()
        if self._timing is not None:
            self._observe(self._timing, now - self._since)
        self._since, self._timing = now, following
