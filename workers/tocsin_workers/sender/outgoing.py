"""A window of messages on its way over one session, and what the replies come to.

The session asks for one message after the other and tells what became of each, in its callbacks: nothing here waits.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from tocsin_workers import metrics
from tocsin_workers.outcomes import MessageVerdict, Verdict, judge
from tocsin_workers.sender import reacting
from tocsin_workers.sender.claiming import key_of
from tocsin_workers.sender.lease import lease_clock
from tocsin_workers.sender.settling import settle, settle_in_doubt
from tocsin_workers.smtp.dialogue import CutKind
from tocsin_workers.smtp.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tocsin_schema.ledger.sending import ClaimedBatch, SenderProfile
    from tocsin_workers.outcomes import Judgement
    from tocsin_workers.sender.claiming import Claim
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.marks import Mark
    from tocsin_workers.sender.preparing import PreparedMessage
    from tocsin_workers.sender.recording import MessageOutcome
    from tocsin_workers.sender.reserving import ReservedSlots
    from tocsin_workers.smtp.dialogue import Transaction
    from tocsin_workers.smtp.envelope import Envelope
    from tocsin_workers.smtp.replies import Reply


#: What a provider counts, as far as we know.
_TAKEN = (Verdict.SENT, Verdict.UNKNOWN)


class LeaseLostError(Exception):
    """Our lease may have lapsed: no body may be written any more."""


class StoppedError(Exception):
    """A job, a profile or all sending was stopped before this message's body was begun."""


class OutgoingWindow:
    """Messages that were marked together, in the order in which they go, and what was learned on the way.

    `unbegun` are those whose bodies are not begun, `stopped` those that a mark did not cover. `reaction` is what a
    reply asks for that concerns more than its own message; from then on no further message is begun. `cap_is_new` says
    that what is prepared is too large for what was just learned of the server.
    """

    def __init__(
        self,
        desk: SenderDesk,
        profile: SenderProfile,
        claim: Claim,
        messages: Sequence[PreparedMessage],
        *,
        mark: Mark,
        slots: ReservedSlots | None,
    ) -> None:
        self.mark = mark
        self.unbegun = list(messages)
        self.untried = len(messages)
        """How many are still to be begun; they are the last of those whose bodies are not begun."""
        self.stopped: list[PreparedMessage] = []
        self.reaction: reacting.Reaction | None = None
        self.cap_is_new = False
        self.last: Transaction | None = None
        self._desk = desk
        self._profile = profile
        self._claim = claim
        self._slots = slots
        self._place = 0
        self._counted: defaultdict[int, Counter[Verdict]] = defaultdict(Counter)
        """Recipients by job number."""
        self._outcomes: Counter[MessageVerdict] = Counter()
        self._replies: Counter[int] = Counter()
        """By code."""
        self._accepted: tuple[ClaimedBatch, float] | None = None
        """The batch of the message that was accepted last, and when, by `monotonic`."""
        self._fenced = 0

    @property
    def goes_on(self) -> bool:
        """Whether another message may be begun."""
        return (
            self.untried > 0
            and self.reaction is None
            and not self.cap_is_new
            and not self._desk.stopping.is_set()
            and not self._is_late
        )

    @property
    def waiting_seconds(self) -> float:
        """How long until the time slot of the next message."""
        return 0.0 if self._slots is None else max(0.0, self._slots.due_at(self._place) - monotonic())

    @property
    def untried_messages(self) -> Sequence[PreparedMessage]:
        """Give those that are still to be begun."""
        return self.unbegun[len(self.unbegun) - self.untried :]

    def messages(self) -> Iterator[OutgoingMessage]:
        """Give one after the other, until there is something to wait for: a time slot, or a fresh mark.

        The first one goes by the mark that there is: fresher ones were asked for in vain, or it has just come.
        """
        is_first = True
        while self.goes_on and not self.waiting_seconds and (is_first or not self.mark.is_old):
            is_first = False
            message = self.unbegun[-self.untried]
            self.untried -= 1
            self._place += 1
            if self.mark.covers(message):
                yield OutgoingMessage(self, message)
            else:
                self.unbegun.remove(message)
                self.stopped.append(message)

    def take_mark(self, mark: Mark) -> None:
        """Go by another mark."""
        self.mark = mark

    def begin_body(self, message: PreparedMessage) -> None:
        """Let a body begin. Raises LeaseLostError or StoppedError where it must not any more."""
        self.check_lease()
        if not self.mark.covers(message):
            raise StoppedError
        self.unbegun.remove(message)

    def check_lease(self) -> None:
        """Raise LeaseLostError where a body must not go out."""
        if self._desk.lease.generation != self._claim.generation or not self._desk.lease.holds(lease_clock()):
            self._fenced += 1
            raise LeaseLostError

    def finish(self, message: PreparedMessage, transaction: Transaction) -> None:
        """Judge what became of a message and hand it to the recorder.

        Whatever happens once its body was written, an outcome is handed over: else the message would be sent again.
        """
        self.last = transaction
        if message in self.unbegun:
            # It ended without a body: nobody shall mark it again.
            self.unbegun.remove(message)
        if transaction.cut is not None and transaction.cut.kind is CutKind.ABORTED:
            if transaction.body_written:
                self._doubt(message, "the worker stopped before the server had replied")
            return
        try:
            judgement = judge(transaction)
            outcome = settle(
                message,
                judgement,
                self._profile,
                schedule=self._desk.schedule,
                jitter=random.random,
                accepted_at=datetime.now(UTC),
            )
        except Exception:
            if transaction.body_written:
                self._doubt(message, "the server's reply could not be judged")
            raise
        self._hand_over(message, outcome)
        self._count(message, judgement)
        cap = judgement.recipients_cap
        if cap is not None:
            self._desk.learn_cap(self._profile, cap)
            # Others may have learned it before us: what counts is what we have prepared.
            self.cap_is_new |= len(message.recipients) > self._desk.largest_transaction(self._profile)
        if judgement.signals and self.reaction is None:
            self.reaction = _reaction_to(judgement)

    def tell_counts(self, began_at: int) -> None:
        """Count what became of the window's messages, which were on their way since `began_at` (`time.time_ns`)."""
        self._claim.tally.count_window(began_at, self._counted)
        for counted in self._counted.values():
            for verdict, count in counted.items():
                metrics.RECIPIENTS.labels(self._profile.name, verdict).inc(count)
        for outcome, count in self._outcomes.items():
            metrics.MESSAGES.labels(self._profile.name, outcome).inc(count)
        metrics.count_replies(self._profile.name, self._replies)
        if self._accepted is not None:
            batch, accepted_at = self._accepted
            waited = accepted_at - self._claim.made_at
            metrics.observe_acceptance(
                batch.rank, since_published=batch.since_published + waited, since_due=batch.since_due + waited
            )
        if self._fenced:
            metrics.DUPLICATES_AVOIDED.labels("fenced").inc(self._fenced)

    @property
    def _is_late(self) -> bool:
        """Whether the next message has missed its time slot, and has to wait for another one."""
        return self._slots is not None and self._slots.is_lapsed(self._place, monotonic())

    def _doubt(self, message: PreparedMessage, reason: str) -> None:
        self._hand_over(message, settle_in_doubt(message, reason, schedule=self._desk.schedule))
        self._counted[message.batch.job_number][Verdict.UNKNOWN] += len(message.recipients)
        self._outcomes[MessageVerdict.UNKNOWN] += 1

    def _hand_over(self, message: PreparedMessage, outcome: MessageOutcome) -> None:
        self._claim.committed.append((key_of(message.batch), self._desk.recorder.put(outcome)))
        due = [row.due_in_seconds for row in outcome.exceptions if row.due_in_seconds is not None]
        self._claim.settle(key_of(message.batch), len(message.recipients), due)

    def _count(self, message: PreparedMessage, judgement: Judgement) -> None:
        now = monotonic()
        taken = 0
        shared: Reply | None = None
        counted = self._counted[message.batch.job_number]
        for recipient in judgement.recipients:
            counted[recipient.verdict] += 1
            taken += recipient.verdict in _TAKEN
            if (reply := recipient.reply) is None:
                continue
            if recipient.phase is Phase.RCPT:
                self._replies[reply.code] += 1
            else:
                shared = reply
        if shared is not None:
            # To MAIL, DATA or the final dot: there is one for all.
            self._replies[shared.code] += 1
        if taken:
            self._desk.traffic.count(self._profile.mailbox_id, recipients=taken, now=now)
        verdicts = {recipient.verdict for recipient in judgement.recipients}
        if Verdict.SENT in verdicts:
            self._accepted = (message.batch, now)
            self._outcomes[MessageVerdict.ACCEPTED] += 1
        elif Verdict.UNKNOWN in verdicts:
            self._outcomes[MessageVerdict.UNKNOWN] += 1
        else:
            self._outcomes[MessageVerdict.REFUSED if judgement.cut is None else MessageVerdict.CUT] += 1


class OutgoingMessage:
    """One message of a window, as a session sees it (`smtp.series.Delivery`)."""

    __slots__ = ("_message", "_window")

    def __init__(self, window: OutgoingWindow, message: PreparedMessage) -> None:
        self._window = window
        self._message = message

    @property
    def envelope(self) -> Envelope:
        """Who sends to whom."""
        return self._message.envelope

    def begin_body(self) -> bytes:
        """Give the body, if it may still begin."""
        self._window.begin_body(self._message)
        return self._message.wire

    def may_end_body(self) -> None:
        """Let a long body end, if our lease still holds."""
        self._window.check_lease()

    def done(self, transaction: Transaction) -> None:
        """Take what became of it."""
        self._window.finish(self._message, transaction)


def _reaction_to(judgement: Judgement) -> reacting.Reaction | None:
    """Give the first answer that one of the replies asks for."""
    for recipient in judgement.recipients:
        if recipient.outcome is None or recipient.outcome not in judgement.signals:
            continue
        reaction = reacting.to_refusal(recipient.outcome, recipient.reason)
        if reaction is not None:
            return reaction
    return None
