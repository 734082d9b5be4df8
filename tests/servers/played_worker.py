"""A worker process without the process: the real slices, recorder, lease and sessions, moved on from gate to gate.

What `process.runtime` and `process.registration` do in the background (heartbeat, a new lease, the last steps) is done
here by the player's word, in the same order. Every transaction with the ledger and every step of a mail transaction
that matters has a gate before it, where the process can be frozen for as long as one likes, killed, or cut off from the
ledger.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, assert_never, cast
from uuid import uuid4

import psycopg

from tests.servers.gates import Fate, Gate, Place, current_gate, gated, pass_gate
from tests.servers.played_mail import PlayedSession, Script
from tocsin_schema.ledger import wakeups, worker_leases
from tocsin_schema.ledger.connection import AWAY
from tocsin_workers.sender.desk import SenderDesk
from tocsin_workers.sender.lease import WorkerLease
from tocsin_workers.sender.recording import Recorder
from tocsin_workers.sender.retrying import RetrySchedule
from tocsin_workers.sender.session_pool import SessionPool
from tocsin_workers.sender.slice import work_slice

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from uuid import UUID

    from tests.servers.played_mail import Delivery, PlayedMailServer
    from tests.servers.virtual_clock import VirtualClock
    from tocsin_schema.ledger.connection import Connection, Pool
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.authorizing import CredentialSource
    from tocsin_workers.sender.recording import MarkRequest, MessageOutcome
    from tocsin_workers.smtp.dialogue import Transaction
    from tocsin_workers.smtp.session import Session
    from tocsin_workers.waking import Waker

LEASE_SECONDS: Final = 30.0


class Pace(StrEnum):
    """How fast a recorder is."""

    QUICK = "quick"
    """It writes at once what it is given."""
    HOLDS_OUTCOMES = "holds outcomes"
    """It gives marks as long as it has no outcome in hand: so more and more is in doubt."""
    HOLDS_ALL = "holds all"
    """It waits to be told: replies come before marks, and bodies are begun before an answer about them is there."""


#: Rounds of the event loop without a move after which nobody is moving any more.
_STILL: Final = 20


@dataclass(slots=True)
class LedgerAccess:
    """One connection to the ledger for everybody, one transaction at a time: who is first does not depend on luck."""

    connection: Connection
    transactions: int = 0
    """How many there were so far."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _busy: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """Commit at the end, roll back at an exception."""
        self._busy += 1
        self.transactions += 1
        try:
            async with self._turn, self.connection.transaction():
                yield self.connection
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def still(self) -> None:
        """Wait until every task waits at a gate, for another task, or has ended."""
        rounds = 0
        while rounds < _STILL:
            await asyncio.sleep(0)
            rounds += 1
            if self._busy:
                self._idle.clear()
                await self._idle.wait()
                rounds = 0


class PlayedPool:
    """Stands for a process's pool: a gate before every transaction. Without a worker it is the player's own."""

    def __init__(self, access: LedgerAccess, worker: PlayedWorker | None = None) -> None:
        self._access = access
        self._worker = worker

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Give the connection for one transaction, as the real pool does."""
        fate = await pass_gate(Place.LEDGER)
        if fate is Fate.AWAY:
            raise psycopg.OperationalError("played: the ledger is away")
        async with self._access.transaction() as connection:
            yield connection
        if (gate := current_gate()) is not None and self._worker is not None:
            gate.in_touch_since = self._worker.in_touch_since
        if fate is Fate.REPLY_LOST:
            raise psycopg.OperationalError("played: the connection broke after the commit")


@dataclass(slots=True)
class PlayedWaker:
    """Stands for a waker and its message broker: what was sent lies here until somebody takes or loses it."""

    access: LedgerAccess
    sent: deque[tuple[UUID, int]] = field(default_factory=deque[tuple["UUID", int]])

    async def wake_sender(self, profile_id: UUID, rank: int) -> None:
        """Note a wake-up in the ledger, as the real one does, and send it."""
        async with self.access.transaction() as connection:
            wanted = await wakeups.note_wakeup(connection, profile_id, rank)
        if wanted:
            self.sent.append((profile_id, rank))


class PlayedDesk(SenderDesk):
    """A desk that opens sessions with the played server."""

    mail: PlayedMailServer
    worker: PlayedWorker

    async def open_session(self, profile: SenderProfile) -> Session:
        """Be let in at once."""
        return cast("Session", PlayedSession(self.mail, self.worker, self.sessions.pipelining.form_for(profile)))


class NotedRecorder(Recorder):
    """The recorder, of which the player knows what it was given, and whether it is about to write outcomes."""

    def __init__(self, pool: Pool, worker: PlayedWorker) -> None:
        super().__init__(pool, worker.lease.worker_id)
        self.writes_outcomes = False
        self._worker = worker

    def put(self, outcome: MessageOutcome) -> asyncio.Future[None]:
        """Hand over an outcome, and remember which delivery it tells of."""
        committed = super().put(outcome)
        if outcome.copy is not None:
            self._worker.told.pop().committed = committed
        return committed

    async def _gather(self) -> None:
        """Let no group grow by itself: time passes when the player says so, who lets the recorder on."""

    async def _write(self, outcomes: list[MessageOutcome], requests: Sequence[MarkRequest]) -> None:
        self.writes_outcomes = bool(outcomes)
        try:
            await super()._write(outcomes, requests)
        finally:
            self.writes_outcomes = False


class PlayedWorker:
    """One worker process: up to a few slices, a recorder, a lease."""

    def __init__(self, access: LedgerAccess, clock: VirtualClock, mail: PlayedMailServer, waker: PlayedWaker) -> None:
        self.clock = clock
        self.is_frozen = False
        self.pace = Pace.QUICK
        self.in_touch_since = 0
        """Grows whenever others take over what this process has in hand."""
        self.most_in_doubt = 0
        """Messages of one slice that were in doubt at once because of that."""
        self.is_buried = False
        """Whether the sweeper has taken this process for dead since it last took a lease."""
        self.told: list[Delivery] = []
        """Deliveries of which the process knows and of which the recorder was not told yet: one at most."""
        self.slices: list[tuple[asyncio.Task[Any], Gate]] = []
        self._access = access
        self._mail = mail
        self._scripts: deque[Script] = deque()
        self._fates: deque[Fate] = deque()
        pool = cast("Pool", PlayedPool(access, self))
        self.lease = WorkerLease(uuid4(), LEASE_SECONDS)
        self._recorder = NotedRecorder(pool, self)
        self._recorder_gate = Gate()
        self._recorder_task = gated(self._recorder.run(), self._recorder_gate)
        self.desk = PlayedDesk(
            pool=pool,
            lease=self.lease,
            recorder=self._recorder,
            sessions=SessionPool(pool, self.lease.worker_id),
            credentials=cast("CredentialSource", None),
            waker=cast("Waker", waker),
            stopping=asyncio.Event(),
            schedule=RetrySchedule(),
        )
        self.desk.mail, self.desk.worker = mail, self

    # What the player says.

    async def register(self) -> None:
        """Take a lease."""
        async with self._access.transaction() as connection:
            await worker_leases.register_worker(
                connection, self.lease.worker_id, host="here", pid=1, role="all", lease_seconds=LEASE_SECONDS
            )
        self.is_buried = False
        self.lease.renew(self.clock.read())

    async def beat(self) -> None:
        """Give a sign of life, as the runtime does; begin anew where we were taken for dead meanwhile."""
        sent_at = self.clock.read()
        async with self._access.transaction() as connection:
            alive = await worker_leases.beat(connection, self.lease.worker_id)
        if not alive or self.lease.is_lost:
            self.lease.lose()
            await self.desk.sessions.abandon_slots()
            await self.register()
            self.lease.lose()
            self.lease.renew(sent_at)
            return
        self.lease.renew(sent_at)
        async with self._access.transaction() as connection:
            await worker_leases.release_forgotten_batches(
                connection, self.lease.worker_id, sorted(self.desk.in_hand), older_than_seconds=LEASE_SECONDS
            )

    async def begin_slice(self, profile_id: UUID, rank: int) -> None:
        """Take a wake-up."""
        self.slices = [one for one in self.slices if not one[0].done()]
        gate = Gate()
        self.slices.append((gated(self._work(profile_id, rank), gate), gate))
        await self.still()

    def foresee(self, *, scripts: Iterable[Script] = (), fates: Iterable[Fate] = ()) -> None:
        """Say how the next mail transactions go, and the next transactions with the ledger."""
        self._scripts.extend(scripts)
        self._fates.extend(fates)

    def is_at(self, place: Place | None) -> bool:
        """Whether one of its slices waits there."""
        return any(place in gate.places for _, gate in self.slices)

    @property
    def has_no_trouble_left(self) -> bool:
        """Whether all has come that was foreseen of the ledger."""
        return not self._fates

    async def go_on(self, which: int = 0) -> bool:
        """Let one slice on to its next gate; False where none can go on."""
        waiting = [(gate, place) for _, gate in self.slices for place in range(len(gate.places))]
        if self.is_frozen or not waiting:
            return False
        self._let_on(*waiting[which % len(waiting)])
        await self.still()
        return True

    async def record(self) -> bool:
        """Let the recorder on; False where it has nothing to do."""
        if self.is_frozen or not self._recorder_gate.places:
            return False
        self._let_on(self._recorder_gate, 0)
        await self._access.still()
        return True

    async def still(self) -> None:
        """Wait until nobody moves; the recorder writes what it may at its pace."""
        await self._access.still()
        while self._may_record and await self.record():
            pass
        for task, _ in self.slices:
            if task.done() and not task.cancelled():
                task.result()  # nothing that a server or the ledger does may come out of a slice as an error

    def forget(self) -> None:
        """Take back whatever was foreseen: from now on all goes well."""
        self.is_frozen, self.pace = False, Pace.QUICK
        self._scripts.clear()
        self._fates.clear()

    @property
    def is_idle(self) -> bool:
        """Whether no slice is under way."""
        return all(task.done() for task, _ in self.slices)

    async def kill(self) -> None:
        """End like a process that gets SIGKILL: nothing in its memory ever reaches the ledger."""
        self.lose_touch()
        for gate in (self._recorder_gate, *(gate for _, gate in self.slices)):
            gate.break_off()
        tasks = [self._recorder_task, *(task for task, _ in self.slices)]
        while not all(task.done() for task in tasks):
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # KilledError; looked at, so that nobody misses it

    async def stop(self) -> None:
        """End like a process whose grace period is over, in the order of `Runtime.close`."""
        self.forget()
        self.desk.stopping.set()
        for task, _ in self.slices:
            task.cancel()
        await self.still()
        while await self.go_on():
            pass
        self._recorder_task.cancel()
        await self._access.still()
        await self.record()
        await self._recorder.drain()
        for delivery in self._mail.deliveries:
            delivery.is_drained |= delivery.worker is self and delivery.is_told
        await self.desk.sessions.leave()
        async with self._access.transaction() as connection:
            await worker_leases.retire_worker(connection, self.lease.worker_id)
        assert self.is_idle, "a slice outlives its process"
        self.lose_touch()

    def lose_touch(self) -> None:
        """Note that others take over: whatever was delivered and is not committed yet may be sent again."""
        self.in_touch_since += 1
        doubtful = [
            delivery
            for delivery in self._mail.deliveries
            if delivery.worker is self and not delivery.is_committed and not delivery.is_in_doubt
        ]
        for delivery in doubtful:
            delivery.is_in_doubt = True
        self.most_in_doubt = max(self.most_in_doubt, *Counter(one.gate for one in doubtful).values(), 0)

    async def thaw(self) -> None:
        """Go on after a freeze, but for the recorder: a body may be begun before anything is heard from the ledger."""
        self.is_frozen = False
        await self._access.still()

    # What its slices ask.

    def is_leasing(self) -> bool:
        """Whether nobody can have taken this process for dead since its last sign of life."""
        return self.clock.read() < self.lease.renewed_at + LEASE_SECONDS

    def next_script(self) -> Script:
        """Give what the server says in the next transaction: yes, unless something else was foreseen."""
        return self._scripts.popleft() if self._scripts else Script()

    def hear_of(self, delivery: Delivery, transaction: Transaction) -> None:
        """Take note of the end of a transaction in which the server took the message."""
        if transaction.final is not None and transaction.final.accepted:
            delivery.is_told = True
            self.told.append(delivery)
        else:
            delivery.is_in_doubt = True

    @property
    def _may_record(self) -> bool:
        match self.pace:
            case Pace.QUICK:
                return True
            case Pace.HOLDS_OUTCOMES:
                return not self._recorder.writes_outcomes
            case Pace.HOLDS_ALL:
                return False
            case _:
                assert_never(self.pace)

    def _let_on(self, gate: Gate, which: int) -> None:
        in_question = gate.places[which] is Place.LEDGER and bool(self._fates)
        gate.let_on(which, self._fates.popleft() if in_question else Fate.WELL)

    async def _work(self, profile_id: UUID, rank: int) -> None:
        with suppress(*AWAY):  # as the actor does: the sweeper wakes others
            await work_slice(self.desk, profile_id, rank)
