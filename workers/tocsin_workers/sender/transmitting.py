"""Transmitting a window of messages: reserve, mark, transmit, classify, record."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING

from tocsin_workers import metrics
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.sender import marking, reacting, reserving, windows
from tocsin_workers.sender.carrying_out import carry_out
from tocsin_workers.sender.claiming import key_of
from tocsin_workers.sender.lease import lease_clock
from tocsin_workers.sender.preparing import PreparedMessage
from tocsin_workers.sender.settling import settle, settle_in_doubt, settle_unrenderable
from tocsin_workers.smtp.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.sending import ClaimedBatch, SenderProfile
    from tocsin_workers.outcomes import Judgement
    from tocsin_workers.sender.claiming import Claim
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.marking import Mark
    from tocsin_workers.sender.preparing import UnrenderableRecipient
    from tocsin_workers.sender.recording import MessageOutcome
    from tocsin_workers.sender.session_pool import PooledSession
    from tocsin_workers.smtp.dialogue import Transaction


class Next(StrEnum):
    """What a slice may do after a message or a window."""

    GO_ON = "go on"
    SESSION_ENDED = "session ended"
    """There may be more to send, over another connection."""
    CLAIM_ANEW = "claim anew"
    """What is prepared is too large for what was just learned of the server."""
    MAILBOX_FULL = "mailbox full"
    """The mailbox or the profile takes nothing more for now."""


class LeaseLostError(Exception):
    """Our lease may have lapsed: no body may be written any more."""


async def send_window(
    desk: SenderDesk,
    profile: SenderProfile,
    pooled: PooledSession,
    claim: Claim,
    window: Sequence[PreparedMessage | UnrenderableRecipient],
) -> Next:
    """Send a window's messages one after the other, and record what cannot be made. Raises LeaseLostError."""
    sendable = [message for message in window if isinstance(message, PreparedMessage)]
    for item in window:
        if not isinstance(item, PreparedMessage):
            _fail_unrenderable(desk, profile, claim, item)
    if not sendable:
        return Next.GO_ON
    # What a kill puts in doubt is what is marked and not recorded: of the messages before, so many as fit beside these.
    await claim.all_committed_but(windows.WINDOW - len(sendable))
    slots = await reserving.reserve_time(desk, profile, len(sendable))
    if isinstance(slots, reserving.NoRoom):
        return Next.MAILBOX_FULL
    reserved_at = monotonic()
    mark = await marking.mark(desk, sendable)
    marked = [message for message in sendable if mark.covers(message)]
    fitting = await reserving.reserve_recipients(desk, profile, marked)
    untried = list(fitting)
    try:
        for place, message in enumerate(fitting):
            if slots is not None:
                due = reserved_at + slots.first_in_seconds + place * slots.spacing_seconds
                await asyncio.sleep(max(0.0, due - monotonic()))
            if desk.stopping.is_set():
                break
            mark = await marking.fresh(desk, mark, untried)
            if not mark.covers(message):
                continue
            untried.remove(message)
            said = await _send_message(desk, profile, pooled, claim, message, mark=mark)
            if said is not Next.GO_ON:
                return said
    finally:
        await reserving.give_back_recipients(desk, profile, untried)
    return Next.GO_ON if len(fitting) == len(marked) else Next.MAILBOX_FULL


def _fail_unrenderable(
    desk: SenderDesk, profile: SenderProfile, claim: Claim, unrenderable: UnrenderableRecipient
) -> None:
    _hand_over(desk, claim, unrenderable.batch, settle_unrenderable(unrenderable))
    claim.settle(key_of(unrenderable.batch), 1, ())
    metrics.RECIPIENTS.labels(profile.name, Verdict.FAILED).inc()


async def _send_message(
    desk: SenderDesk,
    profile: SenderProfile,
    pooled: PooledSession,
    claim: Claim,
    message: PreparedMessage,
    *,
    mark: Mark,
) -> Next:
    """Transmit one message and hand what became of it to the recorder.

    Whatever happens once the body was begun, an outcome is handed over: else the message would be sent again.
    """
    body_begun = handed_over = False

    def begin_body() -> None:
        nonlocal body_begun
        if desk.lease.generation != claim.generation or not desk.lease.holds(lease_clock()):
            raise LeaseLostError
        if not body_begun:
            watch.check()
        body_begun = True

    try:
        async with marking.Watch(desk, message, mark) as watch:
            transaction = await pooled.session.transact(message.envelope, message.wire, begin_body)
        judgement = judge(transaction)
        outcome = settle(
            message,
            judgement,
            profile,
            schedule=desk.schedule,
            jitter=random.random,
            accepted_at=datetime.now(UTC),
        )
        _hand_over(desk, claim, message.batch, outcome)
        handed_over = True
    except LeaseLostError:
        # Raised before the final dot is written: nothing was sent.
        raise
    except marking.StoppedError:
        # The session is broken off: there is no other way to leave a message that the server waits for.
        return Next.SESSION_ENDED
    except BaseException:
        if body_begun and not handed_over:
            reason = "the worker stopped before the server had replied"
            _hand_over(desk, claim, message.batch, settle_in_doubt(message, reason, schedule=desk.schedule))
        raise
    due = [row.due_in_seconds for row in outcome.exceptions if row.due_in_seconds is not None]
    claim.settle(key_of(message.batch), len(message.recipients), due)
    _count(profile, judgement)
    cap_is_new = judgement.recipients_cap is not None and desk.learn_cap(profile, judgement.recipients_cap)
    if await _react(desk, profile, judgement):
        return Next.MAILBOX_FULL
    if pooled.session.is_open:
        desk.failures.pop(profile.mailbox_id, None)
        return Next.CLAIM_ANEW if cap_is_new else Next.GO_ON
    return await _after_the_end(desk, profile, pooled, transaction)


async def _after_the_end(
    desk: SenderDesk, profile: SenderProfile, pooled: PooledSession, transaction: Transaction
) -> Next:
    """Say whether another connection may be tried at once.

    A server that lets us in and hangs up before it has taken anything would be logged into again without pause.
    """
    is_welcome = isinstance(transaction.mail, Reply) and transaction.mail.accepted
    if is_welcome or pooled.session.counters.transactions > 1:
        return Next.SESSION_ENDED
    failures = desk.failures[profile.mailbox_id] = desk.failures.get(profile.mailbox_id, 0) + 1
    why = "it hung up" if transaction.cut is None else transaction.cut.detail
    reason = f"{pooled.session.server} takes no message after the log-in: {why}"
    await carry_out(desk, profile, reacting.Park(reacting.trouble_seconds(failures), reason))
    return Next.MAILBOX_FULL


def _hand_over(desk: SenderDesk, claim: Claim, batch: ClaimedBatch, outcome: MessageOutcome) -> None:
    claim.committed.append((key_of(batch), desk.recorder.put(outcome)))


async def _react(desk: SenderDesk, profile: SenderProfile, judgement: Judgement) -> bool:
    """Park the mailbox or pause the profile where a reply says so; whether one did."""
    for recipient in judgement.recipients:
        if recipient.outcome is None or recipient.outcome not in judgement.signals:
            continue
        reaction = reacting.to_refusal(recipient.outcome, recipient.reason)
        if reaction is not None:
            await carry_out(desk, profile, reaction)
            return True
    return False


def _count(profile: SenderProfile, judgement: Judgement) -> None:
    verdicts = [recipient.verdict for recipient in judgement.recipients]
    for verdict in set(verdicts):
        metrics.RECIPIENTS.labels(profile.name, verdict).inc(verdicts.count(verdict))
    if Verdict.SENT in verdicts:
        outcome = "accepted"
    elif Verdict.UNKNOWN in verdicts:
        outcome = "unknown"
    else:
        outcome = "refused" if judgement.cut is None else "cut"
    metrics.MESSAGES.labels(profile.name, outcome).inc()
