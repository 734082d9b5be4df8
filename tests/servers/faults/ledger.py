"""What the ledger says of the suite's jobs, and what it says where one of them hangs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg

from tests.servers.faults.report import CopyRow, LedgerJob, RecipientRow
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.copies_reading import read_copies

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONNECT_SECONDS = 5


def query(url: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Ask the ledger directly. Raises psycopg.OperationalError where it is away."""
    with psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_SECONDS) as connection:
        return connection.execute(statement.encode(), parameters).fetchall()


def unfinished(url: str, ids: Sequence[str]) -> set[str]:
    """Give which of the jobs are not there yet or not finished."""
    finished = query(url, "SELECT id::text FROM jobs WHERE id = ANY (%s::uuid[]) AND state = 'finished'", list(ids))
    return set(ids) - {one for (one,) in finished}


def read_jobs(url: str, ids: Sequence[str]) -> dict[str, LedgerJob]:
    """Read those of the jobs that are there, with their recipients and copies."""
    found = query(
        url,
        "SELECT j.id::text, j.number, j.state,"
        " (SELECT count(*) FROM batches b WHERE b.job_number = j.number AND b.state <> 'done')"
        " FROM jobs j WHERE j.id = ANY (%s::uuid[])",
        list(ids),
    )
    return {
        job_id: LedgerJob(state, open_batches, _recipients(url, number), asyncio.run(_copies(url, number)))
        for job_id, number, state, open_batches in found
    }


def _recipients(url: str, number: int) -> tuple[RecipientRow, ...]:
    rows = query(
        url, "SELECT address, state, code, enhanced_code, reply FROM recipient_states WHERE job_number = %s", number
    )
    return tuple(RecipientRow(*row) for row in rows)


async def _copies(url: str, number: int) -> tuple[CopyRow, ...]:
    async with connect(url) as connection:
        return tuple(
            [
                CopyRow(copy.message_id, copy.sha256.hex(), frozenset(copy.recipients))
                async for copy in read_copies(connection, job_number=number, profile=None, limit=None)
            ]
        )


_QUESTIONS = {
    "jobs that are not finished": "SELECT j.id, j.state, j.rank, j.mode, j.on_unknown, c.* FROM jobs j"
    " JOIN job_counts c ON c.job_number = j.number WHERE j.state <> 'finished'",
    "batches that are not done": "SELECT job_number, number, state, size, leased_by, lease_epoch, deaths,"
    " due_at - now() AS due_in, failed, unknown, bit_count(sent) AS sent, bit_count(in_flight) AS in_flight"
    " FROM batches WHERE state <> 'done' ORDER BY due_at LIMIT 20",
    "exceptions that wait": "SELECT job_number, ordinal, state, attempts, due_at - now() AS due_in, reason"
    " FROM recipient_exceptions WHERE state = 'pending' AND EXISTS (SELECT FROM batches b"
    " WHERE b.job_number = recipient_exceptions.job_number AND b.number = batch_number AND b.state <> 'done') LIMIT 10",
    "workers": "SELECT id, pid, role, now() - heartbeat_at AS silent_for FROM workers",
    "mailboxes": "SELECT login, connections, parked_until - now() AS parked_for, parked_reason FROM mailboxes",
    "connection slots": "SELECT mailbox_id, slot, worker_id, now() - taken_at AS held_for FROM mailbox_connections",
    "profiles": "SELECT name, paused_reason, pause_cause, probe_at - now() AS probe_in FROM sending_profiles",
    "wake-ups": "SELECT profile_id, rank, under_way, now() - sent_at AS sent_ago FROM wakeups",
    "dead letters": "SELECT queue, code, reason, job_id FROM dead_letters ORDER BY id DESC LIMIT 5",
    "sessions in a transaction": "SELECT pid, state, now() - xact_start AS since, wait_event, left(query, 120)"
    " FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()",
}


def diagnosis(url: str) -> str:
    """Tell all that says why something hangs."""
    told: list[str] = []
    for title, statement in _QUESTIONS.items():
        try:
            rows = query(url, statement)
        except psycopg.Error as error:
            told.append(f"{title}: {error}")
        else:
            told += [f"{title}:", *(f"    {tuple(map(str, row))}" for row in rows)]
    return "\n".join(told)
