"""The dialogue of one mail transaction, without I/O (RFC 5321 section 3.3, RFC 2920).

A `Dialogue` says what to write first, and for every reply, in order, what to write next. Whoever has the
connection writes and reads. So two can be laid end to end, one round trip a message: the body that one dialogue owes
and the opening of the next one in the same flight, the replies to the first until it is done (`series`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, assert_never

from tocsin_workers.smtp.body import LONE_DOT
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import BAD_SEQUENCE, START_INPUT

if TYPE_CHECKING:
    from tocsin_workers.smtp.envelope import Commands, LocalRefusal
    from tocsin_workers.smtp.replies import Reply


class CutKind(StrEnum):
    """Why a session ended in the middle."""

    LOST = "lost"
    """The connection broke or the server closed it without a word."""
    CLOSING = "closing"
    """The server said 421."""
    DEADLINE = "deadline"
    """The server took too long."""
    PROTOCOL = "protocol"
    """What the server said does not fit what was asked; its replies cannot be trusted any more."""
    ABORTED = "aborted"
    """We broke it off ourselves."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of a session in the middle of a transaction.

    `phase` is what we were waiting for. `reply` is the 421, if there was one.
    """

    kind: CutKind
    phase: Phase
    detail: str
    reply: Reply | None = None


class Transaction(NamedTuple):
    """All that became of one transaction.

    `mail`, `data` and `final` are the replies to MAIL, DATA and the final dot; None where none came or
    nothing was asked. `recipients` has an entry a recipient, in the envelope's order. `body_written` says
    that the final dot was handed to the connection: without a `final` nobody can tell then whether the
    message was accepted.
    """

    mail: Reply | LocalRefusal | None
    recipients: tuple[Reply | LocalRefusal | None, ...]
    data: Reply | None = None
    final: Reply | None = None
    body_written: bool = False
    cut: Cut | None = None


class Dialogue:
    """One mail transaction, from MAIL to the reply to the final dot.

    It leaves the session ready for the next MAIL, with a RSET or a lone dot where that takes one, or else
    cut.
    """

    __slots__ = (
        "_accepted",
        "_asked",
        "_body_written",
        "_commands",
        "_cut",
        "_data",
        "_final",
        "_mail",
        "_next",
        "_pipelined",
        "_recipients",
        "_state",
    )

    def __init__(self, commands: Commands, *, pipelined: bool) -> None:
        self._commands = commands
        self._pipelined = pipelined
        self._asked = commands.asked
        self._next = 0
        self._accepted = 0
        self._state = _State.MAIL
        self._mail: Reply | None = None
        self._recipients: list[Reply | LocalRefusal | None] = [None] * commands.count
        for place, refusal in commands.refused.items():
            self._recipients[place] = refusal
        self._data: Reply | None = None
        self._final: Reply | None = None
        self._body_written = False
        self._cut: Cut | None = None

    @property
    def phase(self) -> Phase:
        """What is being waited for."""
        return _PHASES[self._state]

    @property
    def owes_body(self) -> bool:
        """Whether the body has to be written now."""
        return self._state is _State.BODY

    @property
    def done(self) -> bool:
        """Whether no further reply belongs to this transaction."""
        return self._state is _State.DONE

    @property
    def cut(self) -> Cut | None:
        """Why it ended early, if it did."""
        return self._cut

    @property
    def result(self) -> Transaction:
        """What is known of the transaction so far."""
        return Transaction(self._mail, tuple(self._recipients), self._data, self._final, self._body_written, self._cut)

    def start(self) -> bytes:
        """Give MAIL, or where the server takes pipelining MAIL, every RCPT and DATA."""
        return self._commands.flight() if self._pipelined else self._commands.mail

    def body_written(self) -> None:
        """Take note that the final dot is about to be written: from now on a lost connection is a doubt."""
        assert self._state is _State.BODY
        self._body_written = True
        self._state = _State.FINAL

    def receive(self, reply: Reply) -> bytes:
        """Take the next reply and give what to write now.

        After a 421 the dialogue is done and cut: the server closes (RFC 5321 section 3.8).
        """
        self._keep(reply)
        if reply.closing:
            self.interrupt(Cut(CutKind.CLOSING, self.phase, str(reply), reply))
            return b""
        if self._is_out_of_step(reply):
            return self._confused(reply)
        return self._answer(reply)

    def receive_welcomes(self, replies: list[Reply], start: int) -> int:
        """Take the replies from `start` on where they are the same yes to pipelined recipients; give how many.

        It does what `receive` does for each of them: most envelopes are answered in this way, and in one go.
        """
        count = min(len(self._asked) - self._next, len(replies) - start)
        if self._state is not _State.RCPT or not self._pipelined or count < _WORTH_A_LOOK:
            return 0
        first, run = replies[start], replies[start : start + count]
        if not first.accepted or run.count(first) != count:
            return 0
        for place in self._asked[self._next : self._next + count]:
            self._recipients[place] = first
        self._next += count
        self._accepted += count
        if self._next == len(self._asked):
            self._state = _State.DATA
        return count

    def interrupt(self, cut: Cut) -> None:
        """Take note that no further reply will come; what has come stays."""
        self._cut = cut
        self._state = _State.DONE

    def _keep(self, reply: Reply) -> None:
        match self._state:
            case _State.RCPT:
                self._recipients[self._asked[self._next]] = reply
                self._accepted += reply.accepted
                self._next += 1
            case _State.MAIL:
                self._mail = reply
            case _State.DATA:
                self._data = reply
            case _State.BODY:
                # The server has not seen the whole body: it may have refused it, not accepted it.
                self._final = None if reply.accepted or _is_odd(reply) else reply
            case _State.FINAL:
                self._final = None if _is_odd(reply) else reply
            case _State.LONE_DOT | _State.RSET:
                pass
            case _State.DONE:
                raise AssertionError("a reply after the end of the dialogue")
            case _:
                assert_never(self._state)

    def _is_out_of_step(self, reply: Reply) -> bool:
        """Tell whether this reply shows that the server does not see the session where we see it.

        Then the next MAIL could be the server's second in one transaction: only a new connection makes that sure.
        """
        match self._state:
            case _State.MAIL:
                return _is_odd(reply) or reply.code == BAD_SEQUENCE
            case _State.RSET:
                return not reply.accepted
            case _State.DATA:
                return False
            case _:
                return _is_odd(reply)

    def _answer(self, reply: Reply) -> bytes:
        match self._state:
            case _State.RCPT:
                return self._after_rcpt()
            case _State.MAIL:
                return self._after_mail(reply)
            case _State.DATA:
                return self._after_data(reply)
            case _State.BODY:
                # Out of step: the rest of the body would be read as commands.
                return self._confused(reply)
            case _State.FINAL | _State.LONE_DOT | _State.RSET:
                self._state = _State.DONE
                return b""
            case _State.DONE:
                return b""
            case _:
                assert_never(self._state)

    def _after_mail(self, reply: Reply) -> bytes:
        if self._pipelined:
            self._state = _State.RCPT
            return b""
        if not reply.accepted:
            self._state = _State.DONE
            return b""
        self._state = _State.RCPT
        return self._rcpt()

    def _after_rcpt(self) -> bytes:
        if self._next < len(self._asked):
            return b"" if self._pipelined else self._rcpt()
        if self._pipelined:
            self._state = _State.DATA
            return b""
        if not self._accepted:
            return self._reset()
        self._state = _State.DATA
        return b"DATA\r\n"

    def _after_data(self, reply: Reply) -> bytes:
        welcome = self._mail is not None and self._mail.accepted
        if reply.code == START_INPUT:
            if welcome and self._accepted:
                self._state = _State.BODY
                return b""
            if self._accepted:
                # The sender was refused, a recipient was not: a lone dot could send them an empty message.
                return self._confused(reply)
            self._state = _State.LONE_DOT
            return LONE_DOT
        if reply.accepted or _is_odd(reply):
            return self._confused(reply)
        if welcome or self._accepted:
            return self._reset()
        self._state = _State.DONE
        return b""

    def _rcpt(self) -> bytes:
        return self._commands.rcpt(self._asked[self._next])

    def _reset(self) -> bytes:
        self._state = _State.RSET
        return b"RSET\r\n"

    def _confused(self, reply: Reply) -> bytes:
        self.interrupt(Cut(CutKind.PROTOCOL, self.phase, f"unexpected reply: {reply}"))
        return b""


_WORTH_A_LOOK = 3


class _State(StrEnum):
    """Whose reply is next."""

    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    FINAL = "final"
    LONE_DOT = "lone dot"
    RSET = "rset"
    DONE = "done"


_PHASES = {
    _State.MAIL: Phase.MAIL,
    _State.RCPT: Phase.RCPT,
    _State.DATA: Phase.DATA,
    _State.BODY: Phase.BODY,
    _State.FINAL: Phase.FINAL,
    _State.LONE_DOT: Phase.RSET,
    _State.RSET: Phase.RSET,
    _State.DONE: Phase.FINAL,
}


def _is_odd(reply: Reply) -> bool:
    """Tell whether the reply is 3yz where only a yes or a no makes sense."""
    return 300 <= reply.code < 400  # noqa: PLR2004  # RFC 5321 section 4.2.1
