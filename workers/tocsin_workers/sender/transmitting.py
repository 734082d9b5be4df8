"""Transmitting a window of messages: reserve, mark, transmit, classify, record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from time import time_ns
from typing import TYPE_CHECKING

from tocsin_workers import metrics
from tocsin_workers.outcomes import Verdict
from tocsin_workers.sender import marking, reacting, reserving
from tocsin_workers.sender.carrying_out import carry_out
from tocsin_workers.sender.claiming import key_of
from tocsin_workers.sender.outgoing import OutgoingWindow, StoppedError
from tocsin_workers.sender.preparing import PreparedMessage
from tocsin_workers.sender.settling import settle_unrenderable
from tocsin_workers.smtp.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.claiming import Claim
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.preparing import UnrenderableRecipient
    from tocsin_workers.sender.session_pool import PooledSession


class Next(StrEnum):
    """What a slice may do after a window."""

    GO_ON = "go on"
    SESSION_ENDED = "session ended"
    """There may be more to send, over another connection."""
    CLAIM_ANEW = "claim anew"
    """What is prepared is too large for what was just learned of the server, has missed its time, or is outranked."""
    MAILBOX_FULL = "mailbox full"
    """The mailbox or the profile takes nothing more for now."""


@dataclass(frozen=True, slots=True)
class ReadyWindow:
    """A window whose messages are reserved and marked, as far as that was granted.

    `is_cut_short` says that the mailbox has no room for all of it.
    """

    outgoing: OutgoingWindow
    is_cut_short: bool


async def make_ready(
    desk: SenderDesk, profile: SenderProfile, claim: Claim, window: Sequence[PreparedMessage | UnrenderableRecipient]
) -> ReadyWindow | reserving.NoRoom | None:
    """Reserve and mark a window's messages, and record what cannot be made; None: there is nothing to send.

    What a kill puts in doubt is what is marked and not recorded: this window and the one before it, which may be on its
    way. What became of those before that is committed with the mark, or before it. The mark may wait for others; who
    has nothing else to do says so to the recorder (`Recorder.awaited`).
    """
    sendable = [message for message in window if isinstance(message, PreparedMessage)]
    for item in window:
        if not isinstance(item, PreparedMessage):
            _fail_unrenderable(desk, profile, claim, item)
    if not sendable:
        return None
    slots = await reserving.reserve_time(desk, profile, len(sendable))
    if isinstance(slots, reserving.NoRoom):
        return slots
    mark = await marking.mark(desk.recorder, sendable, ahead=True)
    marked = [message for message in sendable if mark.covers(message)]
    rank = sendable[0].batch.rank
    fitting = await reserving.reserve_recipients(desk, profile, marked, rank=rank)
    outgoing = OutgoingWindow(desk, profile, claim, fitting, mark=mark, slots=slots)
    return ReadyWindow(outgoing, is_cut_short=len(fitting) < len(marked))


async def send_window(desk: SenderDesk, profile: SenderProfile, pooled: PooledSession, ready: ReadyWindow) -> Next:
    """Send a window's messages one after the other. Raises LeaseLostError."""
    outgoing = ready.outgoing
    began_at = time_ns()
    try:
        said = await _transmit(desk, profile, pooled, outgoing)
    finally:
        outgoing.tell_counts(began_at)
        untried = [*outgoing.stopped, *outgoing.untried_messages]
        if untried:
            await reserving.give_back_recipients(desk, profile, untried, rank=untried[0].batch.rank)
    return Next.MAILBOX_FULL if said is Next.GO_ON and ready.is_cut_short else said


async def _transmit(desk: SenderDesk, profile: SenderProfile, pooled: PooledSession, outgoing: OutgoingWindow) -> Next:
    """Carry the messages over the session, each at its time and under a fresh mark."""
    is_stopped = False
    with marking.Watch(desk.recorder, lambda: outgoing.unbegun, outgoing.take_mark):
        while outgoing.goes_on and pooled.session.is_open:
            await asyncio.sleep(outgoing.waiting_seconds)
            outgoing.mark = await marking.fresh(desk.recorder, outgoing.mark, outgoing.untried_messages)
            try:
                with desk.recorder.sending():
                    await pooled.session.deliver(outgoing.messages())
            except StoppedError:
                # The session is broken off: there is no other way to leave a message that the server waits for.
                is_stopped = True
    if outgoing.reaction is not None:
        await carry_out(desk, profile, outgoing.reaction, pooled=pooled)
        return Next.MAILBOX_FULL
    if is_stopped:
        return Next.SESSION_ENDED
    if pooled.session.is_open:
        if outgoing.last is not None:
            desk.failures.pop(profile.mailbox_id, None)
        # Who has missed a time slot is claimed again too.
        return Next.CLAIM_ANEW if outgoing.cap_is_new or outgoing.untried else Next.GO_ON
    return await _after_the_end(desk, profile, pooled, outgoing)


async def _after_the_end(
    desk: SenderDesk, profile: SenderProfile, pooled: PooledSession, outgoing: OutgoingWindow
) -> Next:
    """Say whether another connection may be tried at once.

    A server that lets us in and hangs up before it has taken anything would be logged into again without pause.
    """
    last = outgoing.last
    is_welcome = last is not None and isinstance(last.mail, Reply) and last.mail.accepted
    if is_welcome or pooled.session.counters.bodies or pooled.session.counters.transactions > 1:
        return Next.SESSION_ENDED
    failures = desk.failures[profile.mailbox_id] = desk.failures.get(profile.mailbox_id, 0) + 1
    why = "it hung up" if last is None or last.cut is None else last.cut.detail
    reason = f"{pooled.session.server} takes no message after the log-in: {why}"
    await carry_out(desk, profile, reacting.Park(reacting.trouble_seconds(failures), reason))
    return Next.MAILBOX_FULL


def _fail_unrenderable(
    desk: SenderDesk, profile: SenderProfile, claim: Claim, unrenderable: UnrenderableRecipient
) -> None:
    key = key_of(unrenderable.batch)
    claim.committed.append((key, desk.recorder.put(settle_unrenderable(unrenderable))))
    claim.settle(key, 1, ())
    claim.tally.count(unrenderable.batch.job_number, Verdict.FAILED, 1)
    metrics.RECIPIENTS.labels(profile.name, Verdict.FAILED).inc()
