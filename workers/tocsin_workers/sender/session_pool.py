"""Open SMTP sessions of a process, kept between slices; and the fleet-wide slot that each of them holds.

A slot is taken before a connection is opened and given back after it is closed, so that a mailbox never has more
connections than its provider allows, whoever opens them. Who finds no slot says so in the ledger: a session that lies
idle is closed then, and profiles that share a mailbox take turns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.ledger import learned_limits, mailboxes
from tocsin_schema.ledger.connection import AWAY
from tocsin_schema.ledger.mailboxes import HORIZON_SECONDS
from tocsin_workers import metrics
from tocsin_workers.sender.pipelining_memory import PipeliningMemory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.smtp.pipelining import Pipelining
    from tocsin_workers.smtp.session import Session

_log = structlog.get_logger(__name__)

#: Amazon SES hangs up after about 10 s; a limited mailbox's slot should not lie idle either.
IDLE_SECONDS = 3.0
#: Long-lived connections pile up on old servers behind a provider's load balancer.
OLDEST_SECONDS = 300.0
MOST_TRANSACTIONS = 1000
#: How long a mail server is waited for that does not answer our last QUIT.
LEAVING_SECONDS = 1.0
#: How long a profile keeps a session that another one waits for, unless that one's job is more urgent.
TURN_SECONDS = 5.0
#: How long no connection is opened to a server that has just refused one more.
HOLD_SECONDS = 5.0
#: Two pods may reach for the same free slot; the loser tries another one.
SLOT_TRIES = 3


@dataclass(slots=True, eq=False)
class PooledSession:
    """A session with what it holds: its profile as it was when it was opened, and its slot if there are slots.

    With another `generation` than its pool's, the slot was given to somebody else meanwhile. `is_over` says that it
    shall not be kept.
    """

    session: Session
    profile_id: UUID
    profile_name: str
    profile_updated_at: datetime
    mailbox_id: int
    slot: int | None
    generation: int
    is_over: bool = False

    def is_fit(self, profile: SenderProfile, now: float) -> bool:
        """Whether it may carry another slice: open, young, not worn out, and of the profile as it is now.

        Nor may it be one too many, where connections are fewer than they were or were not limited before.
        """
        return (
            self.session.is_open
            and not self.is_over
            and not _is_too_many(self.slot, profile.connections)
            and self.profile_updated_at == profile.updated_at
            and now - self.session.opened_at < OLDEST_SECONDS
            and self.session.counters.transactions < MOST_TRANSACTIONS
        )


def _is_too_many(slot: int | None, connections: int | None) -> bool:
    return connections is not None and (slot is None or slot > connections)


class SessionPool:
    """Sessions by profile. Belongs to one event loop."""

    def __init__(self, pool: Pool, worker_id: UUID) -> None:
        self._pool = pool
        self._worker_id = worker_id
        self._idle: dict[UUID, list[PooledSession]] = {}
        self._lent: set[PooledSession] = set()
        self._generation = 0
        self.pipelining = PipeliningMemory()
        self._connections: dict[int, int | None] = {}
        """By mailbox, the number of connections that was last seen in force."""
        self._held_until: dict[int, float] = {}

    @property
    def open_by_mailbox(self) -> Counter[int]:
        """How many sessions of this process are open, by the mailbox."""
        idle = (pooled for sessions in self._idle.values() for pooled in sessions)
        return Counter(pooled.mailbox_id for pooled in (*idle, *self._lent))

    def has_left(self, profile: SenderProfile) -> bool:
        """Whether somebody else would find a connection of the profile: a new one, or one that lies idle here."""
        return (
            profile.connections is None
            or profile.connections_open < profile.connections
            or bool(self._idle.get(profile.id))
        )

    async def take(
        self, profile: SenderProfile, open_session: Callable[[], Awaitable[Session]], *, rank: int = 1
    ) -> PooledSession | None:
        """Give a session of the profile, an idle one or a new one; None where the mailbox has no connection left.

        None, too, where another profile on the mailbox waits for one and it is its turn, and where the next message may
        not go out for a while. Raises what `open_session` raises; the slot is given back then.
        """
        if profile.messages_per_minute is not None and profile.next_slot_in_seconds > HORIZON_SECONDS:
            return None
        self._connections[profile.mailbox_id] = profile.connections
        kept, is_anothers_turn = await self._take_idle(profile, rank)
        if kept is not None or is_anothers_turn:
            return kept
        if monotonic() < self._held_until.get(profile.mailbox_id, 0.0):
            return None
        generation = self._generation
        slot: int | None = None
        if profile.connections is not None:
            slot = await self._take_slot(profile, rank)
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

    async def _take_idle(self, profile: SenderProfile, rank: int) -> tuple[PooledSession | None, bool]:
        """Give an idle session that is fit, if there is one; or whether one was closed for another profile."""
        idle = self._idle.get(profile.id, [])
        while idle:
            pooled = idle.pop()
            self._lent.add(pooled)
            is_fit = pooled.is_fit(profile, monotonic())
            try:
                if is_fit and not await self._is_anothers_turn(pooled, profile, rank):
                    return pooled, False
            except BaseException:
                await self.give_back(pooled)
                raise
            self._lent.discard(pooled)
            await self._close(pooled)
            if is_fit:
                return None, True
        return None, False

    async def give_back(self, pooled: PooledSession) -> None:
        """Keep the session for the next slice, or close it where it is broken or its slot is not ours any more."""
        if pooled not in self._lent:
            return  # closed by `leave`
        self._lent.remove(pooled)
        is_kept = not pooled.is_over and not _is_too_many(pooled.slot, self._connections.get(pooled.mailbox_id))
        if is_kept and pooled.session.is_open and pooled.generation == self._generation:
            self._idle.setdefault(pooled.profile_id, []).append(pooled)
        else:
            await self._close(pooled)

    def hold(self, mailbox_id: int, connections: int | None) -> None:
        """Take note that a server has refused one more, and of how many are in force now: open none for a moment."""
        self._held_until[mailbox_id] = monotonic() + HOLD_SECONDS
        if connections is not None:
            self._connections[mailbox_id] = connections

    async def close_idle(self) -> None:
        """Close what has been idle for a while; at once, where somebody waits for its slot."""
        now = monotonic()
        await self._close_some(lambda pooled: now - pooled.session.last_used_at > IDLE_SECONDS)
        limited = {one.mailbox_id: one for idle in self._idle.values() for one in idle if one.slot is not None}
        if not limited:
            return
        async with self._pool.connection() as connection:
            wanted = await mailboxes.grant_idle_connections(connection, sorted(limited))
        for_others = {id(limited[mailbox_id]) for mailbox_id in wanted}
        await self._close_some(lambda pooled: id(pooled) in for_others)

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
        if (learned := self.pipelining.after(pooled.mailbox_id, pooled.session.pipelining)) is not None:
            await self._tell_of_pipelining(pooled, learned)

    async def _is_anothers_turn(self, pooled: PooledSession, profile: SenderProfile, rank: int) -> bool:
        """Whether to close a session for another profile on the mailbox, which waits for its slot."""
        if profile.wanted_by_other is None or pooled.slot is None:
            return False
        had_its_turn = monotonic() - pooled.session.opened_at > TURN_SECONDS
        if profile.wanted_by_other > rank or (profile.wanted_by_other == rank and not had_its_turn):
            return False
        async with self._pool.connection() as connection:
            return await mailboxes.grant_connection(connection, profile.mailbox_id, profile.id)

    async def _take_slot(self, profile: SenderProfile, rank: int) -> int | None:
        for _ in range(SLOT_TRIES):
            async with self._pool.connection() as connection:
                slot = await mailboxes.take_connection(connection, profile.mailbox_id, self._worker_id)
                if slot is not None and profile.is_wanting:
                    await mailboxes.stop_wanting_connection(connection, profile.mailbox_id, profile.id)
            if slot is not None:
                return slot
        async with self._pool.connection() as connection:
            await mailboxes.want_connection(connection, profile.mailbox_id, profile.id, rank)
        return None

    async def _tell_of_pipelining(self, pooled: PooledSession, learned: Pipelining) -> None:
        """Remember for the fleet what a server did not break on."""
        _log.warning(
            "a mail server breaks on pipelining; less of it is used for a day",
            server=pooled.session.server,
            pipelining=learned.value,
        )
        with suppress(*AWAY):
            async with self._pool.connection() as connection:
                await learned_limits.learn_pipelining(connection, pooled.mailbox_id, learned.value)

    async def _give_back_slot(self, mailbox_id: int, slot: int | None) -> None:
        if slot is None:
            return
        try:
            async with self._pool.connection() as connection:
                await mailboxes.give_back_connection(connection, mailbox_id, slot, self._worker_id)
        except AWAY as error:
            # It is freed with our row: at the end of this process, or by the sweeper.
            _log.warning("connection slot not given back", mailbox=mailbox_id, slot=slot, error=str(error))
