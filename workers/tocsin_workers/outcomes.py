"""What became of every recipient of one transaction: a pure judgement over its replies.

MAIL refused                       everybody gets the outcome of MAIL
RCPT refused                       that recipient gets the outcome of their own reply, nobody else
452 too many recipients            deferred without cost; the rest goes on, and the cap is learned
DATA refused                       everybody who was accepted gets its outcome
a reply to the final dot           everybody who was accepted gets its outcome
… that blames an address           with more than one accepted: deferred, to be sent alone (never for spam)
connection lost before the dot     deferred: the message cannot have been accepted
… after the dot, without a reply   unknown
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, assert_never

from msgspec import Struct

from tocsin_schema.errors import Scope
from tocsin_workers.classification import Kind, Outcome, classify
from tocsin_workers.smtp.envelope import LocalRefusal
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import START_INPUT, Reply

if TYPE_CHECKING:
    from tocsin_workers.smtp.dialogue import Cut, Transaction


class Verdict(StrEnum):
    """What to record of a recipient."""

    SENT = "sent"
    FAILED = "failed"
    DEFERRED = "deferred"
    """Not sent; to be tried again."""
    UNKNOWN = "unknown"
    """The body was written and no reply came."""


class MessageVerdict(StrEnum):
    """What a try of a message came to; also the `outcome` label of `tocsin_messages_total`."""

    ACCEPTED = "accepted"
    """For at least one recipient."""
    REFUSED = "refused"
    UNKNOWN = "unknown"
    CUT = "cut"
    """The session ended before the body."""


class RecipientOutcome(NamedTuple):
    """What became of one recipient.

    `position` is the place in the envelope. `phase` and `reply` are what decided; `reply` is None where the
    server said nothing. `outcome` is the reply's classification, None without a reply. `reason` is for
    people.

    `costs_attempt` says whether this counts as a try of this recipient: a throttle, or a session that broke
    before anything was asked, does not. `alone` says that the next try has to be a transaction of its own.
    """

    position: int
    verdict: Verdict
    phase: Phase
    reply: Reply | None
    outcome: Outcome | None
    reason: str
    costs_attempt: bool = True
    alone: bool = False


class Judgement(Struct, frozen=True):
    """What became of a transaction.

    `recipients` has one entry a recipient, in the envelope's order. `signals` are the outcomes that concern
    more than this message, for the budget and the profile: those whose scope is the mailbox or the session,
    and refused senders; each once. `recipients_cap` is the number of recipients that the server takes in one
    transaction, if it was learned here. `cut` is set where the session ended.
    """

    recipients: tuple[RecipientOutcome, ...]
    signals: tuple[Outcome, ...] = ()
    recipients_cap: int | None = None
    cut: Cut | None = None


def judge(transaction: Transaction) -> Judgement:
    """Tell what became of every recipient."""
    if (judgement := _all_sent(transaction)) is not None:
        return judgement
    accepted = sum(_is_accepted(reply) for reply in transaction.recipients)
    after_rcpt = _after_rcpt(transaction, accepted)
    shared = after_rcpt[1:]
    welcome = _is_accepted(transaction.mail)
    recipients = tuple(
        RecipientOutcome(index, *shared) if welcome and _is_accepted(reply) else _before_data(transaction, index, reply)
        for index, reply in enumerate(transaction.recipients)
    )
    exceptions = [recipient for recipient in recipients if recipient.verdict is not Verdict.SENT]
    cap = _cap(transaction, exceptions, accepted)
    if all(map(_was_too_many, recipients)) and (cap is None or cap >= len(recipients)):
        # Nobody is settled, and the next transaction would be as big: "at once" would go round for ever.
        recipients = tuple(recipient._replace(costs_attempt=True) for recipient in recipients)
    return Judgement(recipients, _signals(exceptions), cap, transaction.cut)


def _all_sent(transaction: Transaction) -> Judgement | None:
    """Judge the way that nearly every message goes, in which nothing but the reply to the dot counts."""
    final = transaction.final
    if final is None or not transaction.body_written or transaction.cut is not None or not final.accepted:
        return None
    if not (_is_accepted(transaction.mail) and all(map(_is_accepted, transaction.recipients))):
        return None
    outcome = classify(Phase.FINAL, final)
    if outcome.kind is not Kind.ACCEPTED:
        return None
    return Judgement(
        tuple(
            RecipientOutcome(index, Verdict.SENT, Phase.FINAL, final, outcome, final.text)
            for index in range(len(transaction.recipients))
        )
    )


def _before_data(transaction: Transaction, index: int, reply: Reply | LocalRefusal | None) -> RecipientOutcome:
    """Judge a recipient that was not accepted."""
    mail = transaction.mail
    if isinstance(reply, LocalRefusal):
        return RecipientOutcome(index, Verdict.FAILED, Phase.RCPT, None, None, reply.text)
    if isinstance(mail, LocalRefusal):
        return RecipientOutcome(index, Verdict.FAILED, Phase.MAIL, None, None, mail.text)
    if mail is not None and not mail.accepted:
        return _by_reply(index, Phase.MAIL, mail)
    if reply is None:
        return _cut_off(transaction, index, asked=mail is not None)
    return _by_reply(index, Phase.RCPT, reply)


def _after_rcpt(transaction: Transaction, accepted: int) -> RecipientOutcome:
    """Judge what all accepted recipients share; the index is filled in later."""
    if transaction.final is not None:
        # A server that speaks before it has seen the dot has accepted nothing.
        phase = Phase.FINAL if transaction.body_written else Phase.BODY
        return _by_reply(-1, phase, transaction.final, among=accepted)
    if transaction.body_written:
        return RecipientOutcome(-1, Verdict.UNKNOWN, Phase.FINAL, None, None, _reason_of(transaction.cut))
    if transaction.data is not None and transaction.data.code != START_INPUT:
        return _by_reply(-1, Phase.DATA, transaction.data, among=accepted)
    return _cut_off(transaction, -1, asked=True)


def _cut_off(transaction: Transaction, index: int, *, asked: bool) -> RecipientOutcome:
    """Judge a recipient about whom the server has said nothing, and to whom nothing was sent."""
    cut = transaction.cut
    phase = Phase.MAIL if cut is None else cut.phase
    reply = None if cut is None else cut.reply
    outcome = None if reply is None else classify(phase, reply)
    costs = asked and (outcome is None or _costs_attempt(phase, outcome))
    return RecipientOutcome(index, Verdict.DEFERRED, phase, reply, outcome, _reason_of(cut), costs)


def _by_reply(index: int, phase: Phase, reply: Reply, *, among: int = 1) -> RecipientOutcome:
    """Judge by a reply to this recipient, or to `among` recipients together."""
    outcome = classify(phase, reply)
    reason = str(reply) if outcome.meaning is None else f"{reply} ({outcome.meaning})"
    if among > 1 and outcome.scope is Scope.RECIPIENT and outcome.kind in {Kind.REFUSED, Kind.TRANSIENT}:
        # Somebody's address is refused, for now or for good, but the server did not say whose. The others shall
        # neither fail nor wait for it.
        return RecipientOutcome(index, Verdict.DEFERRED, phase, reply, outcome, reason, costs_attempt=False, alone=True)
    return RecipientOutcome(
        index, _verdict(outcome), phase, reply, outcome, reason, costs_attempt=_costs_attempt(phase, outcome)
    )


def _verdict(outcome: Outcome) -> Verdict:
    match outcome.kind:
        case Kind.ACCEPTED:
            return Verdict.SENT
        case Kind.REFUSED:
            return Verdict.DEFERRED if outcome.scope is Scope.SESSION else Verdict.FAILED
        case Kind.SENDER_REFUSED:
            # A blocked mailbox is no fault of this message: it goes out once a person has unblocked it.
            return Verdict.DEFERRED if outcome.scope is Scope.MAILBOX else Verdict.FAILED
        case Kind.DOUBTFUL:
            return Verdict.UNKNOWN
        case (
            Kind.TRANSIENT
            | Kind.TOO_FAST
            | Kind.TOO_MANY_CONNECTIONS
            | Kind.QUOTA
            | Kind.TENANT_QUOTA
            | Kind.TOO_MANY_RECIPIENTS
            | Kind.NOT_AUTHENTICATED
        ):
            return Verdict.DEFERRED
        case _:
            assert_never(outcome.kind)


def _costs_attempt(phase: Phase, outcome: Outcome) -> bool:
    """Tell whether a recipient is a try nearer to giving up.

    Not for what the mailbox is to blame for, nor for having been one too many, nor for a session that was dead before
    it was asked anything.
    """
    if outcome.scope is Scope.SESSION:
        return phase is not Phase.MAIL
    return outcome.scope is not Scope.MAILBOX and outcome.kind is not _TOO_MANY


def _was_too_many(recipient: RecipientOutcome) -> bool:
    return recipient.outcome is not None and recipient.outcome.kind is _TOO_MANY


def _is_too_many(reply: Reply) -> bool:
    return classify(Phase.RCPT, reply).kind is _TOO_MANY


_TOO_MANY = Kind.TOO_MANY_RECIPIENTS
_LIMIT = re.compile(r"exceeds (\d{1,4})\b")


def _cap(transaction: Transaction, exceptions: list[RecipientOutcome], accepted: int) -> int | None:
    """Learn how many recipients the server takes at once: the least that its replies tell."""
    refused = {one.phase: one.reply for one in exceptions if _was_too_many(one)}
    caps = [
        _room(transaction, reply, accepted) if phase is Phase.RCPT else _smaller(reply, accepted)
        for phase, reply in refused.items()
        if reply is not None
    ]
    return min((cap for cap in caps if cap is not None), default=None)


def _smaller(reply: Reply, accepted: int) -> int:
    """Give what the server names, or half of what was too many: also where we had kept to what it names."""
    named = _named_limit(reply)
    return named if named is not None and named < accepted else max(1, accepted // 2)


def _room(transaction: Transaction, reply: Reply, accepted: int) -> int | None:
    """Give what the server names, or count the RCPTs before the first one too many.

    Refused ones too, since some servers count them; with those that do not, the next transaction corrects it. None
    where somebody was accepted after it: then it is not the number that was too much, but what those recipients
    have in common, their domain mostly.
    """
    named = _named_limit(reply)
    if named is not None:
        return named
    asked = [reply for reply in transaction.recipients if isinstance(reply, Reply)]
    before = next((place for place, reply in enumerate(asked) if _is_too_many(reply)), 0)
    if not accepted or any(reply.accepted for reply in asked[before:]):
        return None
    return before or None


def _named_limit(reply: Reply) -> int | None:
    found = _LIMIT.search(reply.text)
    return None if found is None else int(found[1]) or None


def _signals(recipients: list[RecipientOutcome]) -> tuple[Outcome, ...]:
    found: dict[Outcome, None] = {}
    for recipient in recipients:
        outcome = recipient.outcome
        if outcome is None:
            continue
        if outcome.scope in {Scope.MAILBOX, Scope.SESSION} or outcome.kind is Kind.SENDER_REFUSED:
            found[outcome] = None
    return tuple(found)


def _reason_of(cut: Cut | None) -> str:
    return "nothing was sent" if cut is None else f"{cut.detail} ({cut.phase})"


def _is_accepted(reply: Reply | LocalRefusal | None) -> bool:
    return isinstance(reply, Reply) and reply.accepted
