"""Waiting until a job that was just published is through, or until it is clear that it will not be."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.dead_letters import DeadLetterLine, DeadLetterState, read_dead_letters
from tocsin_schema.ledger.job_reading import Job, read_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_SECONDS_BETWEEN_LOOKS = 0.5

OLD_LETTER_GRACE_SECONDS = 10.0
"""A part that is refused for the same fault as before adds no dead letter: after so long the old one is the answer."""


@dataclass(frozen=True, slots=True)
class Waited:
    """How the waiting ended: with a finished job, a refusal, or, with neither, because the time was up."""

    job: Job | None
    refused: DeadLetterLine | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be sent of the job."""
        return self.job is not None and not self.job.shown.state.is_open

    @property
    def everyone_was_sent_to(self) -> bool:
        """Whether each of the job's recipients is sent."""
        return self.job is not None and self.job.everyone_was_sent_to


async def newest_letter(connection: Connection, job_id: UUID) -> DeadLetterLine | None:
    """Give the newest dead letter that somebody kept of this job."""
    letters = await read_dead_letters(connection, state=DeadLetterState.KEPT, job_id=job_id, limit=1)
    return letters[0] if letters else None


async def wait_for_job(
    connection: Connection,
    job_id: UUID,
    *,
    letter_before: DeadLetterLine | None,
    report: Callable[[Job], None],
    timeout_seconds: float | None,
) -> Waited:
    """Look every half second, each time in a transaction of its own.

    `letter_before` is the newest dead letter of this job from before it was published: not our part's, unless
    nothing else comes.
    """
    started = time.monotonic()
    while True:
        job = await _job_if_taken_in(connection, job_id)
        letter = await newest_letter(connection, job_id)
        await connection.commit()
        waited = time.monotonic() - started
        if job is not None:
            report(job)
        if (job is not None and not job.shown.state.is_open) or (
            timeout_seconds is not None and waited >= timeout_seconds
        ):
            return Waited(job)
        if letter is not None and _is_ours(letter, letter_before, job, waited):
            return Waited(job, letter)
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


def _is_ours(letter: DeadLetterLine, before: DeadLetterLine | None, job: Job | None, waited: float) -> bool:
    """Say whether a dead letter is the refusal of what we published."""
    if before is None or letter.id > before.id:
        return True
    return job is None and waited >= OLD_LETTER_GRACE_SECONDS


async def _job_if_taken_in(connection: Connection, job_id: UUID) -> Job | None:
    try:
        return await read_job(connection, str(job_id))
    except UsageError:
        return None
