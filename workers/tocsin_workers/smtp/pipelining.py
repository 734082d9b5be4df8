"""How many commands may be under way at once, and what to fall back to where a server breaks on it (RFC 2920)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from tocsin_workers.smtp.dialogue import CutKind
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import BAD_SEQUENCE, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_workers.smtp.dialogue import Transaction


class Pipelining(StrEnum):
    """How many commands may be under way at once. A server that does not offer PIPELINING gets one."""

    FULL = "full"
    """A body and the next envelope in one flight: one round trip a message, however many recipients. Some servers
    break on it (Dovecot 2.3), and then the reply to the body is lost."""
    ENVELOPE = "envelope"
    """MAIL, every RCPT and DATA in one flight: two round trips a message, however many recipients."""
    OFF = "off"
    """One command at a time."""


class Strain(StrEnum):
    """How a session showed that its server may not cope with what is pipelined."""

    FINAL_REPLY_LOST = "final reply lost"
    """A body was not answered as it should, and the next envelope was out behind it."""
    BEHIND_UNANSWERED = "behind unanswered"
    """The body was answered, the envelope behind it never was."""
    BEHIND_OUT_OF_STEP = "behind out of step"
    """The replies to an envelope behind a body did not fit its commands."""
    ENVELOPE_OUT_OF_STEP = "envelope out of step"
    """The replies to an envelope in one flight of its own did not fit its commands."""


class Strained(NamedTuple):
    """A strain, and whether the same session had carried the same form before, so that it may be an accident."""

    strain: Strain
    had_worked: bool


def strain_of(transaction: Transaction, *, was_behind: bool, is_followed: bool) -> Strain | None:
    """Tell what a transaction with a pipelined envelope says against pipelining; mostly nothing.

    `was_behind` says that its envelope was written behind a body, `is_followed` that the next one was behind its own.
    A 421 says nothing: the server closes in good order. Nor does a connection that we broke off.
    """
    cut = transaction.cut
    if cut is not None and cut.kind in {CutKind.CLOSING, CutKind.ABORTED}:
        return None
    if is_followed:
        is_answered = cut is None and transaction.final is not None and transaction.final.code != BAD_SEQUENCE
        return None if is_answered else Strain.FINAL_REPLY_LOST
    if _is_out_of_step(transaction):
        return Strain.BEHIND_OUT_OF_STEP if was_behind else Strain.ENVELOPE_OUT_OF_STEP
    if was_behind and cut is not None and transaction.mail is None:
        return Strain.BEHIND_UNANSWERED
    return None


def _is_out_of_step(transaction: Transaction) -> bool:
    """Whether there was a reply too many or too few, or one that says that the command came out of sequence."""
    cut = transaction.cut
    if cut is not None and cut.phase in {Phase.MAIL, Phase.RCPT, Phase.DATA}:
        if cut.kind is CutKind.PROTOCOL:
            return True
        if cut.kind is CutKind.DEADLINE and transaction.mail is not None:
            return True
    mail = transaction.mail
    if not isinstance(mail, Reply) or not mail.accepted:
        # Without a sender, every other command is out of sequence.
        return False
    asked = [reply for reply in transaction.recipients if isinstance(reply, Reply)]
    if any(reply.code == BAD_SEQUENCE for reply in asked):
        return True
    data = transaction.data
    return data is not None and data.code == BAD_SEQUENCE and any(reply.accepted for reply in asked)


class PipeliningWatch:
    """What one session shows of how its server copes.

    `form` is what the session uses; `strained` the first strain, if there was one.
    """

    __slots__ = ("_behind_worked", "_envelope_worked", "form", "strained")

    def __init__(self, form: Pipelining) -> None:
        self.form = form
        self.strained: Strained | None = None
        self._envelope_worked = False
        self._behind_worked = False

    @property
    def has_worked(self) -> bool:
        """Whether a message went through in the session's own form."""
        return self._behind_worked if self.form is Pipelining.FULL else self._envelope_worked

    def look(self, transaction: Transaction, *, was_behind: bool, is_followed: bool) -> None:
        """Take note of a transaction that has ended; `was_behind` and `is_followed` as in `strain_of`."""
        final = transaction.final
        if transaction.cut is None and final is not None and final.code != BAD_SEQUENCE:
            self._envelope_worked = True
            self._behind_worked = self._behind_worked or was_behind
        elif self.form is not Pipelining.OFF and self.strained is None:
            strain = strain_of(transaction, was_behind=was_behind, is_followed=is_followed)
            if strain is not None:
                had_worked = self._envelope_worked if strain is Strain.ENVELOPE_OUT_OF_STEP else self._behind_worked
                self.strained = Strained(strain, had_worked)


_ENOUGH: Final = 2
#: Two doubts in a row, or one that leaves none, and the next more cautious form is used. What is lost with FULL is
#: the reply to a body, so the first time is enough. A server that hangs up after a message or two does so with an
#: envelope behind it as well; and one that has taken envelopes in one flight can, whatever it says later.
_WEIGHTS: Final[Mapping[Strained, int]] = MappingProxyType(
    {
        Strained(Strain.FINAL_REPLY_LOST, had_worked=False): 2,
        Strained(Strain.FINAL_REPLY_LOST, had_worked=True): 1,
        Strained(Strain.BEHIND_OUT_OF_STEP, had_worked=False): 2,
        Strained(Strain.BEHIND_OUT_OF_STEP, had_worked=True): 1,
        Strained(Strain.BEHIND_UNANSWERED, had_worked=False): 1,
        Strained(Strain.BEHIND_UNANSWERED, had_worked=True): 0,
        Strained(Strain.ENVELOPE_OUT_OF_STEP, had_worked=False): 1,
        Strained(Strain.ENVELOPE_OUT_OF_STEP, had_worked=True): 0,
    }
)
_CAUTION: Final = (Pipelining.FULL, Pipelining.ENVELOPE, Pipelining.OFF)


@dataclass(frozen=True, slots=True)
class PipeliningRecord:
    """What is remembered of a mailbox's server from one session to the next.

    `boldest` is the boldest form that it has not broken on, `doubts` what speaks against that one.
    """

    boldest: Pipelining = Pipelining.FULL
    doubts: int = 0

    def allowed(self, wanted: Pipelining) -> Pipelining:
        """Give the more cautious of what is wanted and what works."""
        return max(wanted, self.boldest, key=_CAUTION.index)

    def after(self, seen: PipeliningWatch) -> PipeliningRecord:
        """Give the record after a session that has ended; to be asked once a session."""
        if seen.strained is None:
            return PipeliningRecord(self.boldest) if self.doubts and seen.has_worked else self
        if seen.form != self.allowed(seen.form):
            return self  # it was opened before we knew
        doubts = self.doubts + _WEIGHTS[seen.strained]
        if doubts < _ENOUGH:
            return PipeliningRecord(self.boldest, doubts)
        return PipeliningRecord(_CAUTION[_CAUTION.index(seen.form) + 1])
