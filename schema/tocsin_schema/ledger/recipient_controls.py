"""Trying failed recipients again, and settling those whose fate is unknown. Queries of `recipient_controls.sql`.

A few thousand recipients a transaction, so that no lock is held for long and a million need no more memory than ten.
Each transaction locks the job, then its batches in order, and leaves states, counters and the event true: interrupted,
it goes on where it was when it is called again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, assert_never

from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.job_controls import LockedJob, count_recipients, lock_job, open_again, set_expiry
from tocsin_schema.ledger.job_events import JobEvent, change_details, record_event
from tocsin_schema.ledger.job_states import JobState
from tocsin_schema.ledger.recipient_control_rules import (
    Settlement,
    Standing,
    check_called,
    check_none_left_over,
    check_retry,
    check_settle,
    forms,
)
from tocsin_schema.ledger.recording import recount_exceptions
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from tocsin_schema.ledger.actors import Actor
    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("recipient_controls")

RECIPIENTS_AT_A_TIME = 5000
"""About so many recipients are changed in one transaction: some tenths of a second."""

_BEFORE_THE_FIRST = -1


@dataclass(frozen=True, slots=True)
class Retried:
    """What a retry has done.

    `expired` counts those who were left over when the job's time was over, `suppressed` those who were and are so no
    more. `left_out` failed, and would not be sent to: their addresses are suppressed.
    """

    job: LockedJob
    failed: int
    expired: int
    suppressed: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What settling has done to how many recipients."""

    job: LockedJob
    recipients: int


@dataclass(frozen=True, slots=True)
class _Called:
    """The recipients that were called by address: nobody else is meant."""

    ordinals: list[int]
    batches: list[int]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Batches of a job that are locked, and whom of them is meant (None: all). `left`: closed with somebody left."""

    job: LockedJob
    batches: list[int]
    ordinals: list[int] | None
    left: list[int] = field(default_factory=list[int])


@dataclass(slots=True)
class _Event:
    """The event of one command, written by its first transaction that changes something, and kept true by the next."""

    kind: JobEvent
    actor: Actor
    details: dict[str, object]
    id: int | None = field(default=None)

    async def tell(self, connection: Connection, job: LockedJob) -> None:
        if self.id is None:
            self.id = await record_event(connection, job.number, self.kind, actor=self.actor, details=self.details)
        else:
            await change_details(connection, job.number, self.id, self.details)


@dataclass(frozen=True, slots=True)
class _Again:
    """Whom a retry has found in a batch: tried again who failed, who was suppressed; left out who failed and is so."""

    batch_number: int
    failed: int
    suppressed: int
    left_out: int


_Changed: TypeAlias = "Mapping[int, int]"  # batch number to how many of its recipients


async def retry_failed(
    connection: Connection,
    number: int,
    *,
    actor: Actor,
    addresses: Sequence[str] = (),
    expires_at: datetime | None = None,
    reason: str | None = None,
) -> Retried:
    """Try again who failed by a try, or was suppressed and is so no more; a finished job is opened again.

    All of them, or those with the given addresses; whoever is suppressed now stays as they are. With `expires_at` a job
    whose time is over is given that time, and who had expired is tried again too. Commits as it goes: call it outside a
    transaction. Raises UsageError before it has changed anything, or where the job is cancelled meanwhile.
    """
    event = _Event(JobEvent.RETRIED, actor, _because(reason) | {"failed": 0, "suppressed": 0, "expired": 0})
    called: _Called | None = None
    found: list[_Again] = []
    expired = 0
    after, is_first = _BEFORE_THE_FIRST, True
    while True:
        async with connection.transaction():
            job = await lock_job(connection, number)
            check_retry(job, expires_at)
            if is_first:
                expired = await _expired(connection, job)
                if addresses:
                    check_none_left_over(job, expired)
                called = await _call(connection, job, addresses, ("failed", "suppressed"))
            chunk = await _lock_to_retry(connection, job, called, after, was_over=expired > 0)
            again = await _retry(connection, chunk, _said(actor, "to be tried again"))
            changed = {one.batch_number: some for one in again if (some := one.failed + one.suppressed)}
            await _recount(connection, job, changed)
            found += again
            if changed or chunk.left or (is_first and expired):
                event.details |= {"failed": sum(one.failed for one in found), "expired": expired}
                event.details["suppressed"] = sum(one.suppressed for one in found)
                if expires_at is not None:
                    event.details["expires_at"] = expires_at.isoformat()
                    await set_expiry(connection, job, expires_at)
                await _make_deferred_due(connection, job, chunk.left)
                await _make_due(connection, job, [*changed, *chunk.left])
                await _open_again(connection, job)
                await event.tell(connection, job)
        is_first = False
        if called is not None or not chunk.batches:
            break
        after = chunk.batches[-1]
    return Retried(
        job=await _as_left(connection, number),
        failed=sum(one.failed for one in found),
        expired=expired if event.id is not None else 0,
        suppressed=sum(one.suppressed for one in found),
        left_out=sum(one.left_out for one in found),
    )


async def settle_unknown(
    connection: Connection,
    number: int,
    settlement: Settlement,
    *,
    actor: Actor,
    addresses: Sequence[str] = (),
    reason: str | None = None,
) -> Settled:
    """Settle recipients whose fate is unknown, all of them or those with the given addresses.

    Commits as it goes: call it outside a transaction. Raises UsageError before it has changed anything, or where the
    job is cancelled meanwhile and they were to be sent again.
    """
    event = _Event(JobEvent.SETTLED, actor, _because(reason) | {"as": settlement.value, "recipients": 0})
    called: _Called | None = None
    recipients = 0
    after, is_first = _BEFORE_THE_FIRST, True
    while True:
        async with connection.transaction():
            job = await lock_job(connection, number)
            check_settle(job, settlement)
            if is_first:
                called = await _call(connection, job, addresses, ("unknown",))
            chunk = await _lock_in_doubt(connection, job, called, after)
            changed = await _settle(connection, chunk, settlement, _said(actor, f"settled as {settlement.value}"))
            if changed:
                recipients += sum(changed.values())
                event.details["recipients"] = recipients
                await _recount(connection, job, changed)
                if settlement is Settlement.PENDING:
                    await _make_due(connection, job, list(changed))
                    await _open_again(connection, job)
                await event.tell(connection, job)
        is_first = False
        if called is not None or not chunk.batches:
            break
        after = chunk.batches[-1]
    return Settled(await _as_left(connection, number), recipients)


def _because(reason: str | None) -> dict[str, object]:
    return {"reason": reason} if reason else {}


def _said(actor: Actor, what: str) -> str:
    return f"{what}, by {actor.name}"


async def _expired(connection: Connection, job: LockedJob) -> int:
    """Count whom the end of the job's time has left over."""
    if job.state != JobState.FINISHED and not job.time_is_over:
        return 0
    return (await count_recipients(connection, job.number)).unsettled


async def _call(
    connection: Connection, job: LockedJob, addresses: Sequence[str], wanted: Collection[str]
) -> _Called | None:
    """Find the recipients with the given addresses; None where none are given and so all are meant.

    Their batches are locked before their states are looked at: what is seen stays so.
    """
    if not addresses:
        return None
    spelled = [form for address in addresses for form in forms(address)]
    cursor = await connection.execute(_QUERIES["find_recipients"], {"job_number": job.number, "addresses": spelled})
    rows = await cursor.fetchall()
    await _lock_batches(connection, job, {int(batch) for _, batch in rows})
    async with connection.cursor(row_factory=class_row(Standing)) as standings:
        ordinals = [int(ordinal) for ordinal, _ in rows]
        await standings.execute(_QUERIES["read_standings"], {"job_number": job.number, "ordinals": ordinals})
        meant = check_called(job, addresses, await standings.fetchall(), wanted)
    return _Called([one.ordinal for one in meant], sorted({one.batch_number for one in meant}))


async def _lock_batches(connection: Connection, job: LockedJob, numbers: Iterable[int]) -> list[int]:
    cursor = await connection.execute(_QUERIES["lock_batches"], {"job_number": job.number, "numbers": sorted(numbers)})
    return [int(number) for (number,) in await cursor.fetchall()]


async def _lock_to_retry(
    connection: Connection, job: LockedJob, called: _Called | None, after: int, *, was_over: bool
) -> _Chunk:
    if called is not None:
        return _Chunk(job, await _lock_batches(connection, job, called.batches), called.ordinals)
    parameters = {
        "job_number": job.number,
        "after": after,
        "recipients": RECIPIENTS_AT_A_TIME,
        "was_over": was_over,
    }
    rows = await (await connection.execute(_QUERIES["next_batches_to_retry"], parameters)).fetchall()
    return _Chunk(job, [int(number) for number, _ in rows], None, [int(number) for number, is_left in rows if is_left])


async def _lock_in_doubt(connection: Connection, job: LockedJob, called: _Called | None, after: int) -> _Chunk:
    if called is not None:
        return _Chunk(job, await _lock_batches(connection, job, called.batches), called.ordinals)
    parameters = {"job_number": job.number, "after": after, "recipients": RECIPIENTS_AT_A_TIME}
    rows = await (await connection.execute(_QUERIES["next_batches_in_doubt"], parameters)).fetchall()
    return _Chunk(job, [int(number) for (number,) in rows], None)


async def _retry(connection: Connection, chunk: _Chunk, reason: str) -> list[_Again]:
    parameters = {
        "job_number": chunk.job.number,
        "numbers": chunk.batches,
        "ordinals": chunk.ordinals,
        "reason": reason,
    }
    async with connection.cursor(row_factory=class_row(_Again)) as cursor:
        await cursor.execute(_QUERIES["retry_recipients"], parameters)
        return await cursor.fetchall()


async def _settle(connection: Connection, chunk: _Chunk, settlement: Settlement, reason: str) -> _Changed:
    match settlement:
        case Settlement.SENT:
            return await _change(connection, "settle_as_sent", chunk, reason)
        case Settlement.FAILED | Settlement.PENDING:
            return await _change(connection, "settle_unknown", chunk, reason, state=settlement.value)
        case _:
            assert_never(settlement)


async def _change(connection: Connection, query: str, chunk: _Chunk, reason: str, **parameters: object) -> _Changed:
    """Change recipients of locked batches; give how many of each batch."""
    cursor = await connection.execute(
        _QUERIES[query],
        {
            "job_number": chunk.job.number,
            "numbers": chunk.batches,
            "ordinals": chunk.ordinals,
            "reason": reason,
            **parameters,
        },
    )
    return {int(number): int(recipients) for number, recipients in await cursor.fetchall()}


async def _recount(connection: Connection, job: LockedJob, changed: _Changed) -> None:
    """Count the exceptions of changed batches again, in the transaction that changed them."""
    if changed:
        await recount_exceptions(connection, [(job.number, number) for number in changed])


async def _make_deferred_due(connection: Connection, job: LockedJob, numbers: Sequence[int]) -> None:
    """Make due at once whoever of the batches was to be tried again later."""
    if numbers:
        parameters = {"job_number": job.number, "numbers": list(numbers)}
        await connection.execute(_QUERIES["make_deferred_due"], parameters)


async def _make_due(connection: Connection, job: LockedJob, numbers: Iterable[int]) -> None:
    """Make due at once what is left of batches; what somebody works on, once it is given back."""
    await connection.execute(_QUERIES["make_due"], {"job_number": job.number, "numbers": sorted(set(numbers))})


async def _open_again(connection: Connection, job: LockedJob) -> None:
    """Let a finished job go on; any other one does. Raises UsageError where its sending profile was removed."""
    if job.state != JobState.FINISHED:
        return
    held = await connection.execute(_QUERIES["hold_profile"], {"job_number": job.number})
    if await held.fetchone() is None:
        raise UsageError(
            f"The sending profile of job {job.id} was removed.",
            fix="Send to those whom it left out with a job of their own.",
            scope=Scope.JOB,
        )
    await open_again(connection, job)


async def _as_left(connection: Connection, number: int) -> LockedJob:
    async with connection.transaction():
        return await lock_job(connection, number)
