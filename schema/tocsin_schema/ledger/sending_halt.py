"""Halting all sending: by hand, or because the ledger was put back from a backup. Queries of `sending_halt.sql`.

A ledger that was restored does not know what was sent since the backup, and would send it again. So it notes where
it lives: the server (Postgres's system identifier), the database (its oid) and the server's timeline, which grows
with every recovery that ends in writing. While one of them is another one, `sending_is_allowed()` lets nobody claim
anything, from the first moment on; the sweeper then decides what it means.

What this cannot see: a file-system snapshot that is put back in its old place looks like a server that was away.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tocsin_schema.ledger.actors import Actor
    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("sending_halt")

#: A server that took over within this time of the last sign of life is a standby: restoring a backup takes longer, and
#: goes back further.
FAILOVER_WITHIN = timedelta(seconds=120)
#: How old `seen_at` gets before it is written again.
SEEN_EVERY = timedelta(seconds=10)

RESTORED_REASON = (
    "This ledger was restored from a backup, or moved to another server. What was sent since the backup may not be "
    "known to it, so mail may go out twice. Look at `tocsin job list --open`, compare with your provider's log, and "
    "cancel what went out already."
)


class HaltCause(StrEnum):
    """Why nothing is sent."""

    BY_HAND = "by_hand"
    RESTORED = "restored"
    """The ledger lives elsewhere than when it was last written to."""


class Whereabouts(StrEnum):
    """What it means where the ledger lives now."""

    SAME = "same"
    FAILED_OVER = "failed over"
    """A standby took over: the last seconds may be missing, and no more."""
    RESTORED = "restored"
    """Restored from a backup, copied, upgraded or moved: how much is missing is not known."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A server, a database in it, and the server's timeline."""

    system_identifier: int
    database_oid: int
    timeline: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ledger lives, and where it lived when the sweeper was last here; None where that is not known."""

    current: Origin
    seen: Origin | None
    seen_at: datetime | None
    halted_for: HaltCause | None
    now: datetime

    @property
    def whereabouts(self) -> Whereabouts:
        """What it means."""
        return whereabouts(self.seen, self.seen_at, self.current, self.now)

    @property
    def is_to_be_noted(self) -> bool:
        """Whether `seen_at` is so old that it is to be written again."""
        return self.seen_at is None or abs(self.now - self.seen_at) >= SEEN_EVERY


@dataclass(frozen=True, slots=True)
class Halt:
    """All sending is halted: why, and since when and by whom. Without an actor Tocsin did it itself."""

    cause: HaltCause
    reason: str
    actor: str | None
    halted_at: datetime | None
    """None where no sweeper has noted it yet."""


@dataclass(frozen=True, slots=True)
class LiftedHalt:
    """A halt that is over: why, by whom and since when, and who let sending go on when."""

    cause: HaltCause
    reason: str
    actor: str | None
    halted_at: datetime
    lifted_by: str
    lifted_at: datetime


@dataclass(frozen=True, slots=True)
class HaltNews:
    """What was done about a halt since the sweeper was last here: it was made, or lifted, or both."""

    cause: HaltCause
    reason: str
    actor: str | None
    halted_at: datetime
    lifted_by: str | None
    """None where it is in force."""
    lifted_at: datetime | None
    is_new: bool
    """Whether it was made since; else only its end is news."""


def whereabouts(seen: Origin | None, seen_at: datetime | None, current: Origin, now: datetime) -> Whereabouts:
    """Decide what it means where a ledger lives.

    Another timeline of the same server and database is a standby that took over, if the ledger was alive a moment ago;
    else somebody recovered it to an earlier time, or it was away for so long that a person has to look.
    """
    if seen is None or seen_at is None:
        return Whereabouts.RESTORED
    if seen == current:
        return Whereabouts.SAME
    is_elsewhere = (seen.system_identifier, seen.database_oid) != (current.system_identifier, current.database_oid)
    if is_elsewhere or current.timeline < seen.timeline or abs(now - seen_at) > FAILOVER_WITHIN:
        return Whereabouts.RESTORED
    return Whereabouts.FAILED_OVER


async def read_place(connection: Connection) -> Place:
    """Read where the ledger lives and lived."""
    row = await (await connection.execute(_QUERIES["read_place"])).fetchone()
    assert row is not None, "a server has an origin"
    system, oid, timeline, seen_system, seen_oid, seen_timeline, seen_at, cause, now = row
    return Place(
        current=Origin(system, oid, timeline),
        seen=None if seen_system is None else Origin(seen_system, seen_oid, seen_timeline),
        seen_at=seen_at,
        halted_for=None if cause is None else HaltCause(cause),
        now=now,
    )


async def read_halt(connection: Connection) -> Halt | None:
    """Give the halt, if all sending is halted; also where a restored ledger has met no sweeper yet."""
    row = await (await connection.execute(_QUERIES["read_halt"])).fetchone()
    if row is not None:
        cause, reason, actor, halted_at = row
        return Halt(HaltCause(cause), reason, actor, halted_at)
    if (await read_place(connection)).whereabouts is Whereabouts.RESTORED:
        return Halt(HaltCause.RESTORED, RESTORED_REASON, None, None)
    return None


async def halt_by_hand(connection: Connection, reason: str, actor: Actor) -> bool:
    """Halt all sending; False where it is halted already, for whatever reason."""
    parameters = {"reason": reason, "actor_kind": actor.kind.value, "actor": actor.name}
    return await (await connection.execute(_QUERIES["halt_by_hand"], parameters)).fetchone() is not None


async def halt_restored(connection: Connection) -> bool:
    """Halt all sending because the ledger was restored; False where it is halted for that already."""
    cursor = await connection.execute(_QUERIES["halt_restored"], {"reason": RESTORED_REASON})
    return await cursor.fetchone() is not None


async def resume_sending(connection: Connection, actor: Actor) -> Halt | None:
    """Let sending go on, and take the place where the ledger lives for its own; give the halt that there was."""
    halt = await read_halt(connection)
    if halt is None:
        return None
    if halt.halted_at is None:
        await halt_restored(connection)
    # In this order: what was lifted after the ledger was last seen is news to the sweeper.
    await adopt_origin(connection)
    await connection.execute(_QUERIES["lift_halt"], {"actor_kind": actor.kind.value, "actor": actor.name})
    return halt


async def read_last_halt(connection: Connection, *, within: timedelta | None = None) -> LiftedHalt | None:
    """Give the halt that was lifted last, if that was no longer ago than `within`; None if there is none."""
    row = await (await connection.execute(_QUERIES["last_lifted"], {"within": within})).fetchone()
    if row is None:
        return None
    cause, *rest = row
    return LiftedHalt(HaltCause(cause), *rest)


async def read_halt_news(connection: Connection) -> list[HaltNews]:
    """Give the halts that were made or lifted since `note_seen`, oldest first."""
    cursor = await connection.execute(_QUERIES["unnoticed"])
    return [HaltNews(HaltCause(cause), *rest) for cause, *rest in await cursor.fetchall()]


async def adopt_origin(connection: Connection) -> None:
    """Take the place where the ledger lives now for its own."""
    await connection.execute(_QUERIES["adopt_origin"])


async def note_seen(connection: Connection, news: Sequence[HaltNews] = ()) -> None:
    """Note that the ledger was alive now, and that these news were read: they are none any more."""
    moments = [moment for halt in news for moment in (halt.halted_at, halt.lifted_at) if moment is not None]
    await connection.execute(_QUERIES["note_seen"], {"after": max(moments, default=None)})


async def count_open_jobs(connection: Connection) -> int:
    """Count the jobs that may still send something."""
    row = await (await connection.execute(_QUERIES["count_open_jobs"])).fetchone()
    return 0 if row is None else int(row[0])
