"""Open SMTP sessions of a process, kept between slices; and the fleet-wide slot that each of them holds.

A slot is taken before a connection is opened and given back after it is closed, so that a mailbox never has more
connections than its provider allows, whoever opens them. Idle sessions are closed soon, because another pod may
be waiting for the slot.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.ledger import mailboxes
from tocsin_schema.ledger.connection import AWAY
from tocsin_workers import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.smtp.session import Session

_log = structlog.get_logger(__name__)

#: Amazon SES hangs up after about 10 s; a limited mailbox's slot should not lie idle either.
IDLE_SECONDS = 3.0
#: Long-lived connections pile up on old servers behind a provider's load balancer.
OLDEST_SECONDS = 300.0
MOST_TRANSACTIONS = 1000
#: How long a mail server is waited for that does not answer our last QUIT.
LEAVING_SECONDS = 1.0
#: Two pods may reach for the same free slot; the loser tries another one.
SLOT_TRIES = 3


@dataclass(slots=True, eq=False)
class PooledSession:
    """A session with what it holds: its profile as it was when it was opened, and its slot if there are slots.

    With another `generation` than its pool's, the slot was given to somebody else meanwhile.
    """

    session: Session
    profile_id: UUID
    profile_name: str
    profile_updated_at: datetime
    mailbox_id: int
    slot: int | None
    generation: int

    def is_fit(self, profile: SenderProfile, now: float) -> bool:
        """Whether it may carry another slice: open, young, not worn out, and of the profile as it is now."""
        return (
            self.session.is_open
            and self.profile_updated_at == profile.updated_at
            and now - self.session.opened_at < OLDEST_SECONDS
            and self.session.counters.transactions < MOST_TRANSACTIONS
        )


class SessionPool:
    """Sessions by profile. Belongs to one event loop."""

    def __init__(self, pool: Pool, worker_id: UUID) -> None:
        self._pool = pool
        self._worker_id = worker_id
        self._idle: dict[UUID, list[PooledSession]] = {}
        self._lent: set[PooledSession] = set()
        self._generation = 0

    async def take(
        self, profile: SenderProfile, open_session: Callable[[], Awaitable[Session]]
    ) -> PooledSession | None:
        """Give a session of the profile, an idle one or a new one; None where the mailbox has no connection left.

        Raises what `open_session` raises; the slot is given back then.
        """
        idle = self._idle.get(profile.id, [])
        while idle:
            pooled = idle.pop()
            if pooled.is_fit(profile, monotonic()):
                self._lent.add(pooled)
                return pooled
            await self._close(pooled)
        generation = self._generation
        slot: int | None = None
        if profile.connections is not None:
            slot = await self._take_slot(profile.mailbox_id)
            if slot is None:
                return None
        try:
            session = await open_session()
        except BaseException:
            if generation == self._generation:
                await self._give_back_slot(profile.mailbox_id, slot)
            raise
        metrics.CONNECTIONS.labels(profile.name).inc()
        pooled = PooledSession(
            session, profile.id, profile.name, profile.updated_at, profile.mailbox_id, slot, generation
        )
        self._lent.add(pooled)
        return pooled

    async def give_back(self, pooled: PooledSession) -> None:
        """Keep the session for the next slice, or close it where it is broken or its slot is not ours any more."""
        if pooled not in self._lent:
            return  # closed by `leave`
        self._lent.remove(pooled)
        if pooled.session.is_open and pooled.generation == self._generation:
            self._idle.setdefault(pooled.profile_id, []).append(pooled)
        else:
            await self._close(pooled)

    async def close_idle(self) -> None:
        """Close what has been idle for a while."""
        now = monotonic()
        await self._close_some(lambda pooled: now - pooled.session.last_used_at > IDLE_SECONDS)

    async def leave(self) -> None:
        """Say QUIT on every session, also on those of slices that wait for something else; break off what is busy.

        The process ends: no session may be taken any more.
        """
        lent, self._lent = self._lent, set()
        idle = [pooled for sessions in self._idle.values() for pooled in sessions]
        self._idle.clear()
        await asyncio.gather(*(self._close(pooled, within_seconds=LEAVING_SECONDS) for pooled in (*idle, *lent)))

    async def abandon_slots(self) -> None:
        """Close every session, now or when its slice gives it back, without giving slots back: others have them."""
        self._generation += 1
        await self._close_some(lambda _: True)

    async def _close_some(self, is_meant: Callable[[PooledSession], bool]) -> None:
        # Taken out before the first QUIT is waited for: meanwhile slices take sessions too.
        closing = [pooled for sessions in self._idle.values() for pooled in sessions if is_meant(pooled)]
        for pooled in closing:
            self._idle[pooled.profile_id].remove(pooled)
        await asyncio.gather(*(self._close(pooled) for pooled in closing))

    async def _close(self, pooled: PooledSession, *, within_seconds: float | None = None) -> None:
        try:
            async with asyncio.timeout(within_seconds):
                await pooled.session.quit()
        except TimeoutError:
            pooled.session.abort()
        finally:
            metrics.CONNECTIONS.labels(pooled.profile_name).dec()
            if pooled.generation == self._generation:
                await self._give_back_slot(pooled.mailbox_id, pooled.slot)

    async def _take_slot(self, mailbox_id: int) -> int | None:
        for _ in range(SLOT_TRIES):
            async with self._pool.connection() as connection:
                slot = await mailboxes.take_connection(connection, mailbox_id, self._worker_id)
            if slot is not None:
                return slot
        return None

    async def _give_back_slot(self, mailbox_id: int, slot: int | None) -> None:
        if slot is None:
            return
        try:
            async with self._pool.connection() as connection:
                await mailboxes.give_back_connection(connection, mailbox_id, slot, self._worker_id)
        except AWAY as error:
            # It is freed with our row: at the end of this process, or by the sweeper.
            _log.warning("connection slot not given back", mailbox=mailbox_id, slot=slot, error=str(error))
