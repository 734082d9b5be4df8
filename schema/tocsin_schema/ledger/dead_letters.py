"""Dead letters: what intake could not understand or had to refuse, with its raw bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("dead_letters")

_HIGHEST_ID = 2**63 - 1


class DeadLetterState(StrEnum):
    """What a person did about a dead letter: nothing yet, put it back on the queue, or given it up."""

    KEPT = "kept"
    REQUEUED = "requeued"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class DeadLetterLine:
    """A dead letter without its bytes, for lists. `size` is in octets."""

    id: int
    received_at: datetime
    queue: str
    code: str
    reason: str
    job_id: UUID | None
    size: int
    state: str
    requeues: int
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetter(DeadLetterLine):
    """A dead letter with its raw bytes, exactly as they came, and what else was noted of the message."""

    body: bytes = field(repr=False)
    details: Any


@dataclass(frozen=True, slots=True)
class NewDeadLetter:
    """A row of `dead_letters`: what came, from where, and why it is not a job. `details` is plain JSON."""

    queue: str
    code: str
    reason: str
    job_id: UUID | None
    body: bytes
    details: Mapping[str, object]


async def read_dead_letters(
    connection: Connection, *, state: DeadLetterState | None, job_id: UUID | None, limit: int
) -> list[DeadLetterLine]:
    """Read dead letters, newest first."""
    async with connection.cursor(row_factory=class_row(DeadLetterLine)) as cursor:
        parameters = {"state": None if state is None else state.value, "job_id": job_id, "limit": limit}
        await cursor.execute(_QUERIES["list_dead_letters"], parameters)
        return await cursor.fetchall()


async def read_dead_letter(connection: Connection, letter_id: int) -> DeadLetter:
    """Read one dead letter. Raises UsageError where there is none."""
    async with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        await cursor.execute(_QUERIES["read_dead_letter"], {"id": min(letter_id, _HIGHEST_ID)})
        letter = await cursor.fetchone()
    if letter is None:
        raise UsageError(
            f"There is no dead letter {letter_id}.", fix="See `tocsin dead-letter list --state all`.", scope=Scope.JOB
        )
    return letter


async def lock_kept(connection: Connection, letter_id: int) -> DeadLetter:
    """Read a dead letter that nobody has settled, and keep others from it until the transaction ends.

    Raises UsageError where there is none or where somebody settled it.
    """
    await connection.execute(_QUERIES["lock_dead_letter"], {"id": min(letter_id, _HIGHEST_ID)})
    letter = await read_dead_letter(connection, letter_id)
    if letter.state != DeadLetterState.KEPT:
        raise UsageError(
            f"Dead letter {letter_id} was {letter.state} before.",
            fix="Only one that is still kept can be put back or discarded.",
            scope=Scope.JOB,
        )
    return letter


async def settle(connection: Connection, letter: DeadLetter, state: DeadLetterState) -> None:
    """Note what was done about a dead letter that `lock_kept` gave."""
    cursor = await connection.execute(_QUERIES["settle_dead_letter"], {"id": letter.id, "state": state.value})
    assert await cursor.fetchone() is not None


async def keep_dead_letter(connection: Connection, letter: NewDeadLetter) -> int:
    """Keep what cannot be taken in, once; give its id."""
    cursor = await connection.execute(
        _QUERIES["keep_dead_letter"],
        {
            **asdict(letter),
            "digest": sha256(letter.body).digest(),
            "details": json.dumps(dict(letter.details)),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def begin_second_chance(connection: Connection, letter_id: int, *, limit: int) -> bool:
    """Count another try at taking in a dead letter; False where it has had its `limit`, or is settled."""
    cursor = await connection.execute(_QUERIES["begin_second_chance"], {"id": letter_id, "limit": limit})
    return await cursor.fetchone() is not None


async def end_second_chance(connection: Connection, letter_id: int) -> None:
    """Note that the dead letter was taken in after all."""
    await connection.execute(_QUERIES["end_second_chance"], {"id": letter_id})
