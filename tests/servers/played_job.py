"""The play of one job: what befalls its parts, its workers and their mail, and what a person does, move by move.

After every move the model looks whether all is well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, assert_never
from uuid import uuid4

import msgspec

from tests.servers.gates import Fate, Place
from tests.servers.played_scene import SOON, Scene
from tests.servers.played_worker import LEASE_SECONDS, Pace
from tests.servers.state_model import BY_A_LATE_PART, read_copies
from tocsin_schema.contract.part import Content, JobPart, PartPosition, Priority, Recipient
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger import job_controls, recipient_controls
from tocsin_schema.ledger.actors import Actor, ActorKind
from tocsin_schema.ledger.pausing import resume_profile
from tocsin_schema.ledger.recipient_controls import Settlement
from tocsin_workers.intake.taking import take_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.servers.played_mail import Script

Move: TypeAlias = tuple[Any, ...]
"""A method of `PlayedJob` and its arguments."""

_PERSON: Final = Actor(ActorKind.LOGIN, "player")


@dataclass
class PlayedJob(Scene):
    """The moves: every public method but `play` is one, and nothing is assumed of their order."""

    async def play(self, moves: Sequence[Move]) -> None:
        """Play the job from its first part to its end."""
        try:
            await self.begin()
            self._id = uuid4()
            self._is_cancelled = False
            self._expires_at = await self._in_minutes(self.plan.minutes)
            await self._take_in(self.plan.first_to_come)
            for name, *arguments in moves:
                await getattr(self, name)(*arguments)
            await self.work_off()
        finally:
            await self.clear_away()

    # What is published, and what is left to chance.

    async def take_a_part_in(self, number: int) -> None:
        """Take a part in, perhaps for the second time."""
        await self._take_in(self.plan.first_to_come if self.plan.holds_back else number)

    async def _take_in(self, number: int) -> None:
        number = 1 + (number - 1) % len(self.plan.parts)
        before = await self._snapshot()
        part = JobPart(
            id=self._id,
            profile=self._profile.name,
            content=Content(subject="An incident", text="The library is closed."),
            mode=self.plan.mode,
            priority=self.plan.priority,
            on_unknown=self.plan.on_unknown,
            expires_at=self._expires_at,
            part=PartPosition(number=number, last=number == len(self.plan.parts)),
            recipients=tuple(Recipient(address) for address in self.plan.addresses(number)),
        )
        taken = await take_in(self._pool, msgspec.json.encode(part))
        self.number = taken.job_number
        self._model.addresses |= set(self.plan.addresses(number))
        await self._waker.wake_sender(taken.profile_id, taken.rank)
        is_late = before is not None and before.is_over and taken.result == "taken"
        self._note("part taken in twice", taken.result == "repeated")
        self._note("late part", is_late)
        await self._look(also=BY_A_LATE_PART)
        if is_late and self._expires_at is None and not self._is_cancelled:
            now = await self._snapshot()
            assert now is not None
            assert not now.is_over, "a late part did not open its job again"
            self._note("job opened again")

    async def lose_wake_ups(self) -> None:
        """Purge the queue of wake-ups."""
        self._note("wake-up lost", bool(self._waker.sent))
        self._waker.sent.clear()

    # What workers do, and what is done to them.

    async def begin_slice(self, which: int) -> None:
        """Let a worker take a wake-up, be it one that nobody has sent."""
        await self._begin_slice(self._awake(which))

    async def go_on(self, which: int, slice_number: int, gates: int, scripts: list[Script]) -> None:
        """Let a worker's slice on by some gates, or begin one; its next messages meet these scripts."""
        worker = self._awake(which)
        worker.foresee(scripts=scripts)
        await self._busy(worker)
        for _ in range(gates):
            if not await worker.go_on(slice_number):
                break
            self._note("gate passed")
            await self._look(worker)

    async def record(self, which: int) -> None:
        """Let a slow recorder on by one transaction."""
        worker = self._one_of([worker for worker in self.workers if worker.pace is not Pace.QUICK], which)
        self._note("late record", await worker.record())
        await worker.still()
        await self._look(worker)

    async def change_pace(self, which: int, pace: Pace) -> None:
        """Let a worker's recorder wait to be told from now on, or be as fast as ever again."""
        worker = self._worker(which)
        worker.pace = pace
        if not worker.is_frozen:
            await worker.still()
        await self._look(worker)

    async def trouble(self, which: int, fate: Fate, later: int) -> None:
        """Cut a worker off from the ledger for one of its next transactions, or lose the reply to its commit."""
        worker = self._awake(which)
        worker.foresee(fates=[*[Fate.WELL] * later, fate])
        await self._busy(worker)
        for _ in range(SOON):
            if worker.has_no_trouble_left or not await worker.go_on():
                break
            await self._look(worker)
        self._note(fate, worker.has_no_trouble_left)

    async def freeze(self, which: int, place: Place | None = None) -> None:
        """Stop a process (SIGSTOP)."""
        worker = await self._brought(which, place)
        worker.is_frozen = True
        for at in (Place.BODY, Place.DOT, Place.REPLY):
            self._note(f"frozen {at}", worker.is_at(at))

    async def freeze_past_the_lease(self, which: int, place: Place | None = None) -> None:
        """Stop a process until others have its work, which chance alone would do too rarely."""
        await self.freeze(which, place)
        await self.pass_time(1.5 * LEASE_SECONDS)
        await self.sweep()

    async def overtake(self, which: int, scripts: list[Script], place: Place | None) -> None:
        """Freeze a process while a reply is on its way, let another one try the same, and wake the first one."""
        self._worker(which).foresee(scripts=scripts)
        await self.freeze_past_the_lease(which, Place.REPLY)
        late = self._worker(which)
        await self._brought(which + 1, place)
        await late.thaw()
        await self._look(late)
        await late.go_on()
        await self._look(late)

    async def thaw(self, which: int) -> None:
        """Let a frozen process go on (SIGCONT): its next move may be any, before or after a sign of life."""
        worker = self._one_of([worker for worker in self.workers if worker.is_frozen], which)
        self._note("buried worker thawed", worker.is_frozen and worker.is_buried)
        await worker.thaw()
        await self._look(worker)

    async def beat(self, which: int) -> None:
        """Let a worker give a sign of life, and begin anew if it was taken for dead."""
        worker = self._worker(which)
        if not worker.is_frozen:
            await worker.beat()
            await self._look(worker)

    async def kill(self, which: int, place: Place | None = None) -> None:
        """End a process at once; another one comes in its place."""
        worker = await self._brought(which, place)
        self._note("killed with a reply on its way", worker.is_at(Place.REPLY))
        self.workers.remove(worker)
        await worker.kill()
        await self._add_worker()
        await self._look()

    async def stop(self, which: int, place: Place | None = None) -> None:
        """End a process in good order (SIGTERM); another one comes in its place."""
        worker = await self._brought(which, place)
        if worker.is_frozen:
            return
        self._note("stopped in the middle", not worker.is_idle)
        self._note("stopped with a reply on its way", worker.is_at(Place.REPLY))
        self.workers.remove(worker)
        await worker.stop()
        await self._look(worker)
        await self._add_worker()

    # What a person does.

    async def pause_or_resume(self) -> None:
        """Pause the job, or resume it where it is paused."""
        now = await self._snapshot()
        if now is not None and now.job_state == "paused":
            await self.resume()
        else:
            await self._control(job_controls.pause_job, "paused", reason=None)

    async def resume(self) -> None:
        """Resume the job."""
        await self._control(job_controls.resume_job, "resumed")

    async def cancel(self) -> None:
        """Cancel the job."""
        await self._control(job_controls.cancel_job, "cancelled", reason=None)

    async def retry_failed(self, days: int | None) -> None:
        """Have the failed tried again; with more `days` for the job also those who had expired."""
        before = self._model.last
        expires_at = await self._in_minutes(None if days is None else days * 24 * 60)
        again = frozenset({("failed", "pending"), ("expired", "pending")})
        self._model.given_again.update(address for address, state in before.items() if state == "failed")
        await self._control(recipient_controls.retry_failed, "retried", also=again, expires_at=expires_at)

    async def settle(self, settlement: Settlement) -> None:
        """Settle everybody whose fate is unknown."""
        unknown = {address for address, state in self._model.last.items() if state == "unknown"}
        match settlement:
            case Settlement.SENT:
                self._model.settled_as_sent |= unknown
            case Settlement.FAILED | Settlement.PENDING:
                self._model.given_again.update(unknown)
            case _:
                assert_never(settlement)
        again = frozenset({("unknown", settlement.value)})
        self._note(f"settled as {settlement}", bool(unknown))
        await self._control(recipient_controls.settle_unknown, "settled", settlement, also=again)

    async def _control(
        self,
        control: Callable[..., Awaitable[object]],
        what: str,
        *arguments: object,
        also: frozenset[tuple[str, str]] = frozenset(),
        **keywords: object,
    ) -> None:
        """Do what a person wants, unless it is refused."""
        if self.number is None:
            return
        try:
            await control(self._connection, self.number, *arguments, actor=_PERSON, **keywords)
        except UsageError:
            return
        self._note(what, what != "settled")
        self._is_cancelled |= what == "cancelled"
        await self._look(also=also)

    # The end.

    async def work_off(self) -> None:
        """Let everything come to rest: nobody dies any more, and the server takes whatever it is given."""
        for number in range(1, len(self.plan.parts) + 1):
            await self._take_in(number)
        before = await self._snapshot()
        had_ended = before is None or before.is_over
        if all(worker.is_frozen for worker in self.workers):
            await self._add_worker()
        for worker in self.workers:
            if not worker.is_frozen:
                await self._come_round(worker)
        await self.resume()
        async with self.access.transaction() as connection:
            await resume_profile(connection, self._profile.id)
        await self._until_the_end()
        # Who was frozen all the time has the last word, and it must not change much.
        for worker in self.workers:
            await self._come_round(worker)
        await self._until_the_end()
        now = await self._snapshot()
        assert now is not None
        assert self.number is not None
        self._model.look_back(now, await read_copies(self._connection, self.number))
        if self.plan.minutes is None and self.plan.priority is Priority.NORMAL and not had_ended:
            assert now.job_reason is None, "there was time enough, and nobody in the way"
        self._note_end(now)
