"""Rows that a ledger test begins with: a profile, a worker, and jobs with their recipients and batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from tocsin_schema.ledger import worker_leases

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

ADDRESS: Final = "board@campus.example"


@dataclass(frozen=True, slots=True)
class Profile:
    """A sending profile and its mailbox."""

    id: UUID
    name: str
    mailbox_id: int


async def add_profile(
    connection: Connection, *, connections: int | None = None, messages_per_minute: int | None = None
) -> Profile:
    """Add a sending profile with a mailbox of its own; NULL limits mean no limit."""
    name = f"profile-{uuid4()}"
    row = await (
        await connection.execute(
            "INSERT INTO mailboxes (host, login, connections, messages_per_minute) VALUES (%s, %s, %s, %s)"
            " RETURNING id",
            ["mail.example", name, connections, messages_per_minute],
        )
    ).fetchone()
    assert row is not None
    profile = Profile(uuid4(), name, int(row[0]))
    await connection.execute(
        "INSERT INTO sending_profiles"
        " (id, name, provider, host, port, tls, auth, from_address, login, batch_size, mailbox_id)"
        " VALUES (%s, %s, 'custom', 'mail.example', 587, 'starttls', 'none', %s, %s, 50, %s)",
        [profile.id, name, ADDRESS, name, profile.mailbox_id],
    )
    return profile


async def add_worker(connection: Connection, *, lease_seconds: float = 0.001) -> UUID:
    """Add a worker process with a fresh heartbeat, and a lease that a test need not wait for."""
    worker_id = uuid4()
    await worker_leases.register_worker(
        connection, worker_id, host="here", pid=1, role="all", lease_seconds=lease_seconds
    )
    return worker_id


async def add_job(
    connection: Connection,
    profile: Profile,
    *,
    recipients: int = 4,
    batch_size: int = 2,
    rank: int = 1,
    state: str = "running",
    on_unknown: str = "resend",
    send_after: datetime | None = None,
    expires_in: str = "1 day",
) -> int:
    """Add a job as intake leaves it; give its number. `expires_in` is an interval, and may lie in the past."""
    row = await (
        await connection.execute(
            "INSERT INTO jobs (number, id, profile_id, mode, rank, on_unknown, state, send_after, expires_at,"
            " finished_at) VALUES (next_job_number(), gen_random_uuid(), %s, 'shared', %s, %s, %s, %s,"
            " now() + %s::interval, CASE WHEN %s = 'finished' THEN now() END) RETURNING number",
            [profile.id, rank, on_unknown, state, send_after, expires_in, state],
        )
    ).fetchone()
    assert row is not None
    number = int(row[0])
    await connection.execute(
        "INSERT INTO recipients (job_number, ordinal, batch_number, address)"
        " SELECT %s, o, o / %s, 'r' || o || '@campus.example' FROM generate_series(0, %s - 1) AS o",
        [number, batch_size, recipients],
    )
    await connection.execute(
        "INSERT INTO batches (job_number, number, first_ordinal, size, state, due_at, sent, in_flight)"
        " SELECT %s, n, min(o), count(*), 'due', now(), repeat('0', count(*)::int)::varbit,"
        " repeat('0', count(*)::int)::varbit"
        " FROM (SELECT o, o / %s AS n FROM generate_series(0, %s - 1) AS o) AS every GROUP BY n",
        [number, batch_size, recipients],
    )
    return number


async def states_of(connection: Connection, job_number: int) -> list[str]:
    """The recipients' states by the view, in order."""
    rows = await connection.execute(
        "SELECT state FROM recipient_states WHERE job_number = %s ORDER BY ordinal", [job_number]
    )
    return [str(state) for (state,) in await rows.fetchall()]


async def counts_of(connection: Connection, job_number: int) -> dict[str, int]:
    """The job's recipients by state, by the view that sums over batches, without the zeros but with the negatives."""
    cursor = await connection.execute(
        "SELECT total, sent, in_flight, failed, unknown, suppressed, unsettled, unsettled_state"
        " FROM job_counts WHERE job_number = %s",
        [job_number],
    )
    row = await cursor.fetchone()
    assert row is not None
    total, sent, in_flight, failed, unknown, suppressed, unsettled, unsettled_state = row
    counts = {
        "sent": sent,
        "in_flight": in_flight,
        "failed": failed,
        "unknown": unknown,
        "suppressed": suppressed,
        unsettled_state: unsettled,
    }
    assert sum(counts.values()) == total
    return {state: count for state, count in counts.items() if count}


async def batch_states(connection: Connection, job_number: int) -> list[str]:
    """The batches' states, in order."""
    rows = await connection.execute("SELECT state FROM batches WHERE job_number = %s ORDER BY number", [job_number])
    return [str(state) for (state,) in await rows.fetchall()]


async def age(connection: Connection, worker_id: UUID, *, by: str = "1 hour") -> None:
    """Let the worker's last sign of life be long ago."""
    await connection.execute("UPDATE workers SET heartbeat_at = now() - %s::interval WHERE id = %s", [by, worker_id])
