"""Where a job is played: its ledger and mail server, its workers, the sweeper, time, and a model that looks at it all.

What is played is the product's own code but for dramatiq, the network and the clock. Two transactions with the ledger
never overlap, so what locks are for is not shown here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, LiteralString, cast

from psycopg import sql

from tests.servers.ledger_rows import add_profile
from tests.servers.played_mail import PlayedMailServer
from tests.servers.played_worker import PlayedPool, PlayedWaker, PlayedWorker
from tests.servers.state_model import SWEEPER, StateModel, take_snapshot
from tocsin_schema.contract.part import Mode, OnUnknown, Priority
from tocsin_workers.smtp.pipelining import Pipelining
from tocsin_workers.sweeping import sweep

if TYPE_CHECKING:
    from collections import Counter
    from datetime import datetime

    from tests.servers.gates import Place
    from tests.servers.ledger_rows import Profile
    from tests.servers.played_worker import LedgerAccess
    from tests.servers.state_model import Snapshot
    from tests.servers.virtual_clock import VirtualClock
    from tocsin_schema.ledger.connection import Connection, Pool
    from tocsin_workers.waking import Waker

#: Messages of one slice that may be in doubt at once; small, so that a few recipients are more than one window.
WINDOW: Final = 4
WORKERS: Final = 2
#: Gates that a worker passes at most to come to a place where something befalls it.
SOON: Final = 12

_SLICES_A_WORKER: Final = 2
_PATIENCE_SECONDS: Final = 70.0
_QUIET_SECONDS: Final = 2 * 3600.0
_LONGEST_QUIET: Final = 60
_LONGEST_WAIT: Final = 60


@dataclass(frozen=True, slots=True)
class JobPlan:
    """The job that is played: `parts` are sizes; `minutes` is its life, None for as long as its priority has.

    `first_to_come` is the part that is there when the play begins; with `holds_back` the others come at its very end.
    """

    mode: Mode = Mode.SHARED
    on_unknown: OnUnknown = OnUnknown.RESEND
    priority: Priority = Priority.NORMAL
    parts: tuple[int, ...] = (3,)
    batch_size: int = 2
    minutes: int | None = None
    has_malformed: bool = False
    first_to_come: int = 1
    holds_back: bool = False
    pipelining: Pipelining = Pipelining.ENVELOPE

    def addresses(self, number: int) -> list[str]:
        """Give a part's addresses: the third of part 1 needs SMTPUTF8, and the last one may be malformed."""
        addresses = [f"r{number}-{place}@campus.example" for place in range(self.parts[number - 1])]
        if number == 1 and len(addresses) > 2:
            addresses[2] = "grüße@campus.example"
        if self.has_malformed:
            addresses[-1] = f"malformed {number}"
        return addresses


@dataclass
class Scene:
    """One play's world. `seen` counts what has happened in all plays: one in which nothing happens shows nothing."""

    access: LedgerAccess
    clock: VirtualClock
    plan: JobPlan
    seen: Counter[str]
    mail: PlayedMailServer = field(init=False, default_factory=PlayedMailServer)
    workers: list[PlayedWorker] = field(init=False, default_factory=list[PlayedWorker])
    number: int | None = field(init=False, default=None)
    """The job's number, once a part was taken in."""

    async def begin(self) -> None:
        """Set the stage: a profile, workers, and a model."""
        await self.clock.begin_anew()
        self._profile: Profile = await add_profile(self._connection)
        await self._connection.execute(
            "UPDATE sending_profiles SET batch_size = %s, pipelining = %s WHERE id = %s",
            [self.plan.batch_size, self.plan.pipelining, self._profile.id],
        )
        # An urgent job has an hour, so that its time can run out in a play; who asks for more minutes gets those.
        await self._connection.execute(
            "INSERT INTO settings (key, value) VALUES ('UrgentExpiryHours', '1') ON CONFLICT DO NOTHING"
        )
        self._waker = PlayedWaker(self.access)
        self._pool = cast("Pool", PlayedPool(self.access))
        self._looked_at = (0, 0)
        self._model = StateModel(self.mail, self.plan.on_unknown, WINDOW)
        for _ in range(WORKERS):
            await self._add_worker()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass; whoever is not frozen gives a sign of life."""
        await self.clock.pass_seconds(seconds)
        for worker in self.workers:
            if not worker.is_frozen:
                await worker.beat()
                await worker.still()  # a time slot may have come, or a mark have become old
                await self._look(worker)
        await self._look()

    async def sweep(self) -> None:
        """Sweep, as any pod may, and see who was taken for dead."""
        states = self._model.last
        await sweep(self._pool, cast("Waker", self._waker), may_bury=lambda: True)
        rows = {row[0] for row in await self._ask("SELECT id FROM workers")}
        for worker in self.workers:
            if worker.lease.worker_id not in rows and not worker.is_buried:
                self._note("frozen worker buried")
                worker.is_buried = True
                worker.lose_touch()
        await self._look(SWEEPER)
        held = [one for one, state in self._model.last.items() if (states.get(one), state) == ("in_flight", "unknown")]
        self._note("held in doubt", bool(held))

    async def clear_away(self) -> None:
        """End all processes and remove all rows."""
        for worker in self.workers:
            await worker.kill()
        if self.number is not None:
            partitioned = {str(table) for (table,) in await self._ask("SELECT unnest(partitioned_tables())")}
            for table in (partitioned - {"jobs"}) | {"job_ids", "suppressions"}:
                await self._connection.execute(
                    sql.SQL("DELETE FROM {} WHERE job_number = {}").format(sql.Identifier(table), self.number)
                )
            await self._connection.execute("DELETE FROM jobs WHERE number = %s", [self.number])
        for table in ("mailbox_connections", "workers", "wakeups", "sending_profiles", "mailboxes"):
            await self._connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))

    @property
    def _connection(self) -> Connection:
        return self.access.connection

    async def _ask(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        return await (await self._connection.execute(query, parameters)).fetchall()

    async def _in_minutes(self, minutes: int | None) -> datetime | None:
        ((now,),) = await self._ask("SELECT now()")
        return None if minutes is None else cast("datetime", now) + timedelta(minutes=minutes)

    def _worker(self, which: int) -> PlayedWorker:
        return self.workers[which % len(self.workers)]

    def _awake(self, which: int) -> PlayedWorker:
        """Give a worker that can work, if there is one."""
        return self._one_of([worker for worker in self.workers if not worker.is_frozen], which)

    def _one_of(self, workers: list[PlayedWorker], which: int) -> PlayedWorker:
        return workers[which % len(workers)] if workers else self._worker(which)

    async def _add_worker(self) -> None:
        worker = PlayedWorker(self.access, self.clock, self.mail, self._waker)
        await worker.register()
        self.workers.append(worker)

    async def _brought(self, which: int, place: Place | None) -> PlayedWorker:
        """Give a worker whose slice has come to this place, if it comes there soon; None: wherever it is."""
        worker = self._worker(which)
        if place is not None:
            await self._busy(worker)
        for _ in range(SOON if place is not None else 0):
            if worker.is_at(place) or not await worker.go_on():
                break
            await self._look(worker)
        return worker

    async def _begin_slice(self, worker: PlayedWorker) -> None:
        if worker.is_frozen or sum(not task.done() for task, _ in worker.slices) >= _SLICES_A_WORKER:
            return
        if self._waker.sent:
            self._waker.sent.popleft()
        await worker.begin_slice(self._profile.id, self.plan.priority.rank)
        await self._look(worker)

    async def _busy(self, worker: PlayedWorker) -> None:
        """Give a worker that is idle something to do: time passes if nothing can be sent now."""
        if not worker.is_idle or worker.is_frozen:
            return
        ((can_send,),) = await self._ask(
            "SELECT EXISTS (SELECT FROM sendable_jobs)"
            " AND NOT EXISTS (SELECT FROM mailboxes WHERE parked_until > now())"
        )
        if not can_send:
            await self.pass_time(_PATIENCE_SECONDS)
        await self._begin_slice(worker)

    async def _come_round(self, worker: PlayedWorker) -> None:
        """Let a worker do what it has in hand, with no more trouble of any kind."""
        worker.forget()
        await worker.still()
        await self._let_on(worker)

    async def _until_the_end(self) -> None:
        """Sweep, take wake-ups and let time pass until the job is over and no batch is left."""
        for round_number in range(_LONGEST_QUIET):
            await self.sweep()
            while self._waker.sent:
                worker = self._awake(round_number)
                await self._begin_slice(worker)
                await self._let_on(worker)
            if await self._has_ended():
                break
            await self.pass_time(_QUIET_SECONDS)

    async def _let_on(self, worker: PlayedWorker) -> None:
        """Let a worker work off what it has in hand."""
        await self._look(worker)
        for _ in range(_LONGEST_WAIT):
            while await worker.go_on():
                await self._look(worker)
            if worker.is_idle:
                return
            await self.pass_time(1.0)  # it may wait for the time slot of a message
        assert worker.is_idle, "a slice hangs"

    async def _snapshot(self) -> Snapshot | None:
        return None if self.number is None else await take_snapshot(self._connection, self.number)

    async def _has_ended(self) -> bool:
        now = await self._snapshot()
        return now is None or (now.is_over and all(batch["state"] == "done" for batch in now.batches.values()))

    async def _look(
        self, mover: PlayedWorker | str | None = None, *, also: frozenset[tuple[str, str]] = frozenset()
    ) -> None:
        if self._looked_at == (self.access.transactions, len(self.mail.deliveries)) and isinstance(mover, PlayedWorker):
            return  # it has moved between two gates, and nothing has changed that could be seen
        self._looked_at = (self.access.transactions, len(self.mail.deliveries))
        now = await self._snapshot()
        if now is None:
            return
        for address, state in now.states.items():
            before = self._model.last.get(address, "nothing")
            self._note(f"{before} to {state}", before != state)
        self._model.look(now, mover.lease.worker_id if isinstance(mover, PlayedWorker) else mover, also=also)

    def _note(self, what: str, has_happened: object = True) -> None:
        if has_happened:
            self.seen[what] += 1

    def _note_end(self, now: Snapshot) -> None:
        self._note("plays")
        self._note(f"ended {now.job_state}: {now.job_reason}")
        for address in now.states:
            self._note("double", len(self.mail.taken(address)) > 1)
        self._note("delivery in doubt", any(delivery.is_in_doubt for delivery in self.mail.deliveries))
