"""One slice: about a second of one profile's work over one connection.

    authorize → claim → screen → render → reserve → transmit → classify → record

A connection is reserved and authorized first, since without one nothing need be claimed. Then batches are claimed,
screened and rendered into messages, which go out window by window (`transmitting`): a window's time slots are reserved
and its recipients marked in flight by one commit, its messages transmitted one after the other, every reply classified
and recorded as it comes. What a slice does not get done it gives back; if more is due it passes its place on.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING

import psycopg
import structlog

from tocsin_schema.errors import RenderingError, TocsinError
from tocsin_schema.ledger import pausing, sending, wakeups
from tocsin_workers import metrics
from tocsin_workers.sender import reserving, windows
from tocsin_workers.sender.carrying_out import react_to_failed_session
from tocsin_workers.sender.claiming import Claim, claim, release
from tocsin_workers.sender.lease import lease_clock
from tocsin_workers.sender.outgoing import LeaseLostError
from tocsin_workers.sender.preparing import PreparedMessage, UnrenderableRecipient, prepare
from tocsin_workers.sender.tally import SliceTally
from tocsin_workers.sender.transmitting import Next, ReadyWindow, make_ready, send_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.preparing import JobMessages
    from tocsin_workers.sender.session_pool import PooledSession

_log = structlog.get_logger(__name__)

SLICE_SECONDS = 1.0
#: Slices that each one wakes while connections are left: a fleet is at its full speed after a few steps.
FAN_OUT = 2
#: Slices that are worked one after the other without passing the place on.
MOST_IN_PLACE = 5


class SliceResult(StrEnum):
    """How a slice ended; also the `result` label of `tocsin_slices_total`."""

    WORKED = "worked"
    IDLE = "idle"
    NO_ROOM = "no_room"
    HELD = "held"
    FAILED = "failed"


class _Onward(StrEnum):
    """What comes after a slice."""

    NOTHING = "nothing"
    SUCCESSOR = "successor"
    """There is more: somebody is to be woken for it."""
    IN_PLACE = "in place"
    """There is more, and we have one of the few connections: it would lie idle while others looked for one."""


async def work_slice(
    desk: SenderDesk,
    profile_id: UUID,
    rank: int,
    *,
    wake_ups: int = 1,
    worked: Callable[[UUID], None] = lambda _: None,
) -> SliceResult:
    """Work a slice of a profile, a few more where connections are few, and pass the place on if more is due.

    `wake_ups` is how many it was begun for; `worked` is told of each slice that another one follows in its place.

    Raises the errors of a Postgres that is away; what is claimed is given back first.
    """
    async with desk.pool.connection() as connection:
        await wakeups.take_wakeups(connection, profile_id, rank, wake_ups)
    result, onward = await _work(desk, profile_id, rank)
    in_place = 1
    while onward is _Onward.IN_PLACE and in_place < MOST_IN_PLACE and not desk.stopping.is_set():
        worked(profile_id)
        result, onward = await _work(desk, profile_id, rank)
        in_place += 1
    if onward is not _Onward.NOTHING and not desk.stopping.is_set():
        await desk.waker.wake_sender(profile_id, rank)
    return result


async def _work(desk: SenderDesk, profile_id: UUID, rank: int) -> tuple[SliceResult, _Onward]:
    """Work one slice, and tell how it ended and what comes after it."""
    result, onward = await _work_once(desk, profile_id, rank)
    metrics.SLICES.labels(result).inc()
    return result, onward


async def _work_once(  # noqa: PLR0911 - a result an end
    desk: SenderDesk, profile_id: UUID, rank: int
) -> tuple[SliceResult, _Onward]:
    if desk.stopping.is_set() or not desk.lease.holds(lease_clock()):
        return SliceResult.HELD, _Onward.NOTHING
    profile = await _profile_with_due_work(desk, profile_id)
    if isinstance(profile, SliceResult):
        return profile, _Onward.NOTHING
    try:
        pooled = await desk.sessions.take(profile, lambda: desk.open_session(profile), rank=rank)
    except TocsinError as error:
        await react_to_failed_session(desk, profile, error)
        return SliceResult.FAILED, _Onward.NOTHING
    if pooled is None:
        return SliceResult.NO_ROOM, _Onward.NOTHING
    tally = SliceTally(keeps_windows=desk.spans is not None)
    result: SliceResult | None = None
    try:
        current = profile if profile.paused_reason is None else await _end_pause(desk, profile)
        if current is None:
            return SliceResult.HELD, _Onward.NOTHING
        if (limit := pooled.session.capabilities.recipients_limit) is not None:
            desk.learn_cap(current, limit)
        if desk.sessions.has_left(current):
            await _fan_out(desk, profile_id, rank)
        more = await _send_for_a_while(desk, current, pooled, tally)
        result = SliceResult.WORKED
    except LeaseLostError:
        _log.warning("slice ended: this worker's lease may have lapsed", profile=profile.name)
        result = SliceResult.HELD
        return result, _Onward.NOTHING
    finally:
        try:
            await desk.sessions.give_back(pooled)
        finally:
            _tell_of(desk, profile, result, tally)
    if not more:
        return SliceResult.WORKED, _Onward.NOTHING
    return SliceResult.WORKED, _Onward.SUCCESSOR if current.connections is None else _Onward.IN_PLACE


def _tell_of(desk: SenderDesk, profile: SenderProfile, result: SliceResult | None, tally: SliceTally) -> None:
    """Tell the log and the trace what a slice got done; nothing of one that did nothing."""
    if not tally.has_any:
        return
    _log.info(
        "slice worked" if result is SliceResult.WORKED else "slice broken off", profile=profile.name, **tally.line()
    )
    if desk.spans is not None:
        desk.spans.slice_worked(profile.name, result, tally)


async def _fan_out(desk: SenderDesk, profile_id: UUID, rank: int) -> None:
    """Wake more hands, as each does that finds work and a connection: so work spreads, and dies down by itself."""
    for _ in range(FAN_OUT):
        await desk.waker.wake_sender(profile_id, rank)


async def _profile_with_due_work(desk: SenderDesk, profile_id: UUID) -> SenderProfile | SliceResult:
    """Look whether there is anything to do for a profile.

    One that is paused for refused credentials is given back when it is our turn to try them.
    """
    async with desk.pool.connection() as connection:
        profile = await sending.read_sender_profile(connection, profile_id)
        if profile is None or profile.parked_until is not None:
            return SliceResult.HELD
        if profile.paused_reason is not None and not profile.probe_is_due:
            return SliceResult.HELD
        if not await sending.has_due_work(connection, profile_id):
            return SliceResult.IDLE
        if profile.paused_reason is not None and not await pausing.claim_probe(connection, profile_id):
            return SliceResult.HELD
        return profile


async def _end_pause(desk: SenderDesk, profile: SenderProfile) -> SenderProfile | None:
    """Let a profile go on whose credentials were just taken; None where a person has paused it meanwhile."""
    async with desk.pool.connection() as connection:
        if not await pausing.resume_probed_profile(connection, profile.id):
            return None
        _log.warning("profile resumed: its credentials are taken again", profile=profile.name)
        return await sending.read_sender_profile(connection, profile.id)


async def _send_for_a_while(desk: SenderDesk, profile: SenderProfile, pooled: PooledSession, tally: SliceTally) -> bool:
    """Claim and send until the time is over; whether there may be more that can be sent now."""
    ends_at = monotonic() + SLICE_SECONDS
    limit = desk.claim_sizes.get(profile.id, windows.FIRST_CLAIM)
    while monotonic() < ends_at and pooled.session.is_open and not desk.stopping.is_set():
        started = monotonic()
        claimed = await claim(desk, profile, limit, tally)
        if claimed is None:
            return False
        try:
            said = await _send_claim(desk, profile, pooled, claimed, ends_at)
        finally:
            await release(desk, claimed)
        if said is Next.MAILBOX_FULL:
            return False
        limit = desk.claim_sizes[profile.id] = windows.next_claim(limit, monotonic() - started, SLICE_SECONDS)
    return True


async def _send_claim(
    desk: SenderDesk, profile: SenderProfile, pooled: PooledSession, claimed: Claim, ends_at: float
) -> Next:
    """Send what was claimed, window by window.

    Where nothing limits the mailbox, the next window is made ready while one is on its way.
    """
    jobs = await _messages_of_jobs(desk, profile, claimed)
    messages = _messages(claimed, jobs, largest=desk.largest_transaction(profile))
    cut = windows.windows(messages, windows.window_size(profile.messages_per_minute), windows.octets_of)
    looks_ahead = not reserving.is_limited(profile)
    ahead = _next_ready(desk, profile, claimed, cut)
    try:
        while (ready := await _awaited(desk, ahead)) is not None:
            if isinstance(ready, reserving.NoRoom):
                return Next.MAILBOX_FULL
            if looks_ahead:
                if ready.outgoing.mark.is_outranked:
                    return Next.CLAIM_ANEW
                ahead = _next_ready(desk, profile, claimed, cut)
            said = await send_window(desk, profile, pooled, ready)
            if said is not Next.GO_ON:
                return said
            if monotonic() >= ends_at or desk.stopping.is_set():
                return Next.GO_ON
            if not looks_ahead:
                # What was reserved for it was used before it gives way.
                if ready.outgoing.mark.is_outranked:
                    return Next.CLAIM_ANEW
                ahead = _next_ready(desk, profile, claimed, cut)
    finally:
        await _drop(ahead)
    return Next.GO_ON


async def _awaited(
    desk: SenderDesk, ahead: asyncio.Task[ReadyWindow | reserving.NoRoom | None]
) -> ReadyWindow | reserving.NoRoom | None:
    """Wait for the next window, with a connection that has nothing else to carry."""
    with desk.recorder.awaited():
        return await ahead


async def _drop(ahead: asyncio.Task[ReadyWindow | reserving.NoRoom | None]) -> None:
    """Let go of a window that is not sent: nothing was reserved for it, and its marks go with the lease."""
    ahead.cancel()
    await asyncio.wait([ahead])
    if not ahead.cancelled():
        ahead.exception()  # looked at: whoever sends next meets it again


def _next_ready(
    desk: SenderDesk,
    profile: SenderProfile,
    claimed: Claim,
    cut: Iterator[Sequence[PreparedMessage | UnrenderableRecipient]],
) -> asyncio.Task[ReadyWindow | reserving.NoRoom | None]:
    """Begin to make the claim's next window ready; it gives None after the last one."""

    async def make_next_ready() -> ReadyWindow | reserving.NoRoom | None:
        for window in cut:
            if (ready := await make_ready(desk, profile, claimed, window)) is not None:
                return ready
        return None

    return asyncio.create_task(make_next_ready())


async def _messages_of_jobs(
    desk: SenderDesk, profile: SenderProfile, claimed: Claim
) -> dict[int, JobMessages | RenderingError]:
    """Read and compile what the claimed jobs' messages are made of.

    A job of which that cannot be done, after an upgrade of the template language say, must not hold up the others.
    """
    jobs: dict[int, JobMessages | RenderingError] = {}
    for number in {one.batch.job_number for one in claimed.screened}:
        try:
            job = jobs[number] = await desk.messages_of(number, profile.from_address)
            claimed.tally.job(number).id = job.content.id
        except (TocsinError, LookupError, psycopg.DataError) as error:
            _log.error("the messages of a job cannot be made", job=number, error=str(error))
            jobs[number] = RenderingError(f"The messages of this job cannot be made: {error}")
    return jobs


def _messages(
    claimed: Claim, jobs: dict[int, JobMessages | RenderingError], *, largest: int
) -> Iterator[PreparedMessage | UnrenderableRecipient]:
    """Render the claim's messages, each when its window comes."""
    for one in claimed.screened:
        job = jobs[one.batch.job_number]
        if isinstance(job, RenderingError):
            yield from (UnrenderableRecipient(one.batch, recipient, job) for recipient in one.due)
        else:
            yield from prepare(job, one, datetime.now(UTC).replace(microsecond=0), largest=largest)
