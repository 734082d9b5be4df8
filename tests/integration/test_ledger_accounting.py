"""Whatever senders do, however late, and whoever dies: the counts are true and nobody is skipped."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import psycopg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.servers.ledger_rows import add_job, add_profile, add_worker, batch_states, counts_of, states_of
from tests.servers.ledger_sender import (
    accepted,
    bury,
    claim,
    deferred,
    in_doubt,
    mark,
    refused,
    release,
    write,
)
from tocsin_schema.ledger import sending

if TYPE_CHECKING:
    from uuid import UUID

    from tests.servers.ledger_rows import Profile
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.sending import ClaimedBatch

RECIPIENTS, BATCH_SIZE, WORKERS = 5, 3, 2
Verdict: TypeAlias = Literal["sent", "failed", "deferred", "in doubt"]


@dataclass(slots=True)
class Hand:
    """A batch in a worker's hand, from its claim on; a dead worker still thinks that it has it."""

    worker: UUID
    batch: ClaimedBatch
    due: set[int]
    is_alive: bool = True
    marked: set[int] = field(default_factory=set[int])


@dataclass(slots=True)
class Fleet:
    """Two senders on one job, and what must be true of it after each of their moves."""

    connection: Connection
    profile: Profile
    job: int
    on_unknown: str
    workers: list[UUID]
    hands: list[Hand] = field(default_factory=list[Hand])
    accepted: set[int] = field(default_factory=set[int])

    async def claim(self, who: int, limit: int) -> None:
        """Claim and screen, as a slice does."""
        worker = self.workers[who % WORKERS]
        for batch in await claim(self.connection, self.profile, worker, 1 + limit % 2):
            known = {
                one.ordinal - batch.first_ordinal: one.due_in_seconds
                for one in await sending.read_claimed_exceptions(self.connection, [batch])
            }
            due = {
                index
                for index in range(batch.size)
                if not batch.is_sent(index) and ((seconds := known.get(index, 0.0)) is not None and seconds <= 0)
            }
            self.hands.append(Hand(worker, batch, due))

    async def mark(self, which: int, count: int) -> None:
        """Mark the next recipients in flight."""
        if not self.hands:
            return
        hand = self.hands[which % len(self.hands)]
        chosen = sorted(hand.due)[: 1 + count % BATCH_SIZE]
        if not chosen:
            return
        ours = await mark(self.connection, hand.worker, hand.batch, sum(1 << index for index in chosen))
        assert ours == hand.is_alive
        if ours:
            hand.due -= set(chosen)
            hand.marked |= set(chosen)

    async def settle(self, which: int, verdict: Verdict) -> None:
        """Record what the provider said of one recipient, however late."""
        hand = next((hand for hand in self._rotated(which) if hand.marked), None)
        if hand is None:
            return
        index = min(hand.marked)
        hand.marked.remove(index)
        match verdict:
            case "sent":
                self.accepted.add(hand.batch.first_ordinal + index)
                await write(self.connection, hand.batch, accepted(index))
            case "failed":
                await write(self.connection, hand.batch, refused(index))
            case "in doubt" if self.on_unknown == "hold":
                await write(self.connection, hand.batch, in_doubt(index))
            case "in doubt" | "deferred":
                await write(self.connection, hand.batch, deferred(index, seconds=0.0))

    async def release(self, which: int) -> None:
        """Give a batch back, once all outcomes are recorded."""
        hand = next((hand for hand in self._rotated(which) if not hand.marked), None)
        if hand is None:
            return
        released = await release(self.connection, hand.worker, hand.batch)
        assert bool(released) == hand.is_alive
        self.hands.remove(hand)

    async def die(self, who: int) -> None:
        """Let a worker be taken for dead; another one comes in its place."""
        worker = self.workers[who % WORKERS]
        await bury(self.connection, worker)
        for hand in self.hands:
            hand.is_alive = hand.is_alive and hand.worker != worker
        self.workers[who % WORKERS] = await add_worker(self.connection)

    async def check(self) -> None:
        """Check what must always be true."""
        states = await states_of(self.connection, self.job)
        assert await counts_of(self.connection, self.job) == Counter(states)
        assert {ordinal for ordinal, state in enumerate(states) if state == "sent"} == self.accepted
        batches = await batch_states(self.connection, self.job)
        skipped = [
            ordinal
            for ordinal, state in enumerate(states)
            if state == "pending" and batches[ordinal // BATCH_SIZE] == "done"
        ]
        assert not skipped
        if self.on_unknown == "hold":
            doubtful = {h.batch.first_ordinal + i for h in self.hands if not h.is_alive for i in h.marked}
            assert not [ordinal for ordinal in doubtful if states[ordinal] == "pending"]

    async def finish(self) -> None:
        """Let every worker go and a last one do the rest: everyone must reach an end."""
        for who in range(WORKERS):
            await self.die(who)
        while True:
            self.hands.clear()
            # A batch whose workers keep dying waits a while; nobody here can wait.
            await self.connection.execute("UPDATE batches SET due_at = now() WHERE state = 'due'")
            await self.claim(0, 1)
            if not self.hands:
                break
            for hand in list(self.hands):
                await self.mark(self.hands.index(hand), BATCH_SIZE - 1)
                while hand.marked:
                    await self.settle(self.hands.index(hand), "sent")
                await self.release(self.hands.index(hand))
            await self.check()
        assert await sending.finish_jobs(self.connection, [self.job]) == [self.job]
        final = {"sent", "failed", "unknown"} if self.on_unknown == "hold" else {"sent", "failed"}
        assert set(await states_of(self.connection, self.job)) <= final

    def _rotated(self, which: int) -> list[Hand]:
        start = which % len(self.hands) if self.hands else 0
        return self.hands[start:] + self.hands[:start]


SMALL = st.integers(0, 5)
MOVE = st.one_of(
    st.tuples(st.just("claim"), SMALL, SMALL),
    st.tuples(st.just("mark"), SMALL, SMALL),
    st.tuples(st.just("mark"), SMALL, SMALL),
    st.tuples(st.just("settle"), SMALL, st.sampled_from(["sent", "failed", "deferred", "in doubt"])),
    st.tuples(st.just("settle"), SMALL, st.sampled_from(["sent", "failed", "deferred", "in doubt"])),
    st.tuples(st.just("release"), SMALL),
    st.tuples(st.just("die"), SMALL),
)


@given(st.sampled_from(["resend", "hold"]), st.lists(MOVE, max_size=25))
# Late words of one that was taken for dead: of somebody held, of somebody deferred, of somebody now in other hands.
@example("hold", [("claim", 0, 0), ("mark", 0, 0), ("die", 0), ("settle", 0, "sent")])
@example("hold", [("claim", 0, 0), ("mark", 0, 2), ("die", 0), ("settle", 0, "deferred")])
@example("hold", [("claim", 0, 0), ("mark", 0, 2), ("die", 0), ("settle", 0, "failed")])
@example(
    "resend",
    [("claim", 0, 0), ("mark", 0, 0), ("die", 0), ("claim", 1, 1), ("settle", 0, "failed"), ("mark", 1, 0)],
)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_counts_are_true_and_nobody_is_skipped_whatever_happens(
    database_url: str, on_unknown: str, moves: list[tuple[str, *tuple[object, ...]]]
) -> None:
    async def play() -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            profile = await add_profile(connection)
            job = await add_job(
                connection, profile, recipients=RECIPIENTS, batch_size=BATCH_SIZE, on_unknown=on_unknown
            )
            workers = [await add_worker(connection) for _ in range(WORKERS)]
            fleet = Fleet(connection, profile, job, on_unknown, workers)
            for move, *arguments in moves:
                await getattr(fleet, move)(*arguments)
                await fleet.check()
            await fleet.finish()

    asyncio.run(play())
