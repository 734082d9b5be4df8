"""What the intake and dead-letter actors do: take in, refuse with a reason, and wait in place for the ledger."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from time import time_ns
from typing import TYPE_CHECKING, assert_never

import structlog

from tocsin_schema.contract.part import Priority
from tocsin_schema.errors import ContractError, LedgerError
from tocsin_schema.ledger import dead_letters
from tocsin_schema.ledger.connection import AWAY
from tocsin_workers import metrics
from tocsin_workers.intake.reading_ids import job_id_in, part_number_in
from tocsin_workers.intake.taking import Result, TakenPart, take_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime
    from typing import TypeVar

    from tocsin_schema.ledger.connection import Pool
    from tocsin_workers.tracing import Spans
    from tocsin_workers.waking import Waker

    T = TypeVar("T")

_log = structlog.get_logger(__name__)

LONGEST_WAIT_SECONDS = 10.0
#: How often a part is tried again whose consumers died: it may be what kills them.
SECOND_CHANCES = 3


@dataclass(frozen=True, slots=True)
class IntakeDesk:
    """What intake works with."""

    pool: Pool
    waker: Waker
    stopping: asyncio.Event
    spans: Spans | None = None


async def work_part(
    desk: IntakeDesk,
    queue: str,
    body: bytes,
    *,
    published_at: datetime | None = None,
    traceparent: str | None = None,
) -> None:
    """Take a part in and wake its senders, or keep it as a dead letter. Returns once either is committed.

    `published_at` is when it was published, and `traceparent` its trace context, where its message told.

    Raises LedgerError where the process stops while the ledger is away: the part goes back to its queue.
    """
    began_at = time_ns()
    try:
        taken = await _when_the_ledger_is_there(desk, lambda: take_in(desk.pool, body, published_at=published_at))
    except ContractError as error:
        letter = dead_letters.NewDeadLetter(
            queue=queue,
            code=error.code,
            reason=str(error),
            job_id=job_id_in(body),
            body=body,
            details={} if error.field is None else {"field": error.field},
        )
        await _when_the_ledger_is_there(desk, lambda: _keep(desk.pool, letter))
        metrics.PARTS.labels("refused").inc()
        if desk.spans is not None:
            desk.spans.part_refused(letter.job_id, error.code, began_at=began_at, traceparent=traceparent)
        _log.warning(
            "part refused",
            job=str(letter.job_id),
            part=part_number_in(body),
            code=error.code,
            reason=error.problem,
        )
        return
    part = part_number_in(body)
    if desk.spans is not None:
        desk.spans.part_taken(taken, part, began_at=began_at, traceparent=traceparent)
    await _announce(desk, taken, part)


async def work_dead_letter(desk: IntakeDesk, body: bytes, death: Mapping[str, object]) -> None:
    """Move a message from the dead-letter queue into the ledger.

    A part that lies there only because its consumers died is sound, as far as one can tell: it is taken in again, a
    few times at most.
    """
    letter = dead_letters.NewDeadLetter(
        queue=str(death.get("queue") or "unknown"),
        code=str(death.get("reason") or "unknown"),
        reason=_reason(death),
        job_id=job_id_in(body),
        body=body,
        details=dict(death),
    )
    letter_id = await _when_the_ledger_is_there(desk, lambda: _keep(desk.pool, letter))
    _log.warning("dead letter kept", id=letter_id, code=letter.code, job=str(letter.job_id))
    if letter.code == "delivery_limit":
        await _second_chance(desk, letter_id, letter)


async def _second_chance(desk: IntakeDesk, letter_id: int, letter: dead_letters.NewDeadLetter) -> None:
    """Try to take a dead letter in, and count the try once, before it: the part may kill this process."""

    async def begin() -> bool:
        async with desk.pool.connection() as connection:
            return await dead_letters.begin_second_chance(connection, letter_id, limit=SECOND_CHANCES)

    async def end() -> None:
        async with desk.pool.connection() as connection:
            await dead_letters.end_second_chance(connection, letter_id)

    if not await _when_the_ledger_is_there(desk, begin):
        return
    try:
        taken = await _when_the_ledger_is_there(desk, lambda: take_in(desk.pool, letter.body))
    except ContractError as error:
        _log.warning("dead letter stays", id=letter_id, code=error.code, reason=error.problem)
        return
    await _when_the_ledger_is_there(desk, end)
    await _announce(desk, taken, part_number_in(letter.body))


async def _announce(desk: IntakeDesk, taken: TakenPart, part: int | None) -> None:
    """Tell the log, the metrics and the senders. The part is committed: the sweeper makes good what fails here."""
    _report(taken, part)
    with suppress(*AWAY):
        await desk.waker.wake_sender(taken.profile_id, taken.rank)


async def _keep(pool: Pool, letter: dead_letters.NewDeadLetter) -> int:
    async with pool.connection() as connection:
        return await dead_letters.keep_dead_letter(connection, letter)


async def _when_the_ledger_is_there(desk: IntakeDesk, act: Callable[[], Awaitable[T]]) -> T:
    """Do it, and again until the ledger takes it: nothing is acknowledged before."""
    wait = 0.25
    while True:
        try:
            return await act()
        except AWAY as error:
            if desk.stopping.is_set():
                raise LedgerError("The ledger is away while this worker stops.") from error
            _log.warning("intake waits for the ledger", error=type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await desk.stopping.wait()
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)


def _report(taken: TakenPart, part: int | None) -> None:
    metrics.PARTS.labels(taken.result).inc()
    if taken.is_new_job and taken.result is Result.TAKEN:
        metrics.JOBS.labels(taken.mode, Priority.of_rank(taken.rank)).inc()
    match taken.result:
        case Result.TAKEN:
            event = "part taken in"
            metrics.DUPLICATES_AVOIDED.labels("repeated_address").inc(taken.duplicates)
        case Result.REPEATED:
            event = "part repeated"
            metrics.DUPLICATES_AVOIDED.labels("repeated_part").inc()
        case _:
            assert_never(taken.result)
    _log.info(
        event,
        job=str(taken.job_id),
        part=part,
        recipients=taken.recipients,
        rejected=taken.rejected,
        duplicates=taken.duplicates,
    )


def _reason(death: Mapping[str, object]) -> str:
    match death.get("reason"):
        case "delivery_limit":
            return "Its consumers died before they had taken it in."
        case "rejected":
            return "Intake failed on it unexpectedly; the worker's log says how."
        case other:
            return f"The message broker put it aside: {other}."
