"""One slice: about a second of one profile's work over one connection.

    claim → screen → reserve → authorize → render → transmit → classify → record

A connection is reserved and authorized first, since without one nothing need be claimed. Then batches are claimed,
screened and rendered into messages, which go out window by window: a window's time slots are reserved and its
recipients marked in flight by one commit, its messages transmitted one after the other, every reply classified and
recorded as it comes. What a slice does not get done it gives back; if more is due it passes its place on.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.errors import LedgerError, SealError, TocsinError, TokenError
from tocsin_schema.ledger import mailboxes, pausing, sending, wakeups
from tocsin_schema.ledger.connection import AWAY
from tocsin_workers import metrics
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.sender import reacting, windows
from tocsin_workers.sender.lease import lease_clock
from tocsin_workers.sender.preparing import PreparedMessage, UnrenderableRecipient, prepare
from tocsin_workers.sender.screening import ScreenedBatch, screen
from tocsin_workers.sender.settling import settle, settle_in_doubt, settle_unrenderable
from tocsin_workers.smtp.errors import SmtpSessionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from tocsin_schema.ledger.mailboxes import TimeSlots
    from tocsin_schema.ledger.sending import ClaimedBatch, SenderProfile
    from tocsin_workers.outcomes import Judgement
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.preparing import JobMessages
    from tocsin_workers.sender.session_pool import PooledSession

_log = structlog.get_logger(__name__)

SLICE_SECONDS = 1.0
#: How far ahead a time slot may lie for a slice to wait for it.
HORIZON_SECONDS = 5.0
RELEASE_RETRY_SECONDS = 0.5


class SliceResult(StrEnum):
    """How a slice ended; also the `result` label of `tocsin_slices_total`."""

    WORKED = "worked"
    IDLE = "idle"
    NO_ROOM = "no_room"
    HELD = "held"
    FAILED = "failed"


class LeaseLostError(Exception):
    """Our lease may have lapsed: no body may be written any more."""


@dataclass(slots=True)
class Claim:
    """Batches in hand, and what became of them so far."""

    screened: list[ScreenedBatch]
    untouched: dict[tuple[int, int], int]
    """How many recipients of each batch (job, number) are due and not yet tried."""
    due_in_seconds: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])
    committed: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])

    def settle(self, key: tuple[int, int], recipients: int, due_in_seconds: Sequence[float]) -> None:
        """Note that so many recipients of a batch were tried, and when those are due that were deferred."""
        self.untouched[key] -= recipients
        for seconds in due_in_seconds:
            self.due_in_seconds[key] = min(seconds, self.due_in_seconds.get(key, seconds))

    def releases(self) -> list[sending.Release]:
        """Give every lease back: due at once where somebody is left, else when the first deferred one is."""
        return [
            sending.Release(
                one.batch.job_number,
                one.batch.number,
                one.batch.lease_epoch,
                0.0 if self.untouched[_key(one.batch)] else self.due_in_seconds.get(_key(one.batch), 0.0),
            )
            for one in self.screened
        ]


async def work_slice(desk: SenderDesk, profile_id: UUID, rank: int) -> SliceResult:
    """Work a slice of a profile, and pass the place on if more is due. Raises psycopg's errors only."""
    result = await _work(desk, profile_id, rank)
    metrics.SLICES.labels(result).inc()
    return result


async def _work(desk: SenderDesk, profile_id: UUID, rank: int) -> SliceResult:
    async with desk.pool.connection() as connection:
        await wakeups.take_wakeup(connection, profile_id, rank)
        profile = await sending.read_sender_profile(connection, profile_id)
        if profile is None or profile.paused_reason is not None or profile.parked_until is not None:
            return SliceResult.HELD
        if not await sending.has_due_work(connection, profile_id):
            return SliceResult.IDLE
    try:
        pooled = await desk.sessions.take(profile, lambda: desk.open_session(profile))
    except (SmtpSessionError, TokenError, SealError, TocsinError) as error:
        await _react_to_failed_session(desk, profile, error)
        return SliceResult.FAILED
    if pooled is None:
        return SliceResult.NO_ROOM
    desk.failures.pop(profile.mailbox_id, None)
    try:
        # More hands for as long as each finds work and a connection: so work fans out, and dies down by itself.
        await desk.waker.wake_sender(profile_id, rank)
        more = await _send_for_a_while(desk, profile, pooled)
    except LeaseLostError:
        _log.warning("slice ended: this worker's lease may have lapsed", profile=profile.name)
        return SliceResult.HELD
    finally:
        await desk.sessions.give_back(pooled)
    if more and not desk.stopping.is_set():
        await desk.waker.send_on(profile_id, rank)
    return SliceResult.WORKED


async def _send_for_a_while(desk: SenderDesk, profile: SenderProfile, pooled: PooledSession) -> bool:
    """Claim and send until the time is over; whether there may be more that can be sent now."""
    ends_at = monotonic() + SLICE_SECONDS
    limit = windows.FIRST_CLAIM
    while monotonic() < ends_at and pooled.session.is_open and not desk.stopping.is_set():
        started = monotonic()
        claim = await _claim(desk, profile, limit)
        if claim is None:
            return False
        try:
            goes_on = await _send_claim(desk, profile, pooled, claim, ends_at)
        finally:
            await _release(desk, claim)
        if not goes_on:
            return False
        limit = windows.next_claim(limit, monotonic() - started, SLICE_SECONDS)
    return True


async def _claim(desk: SenderDesk, profile: SenderProfile, limit: int) -> Claim | None:
    """Lease due batches and leave out who is settled."""
    async with desk.pool.connection() as connection:
        batches = await sending.claim_batches(
            connection, profile_id=profile.id, worker_id=desk.lease.worker_id, limit=limit
        )
        if not batches:
            return None
        recipients = await sending.read_claimed_recipients(connection, batches)
        exceptions = await sending.read_claimed_exceptions(connection, batches)
    screened = screen(batches, recipients, exceptions)
    claim = Claim(screened, {_key(one.batch): len(one.due) for one in screened})
    desk.in_hand.update(claim.untouched)
    for one in screened:
        if one.next_due_in_seconds is not None:
            claim.due_in_seconds[_key(one.batch)] = one.next_due_in_seconds
    return claim


async def _send_claim(
    desk: SenderDesk, profile: SenderProfile, pooled: PooledSession, claim: Claim, ends_at: float
) -> bool:
    """Send what was claimed, window by window; whether the mailbox takes more."""
    jobs = {
        number: await desk.messages_of(number, profile.from_address)
        for number in {one.batch.job_number for one in claim.screened}
    }
    messages = _messages(claim, jobs, largest=desk.largest_transaction(profile))
    for window in windows.windows(messages, windows.window_size(profile.messages_per_minute)):
        if monotonic() >= ends_at or desk.stopping.is_set():
            return True
        if not await _send_window(desk, profile, pooled, claim, window):
            return False
    return True


def _messages(
    claim: Claim, jobs: Mapping[int, JobMessages], *, largest: int
) -> Iterator[PreparedMessage | UnrenderableRecipient]:
    """Render the claim's messages, each when its window comes."""
    for one in claim.screened:
        dated_at = datetime.now(UTC).replace(microsecond=0)
        yield from prepare(jobs[one.batch.job_number], one, dated_at, largest=largest)


async def _send_window(
    desk: SenderDesk,
    profile: SenderProfile,
    pooled: PooledSession,
    claim: Claim,
    window: Sequence[PreparedMessage | UnrenderableRecipient],
) -> bool:
    """Reserve, mark, transmit, record; whether the connection and the mailbox take more."""
    sendable: list[PreparedMessage] = []
    for item in window:
        if isinstance(item, PreparedMessage):
            sendable.append(item)
        else:
            claim.committed.append(desk.recorder.put(settle_unrenderable(item)))
            claim.settle(_key(item.batch), 1, ())
            metrics.RECIPIENTS.labels(profile.name, Verdict.FAILED).inc()
    if not sendable:
        return True
    slots = await _reserve(desk, profile, len(sendable))
    if slots is False:
        return False
    ours = await _mark(desk, sendable)
    reserved_at = monotonic()
    for place, message in enumerate(sendable):
        if _key(message.batch) not in ours:
            raise LeaseLostError
        if isinstance(slots, mailboxes.TimeSlots):
            due = reserved_at + slots.first_in_seconds + place * slots.spacing_seconds
            await asyncio.sleep(max(0.0, due - monotonic()))
        if not await _send_message(desk, profile, pooled, claim, message):
            return False
    return True


async def _reserve(desk: SenderDesk, profile: SenderProfile, count: int) -> TimeSlots | bool:
    """Reserve time slots on a rate-limited mailbox; True where there is no limit, False where none is near."""
    if profile.messages_per_minute is None:
        return True
    async with desk.pool.connection() as connection:
        slots = await mailboxes.reserve_messages(connection, profile.mailbox_id, count, horizon_seconds=HORIZON_SECONDS)
    return False if slots is None else slots


async def _mark(desk: SenderDesk, messages: Sequence[PreparedMessage]) -> set[tuple[int, int]]:
    """Mark a window's recipients in flight: from this commit on, a body may be written."""
    masks: dict[tuple[int, int], tuple[ClaimedBatch, int]] = {}
    for message in messages:
        _, mask = masks.get(_key(message.batch), (message.batch, 0))
        masks[_key(message.batch)] = (message.batch, mask | message.mask)
    async with desk.pool.connection() as connection:
        return await sending.mark_in_flight(connection, desk.lease.worker_id, [masks[key] for key in sorted(masks)])


async def _send_message(
    desk: SenderDesk,
    profile: SenderProfile,
    pooled: PooledSession,
    claim: Claim,
    message: PreparedMessage,
) -> bool:
    """Transmit one message and hand what became of it to the recorder; whether more may follow."""
    body_begun = False

    def begin_body() -> None:
        nonlocal body_begun
        if not desk.lease.holds(lease_clock()):
            raise LeaseLostError
        body_begun = True

    try:
        transaction = await pooled.session.transact(message.envelope, message.wire, begin_body)
    except asyncio.CancelledError:
        if body_begun:
            outcome = settle_in_doubt(
                message, "the worker stopped before the server had replied", schedule=desk.schedule
            )
            claim.committed.append(desk.recorder.put(outcome))
        raise
    judgement = judge(transaction)
    outcome = settle(
        message,
        judgement,
        profile,
        schedule=desk.schedule,
        jitter=random.random,
        accepted_at=datetime.now(UTC),
    )
    claim.committed.append(desk.recorder.put(outcome))
    claim.settle(
        _key(message.batch),
        len(message.recipients),
        [row.due_in_seconds for row in outcome.exceptions if row.due_in_seconds is not None],
    )
    _count(profile, judgement)
    if judgement.recipients_cap is not None:
        desk.learn_cap(profile, judgement.recipients_cap)
    return await _react_to_signals(desk, profile, judgement) and pooled.session.is_open


async def _react_to_signals(desk: SenderDesk, profile: SenderProfile, judgement: Judgement) -> bool:
    """Park the mailbox or pause the profile where a reply says so; whether more may be sent now."""
    for recipient in judgement.recipients:
        if recipient.outcome is None or recipient.outcome not in judgement.signals:
            continue
        match reacting.to_refusal(recipient.outcome, recipient.reason):
            case None:
                continue
            case reaction:
                await _carry_out(desk, profile, reaction)
                return False
    return True


async def _react_to_failed_session(desk: SenderDesk, profile: SenderProfile, error: TocsinError) -> None:
    failures = desk.failures[profile.mailbox_id] = desk.failures.get(profile.mailbox_id, 0) + 1
    match error:
        case SmtpSessionError():
            reaction = reacting.to_failed_session(error, failures)
        case TokenError(permanent=False, retry_after=wish):
            reaction = reacting.Park(wish or reacting.trouble_seconds(failures), str(error))
        case LedgerError():
            reaction = reacting.Park(reacting.trouble_seconds(failures), str(error))
        case _:
            reaction = reacting.Pause(str(error))
    await _carry_out(desk, profile, reaction)


async def _carry_out(desk: SenderDesk, profile: SenderProfile, reaction: reacting.Park | reacting.Pause) -> None:
    async with desk.pool.connection() as connection:
        match reaction:
            case reacting.Park(seconds, reason):
                await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=seconds, reason=reason)
                _log.warning("mailbox parked", profile=profile.name, seconds=round(seconds), reason=reason)
            case reacting.Pause(reason):
                await pausing.pause_profile(connection, profile.id, reason)
                _log.error("profile paused", profile=profile.name, reason=reason)


async def _release(desk: SenderDesk, claim: Claim) -> None:
    """Give the leases back once every outcome is committed, and finish the jobs that are done.

    Tried until the ledger takes it: a batch that is leased by somebody who lives is nobody else's.
    """
    await asyncio.gather(*claim.committed, return_exceptions=True)
    while True:
        try:
            async with desk.pool.connection() as connection:
                released = await sending.release_batches(connection, desk.lease.worker_id, claim.releases())
            if done := sorted({job_number for job_number, state in released if state == "done"}):
                # In a transaction of its own: then the last of several workers sees the others' batches done.
                async with desk.pool.connection() as connection:
                    finished = await sending.finish_jobs(connection, done)
                metrics.JOBS_FINISHED.inc(len(finished))
        except AWAY as error:
            _log.warning("leases wait for the ledger to be given back", error=type(error).__name__)
            await asyncio.sleep(RELEASE_RETRY_SECONDS)
        else:
            desk.in_hand.difference_update(claim.untouched)
            return


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


def _key(batch: ClaimedBatch) -> tuple[int, int]:
    return (batch.job_number, batch.number)
