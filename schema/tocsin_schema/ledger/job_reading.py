"""Reading jobs and what became of their recipients; nothing here changes a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.job_states import JobState, ShownState, shown_state, stored_states
from tocsin_schema.ledger.recipient_story import (
    Acceptance,
    RecipientReading,
    RecipientRow,
    Try,
    by_ordinal,
    reading,
)
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("job_reading")

_NEWEST = 2**63 - 1
_PAGE = 100
_BEFORE_THE_FIRST = -1
_STORED_STATES = ("receiving", "running", "paused", "cancelled", "finished")

BATCHES_AT_A_TIME = 20
"""So many batches' recipients travel from the ledger at once; more is never held of a job while it is read."""

TRIES_SHOWN = 50
"""Of so many tries of a recipient that did not end in an acceptance, the newest, is told."""

_WHERE_IS_THE_LEDGER = (
    "the ledger was restored from a backup, or lives on another server than before, and no sweeper has looked at it"
    " since; `tocsin status` says more"
)

RECIPIENT_STATES = (
    "pending", "in_flight", "sent", "failed", "unknown", "cancelled", "expired", "suppressed",
)  # fmt: skip
"""Every state of a recipient, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood at `read_at`, with its recipients counted and what may hold it up."""

    number: int
    id: UUID
    state: str
    state_reason: str | None
    profile: str | None
    """None once the profile is removed."""
    template: str | None
    template_version: int | None
    mode: str
    rank: int
    on_unknown: str
    source: str | None
    key: str | None
    event: str | None
    correlation_id: str | None
    last_part: int | None
    created_at: datetime
    send_after: datetime | None
    expires_at: datetime
    finished_at: datetime | None
    """When it ended: finished, or was cancelled."""
    total: int
    sent: int
    in_flight: int
    failed: int
    unknown: int
    suppressed: int
    unsettled: int
    unsettled_state: str
    """What the unsettled ones are: `pending`, or in an ended job `cancelled` or `expired`."""
    parts_received: int
    lacks_first_part: bool
    """Parts have come, but not number 1, and so nothing is due."""
    duplicates: int
    next_due_at: datetime | None
    """When the first of the batches that nobody works on is due, where that is known."""
    is_worked_on: bool
    profile_is_paused: bool | None
    paused_reason: str | None
    parked_until: datetime | None
    parked_reason: str | None
    halted_reason: str | None
    """Why nothing is sent at all, of any job."""
    has_senders: bool
    """Whether a worker that sends gave a sign of life within 30 seconds."""
    read_at: datetime
    is_kept_for_urgent: bool = False
    """Whether its mailbox is parked only for jobs that are not urgent, such as this one."""

    @property
    def shown(self) -> ShownState:
        """The state that people see."""
        return shown_state(self, self.read_at)

    @property
    def counts(self) -> dict[str, int]:
        """How many recipients are in each state that any is in, in the usual order."""
        found = {
            "sent": self.sent,
            "in_flight": self.in_flight,
            "failed": self.failed,
            "unknown": self.unknown,
            "suppressed": self.suppressed,
            self.unsettled_state: self.unsettled,
        }
        return {state: found[state] for state in RECIPIENT_STATES if found.get(state)}

    @property
    def settled(self) -> int:
        """How many recipients it is decided about, one by one; not those whom the end of the job left over."""
        return self.total - self.unsettled - self.in_flight

    @property
    def everyone_was_sent_to(self) -> bool:
        """Whether each of its recipients is sent."""
        return self.sent == self.total


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Which recipients a batch holds: those from `first_ordinal` on, `size` of them."""

    number: int
    first_ordinal: int
    size: int


async def find_job(connection: Connection, name: str) -> int:
    """Give the number of the job that is called by its number or its UUID. Raises UsageError."""
    if name.isascii() and name.isdigit() and len(name) <= len(str(_NEWEST)):
        return min(int(name), _NEWEST)
    try:
        job_id = UUID(name)
    except ValueError:
        raise UsageError(
            f"{name[:60]!r} names no job.", fix="Give its id (a UUID) or its number.", scope=Scope.JOB
        ) from None
    row = await (await connection.execute(_QUERIES["job_number_of_id"], {"id": job_id})).fetchone()
    if row is None:
        raise no_such_job(name)
    return int(row[0])


async def read_job(connection: Connection, name: str) -> Job:
    """Read the job that is called by its number or its UUID. Raises UsageError where there is none."""
    number = await find_job(connection, name)
    jobs = await _read_page(connection, number=number, profile=None, states=_STORED_STATES, up_to=_NEWEST, limit=1)
    if not jobs:
        raise no_such_job(name)
    return jobs[0]


async def read_jobs(
    connection: Connection,
    *,
    profile: str | None = None,
    state: JobState | None = None,
    only_open: bool = False,
    limit: int,
) -> list[Job]:
    """Read the newest jobs, newest first: those of a profile, in a shown state, or open ones, or all."""
    states = _STORED_STATES if state is None else stored_states(state)
    found: list[Job] = []
    up_to = _NEWEST
    while len(found) < limit:
        page = await _read_page(connection, number=None, profile=profile, states=states, up_to=up_to, limit=_PAGE)
        found += [job for job in page if _is_wanted(job, state, only_open=only_open)]
        if len(page) < _PAGE:
            break
        up_to = page[-1].number - 1
    return found[:limit]


async def read_recipients(
    connection: Connection, job_number: int, *, state: str | None = None
) -> AsyncGenerator[RecipientReading]:
    """Read what became of a job's recipients, in the order in which they came, in flat memory.

    Each step is a query of its own: no cursor and no snapshot stays open while a million are written out.
    """
    after = _BEFORE_THE_FIRST
    while batches := await _next_batches(connection, job_number, after):
        rows, accepted = await _read_batches(connection, job_number, batches, state)
        tries = await _read_tries(connection, job_number, rows)
        for row in rows:
            yield reading(row, accepted.get(row.ordinal, ()), tries.get(row.ordinal, ()))
        after = batches[-1].number


async def _next_batches(connection: Connection, job_number: int, after: int) -> list[BatchRange]:
    async with connection.cursor(row_factory=class_row(BatchRange)) as cursor:
        await cursor.execute(
            _QUERIES["next_batches"], {"job_number": job_number, "after": after, "limit": BATCHES_AT_A_TIME}
        )
        return await cursor.fetchall()


async def _read_batches(
    connection: Connection, job_number: int, batches: Sequence[BatchRange], state: str | None
) -> tuple[list[RecipientRow], Mapping[int, Sequence[Acceptance]]]:
    parameters = {
        "job_number": job_number,
        "numbers": [batch.number for batch in batches],
        "first_ordinals": [batch.first_ordinal for batch in batches],
        "sizes": [batch.size for batch in batches],
        "state": state,
    }
    async with (
        connection.cursor(row_factory=class_row(RecipientRow)) as rows,
        connection.cursor(row_factory=class_row(Acceptance)) as acceptances,
    ):
        await rows.execute(_QUERIES["recipients_of_batches"], parameters)
        found = await rows.fetchall()
        if not any(row.state == "sent" for row in found):
            return found, {}
        await acceptances.execute(_QUERIES["acceptances_of_batches"], parameters)
        return found, by_ordinal(await acceptances.fetchall())


async def _read_tries(
    connection: Connection, job_number: int, rows: Iterable[RecipientRow]
) -> Mapping[int, Sequence[Try]]:
    """Read the tries that did not end in an acceptance.

    Of everybody: who was in flight when a worker died, and was then sent to, has nothing else that tells of it.
    """
    parameters = {"job_number": job_number, "ordinals": [row.ordinal for row in rows], "most": TRIES_SHOWN}
    found: dict[int, list[Try]] = {}
    cursor = await connection.execute(_QUERIES["tries_of_recipients"], parameters)
    for ordinal, *rest in await cursor.fetchall():
        found.setdefault(int(ordinal), []).append(Try(*rest))
    return found


async def _read_page(
    connection: Connection,
    *,
    number: int | None,
    profile: str | None,
    states: Iterable[str],
    up_to: int,
    limit: int,
) -> list[Job]:
    async with connection.cursor(row_factory=class_row(Job)) as cursor:
        await cursor.execute(
            _QUERIES["read_jobs"],
            {
                "number": number,
                "profile": profile,
                "states": list(states),
                "up_to": up_to,
                "limit": limit,
                "elsewhere": _WHERE_IS_THE_LEDGER,
            },
        )
        return await cursor.fetchall()


def _is_wanted(job: Job, state: JobState | None, *, only_open: bool) -> bool:
    shown = job.shown.state
    return (state is None or shown is state) and (not only_open or shown.is_open)


def no_such_job(name: str) -> UsageError:
    """Say that no job has this number or UUID."""
    return UsageError(
        f"There is no job {name}.",
        fix="See `tocsin job list`. A job that was just published may still be on its way to intake.",
        scope=Scope.JOB,
    )
