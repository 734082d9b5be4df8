"""What the metrics and `tocsin status` count in the ledger: by one definition of what is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.servers.ledger_rows import add_job, add_profile, add_worker, counts_of
from tests.servers.ledger_sender import claim
from tocsin_schema.ledger.depths import (
    Backlog,
    LedgerDepths,
    count_unknown_of_ended_jobs,
    ledger_depths,
    read_backlog,
)
from tocsin_schema.ledger.status import read_profiles, read_unknown_fates

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.servers.ledger_rows import Profile
    from tocsin_schema.ledger.connection import Connection

NOTHING = Backlog(
    due_batches=0,
    waiting_batches=0,
    leased_batches=0,
    receiving_jobs=0,
    running_jobs=0,
    paused_jobs=0,
    pending=0,
    in_flight=0,
    sent=0,
    failed=0,
    unknown=0,
    suppressed=0,
)


@pytest.fixture
async def connection(ledger_url: str) -> AsyncGenerator[Connection]:
    """Everything that a test writes is gone after it."""
    async with await psycopg.AsyncConnection.connect(ledger_url) as one:
        yield one
        await one.rollback()


async def told(connection: Connection, profile: Profile) -> tuple[int, int]:
    """What `tocsin status` says: recipients due or in work, and waiting."""
    [found] = [one for one in await read_profiles(connection) if one.name == profile.name]
    return found.due_recipients, found.waiting_recipients


async def counted(connection: Connection) -> tuple[int, int, int]:
    """What the metrics say of batches: due, waiting, leased; and `ledger_depths` says the same."""
    backlog, depths = await read_backlog(connection), await ledger_depths(connection)
    assert (depths.due, depths.waiting, depths.leased) == (
        backlog.due_batches,
        backlog.waiting_batches,
        backlog.leased_batches,
    )
    return depths.due, depths.waiting, depths.leased


async def test_an_empty_ledger_counts_nothing(connection: Connection) -> None:
    assert await ledger_depths(connection) == LedgerDepths(due=0, waiting=0, leased=0, dead_letters=0, open_jobs=0)
    assert await read_backlog(connection) == NOTHING
    assert await count_unknown_of_ended_jobs(connection) == 0


async def test_jobs_and_batches_are_counted_by_state(connection: Connection) -> None:
    profile = await add_profile(connection)
    for state in ("receiving", "running", "running", "paused", "cancelled", "finished"):
        await add_job(connection, profile, state=state, recipients=2)
    later = await add_job(connection, profile, recipients=6)
    await connection.execute(
        "UPDATE batches SET due_at = CASE number WHEN 0 THEN 'infinity' ELSE now() + interval '1 hour' END"
        " WHERE job_number = %s AND number < 2",
        [later],
    )
    await connection.execute("INSERT INTO dead_letters (queue, code, reason, body, digest, details)"
                             " VALUES ('q', 'not_json', 'no JSON', '', '', '{}')")  # fmt: skip
    # Batches of jobs that are over wait for nothing.
    assert await counted(connection) == (4, 3, 0)
    assert await told(connection, profile) == (8, 6)
    depths, backlog = await ledger_depths(connection), await read_backlog(connection)
    assert (depths.dead_letters, depths.open_jobs) == (1, 5)
    assert (backlog.receiving_jobs, backlog.running_jobs, backlog.paused_jobs) == (1, 3, 1)


async def test_what_a_worker_has_in_hand_is_leased_and_neither_due_nor_waiting(connection: Connection) -> None:
    profile = await add_profile(connection)
    await add_job(connection, profile, recipients=6, batch_size=2)
    [_] = await claim(connection, profile, await add_worker(connection), 1)
    assert await counted(connection) == (2, 0, 1)
    assert await told(connection, profile) == (6, 0)
    await connection.execute("UPDATE jobs SET state = 'paused'")
    assert await counted(connection) == (0, 2, 1)
    assert await told(connection, profile) == (2, 4)


@pytest.mark.parametrize(
    "hold",
    [
        "UPDATE sending_profiles SET paused_at = now(), paused_reason = 'refused'",
        "UPDATE mailboxes SET parked_until = now() + interval '1 hour', parked_reason = 'too fast'",
        "UPDATE mailboxes SET kept_for_urgent_until = now() + interval '1 hour', kept_for_urgent_reason = 'quota'",
        "UPDATE jobs SET send_after = now() + interval '1 hour'",
        "UPDATE jobs SET expires_at = now() - interval '1 second'",
        "INSERT INTO sending_halts (cause, reason, actor_kind, actor) VALUES ('by_hand', 'wrong list', 'login', 'ada')",
    ],
)
async def test_whatever_holds_mail_up_it_waits_for_the_metrics_and_for_status_alike(
    connection: Connection, hold: str
) -> None:
    profile = await add_profile(connection)
    await add_job(connection, profile, recipients=4, batch_size=2)
    assert (await counted(connection), await told(connection, profile)) == ((2, 0, 0), (4, 0))
    await connection.execute(hold.encode())
    assert (await counted(connection), await told(connection, profile)) == ((0, 2, 0), (0, 4))


async def test_urgent_mail_is_due_where_a_mailbox_is_kept_for_it(connection: Connection) -> None:
    profile = await add_profile(connection)
    await connection.execute("UPDATE mailboxes SET kept_for_urgent_until = now() + interval '1 hour'")
    await add_job(connection, profile, recipients=4, batch_size=2)
    await add_job(connection, profile, recipients=1, rank=0)
    assert await counted(connection) == (1, 2, 0)


async def test_recipients_of_open_jobs_are_counted_as_each_job_tells_them(connection: Connection) -> None:
    profile = await add_profile(connection)
    one = await add_job(connection, profile, recipients=20, batch_size=10)
    paused = await add_job(connection, await add_profile(connection), state="paused", recipients=5, batch_size=10)
    ended = await add_job(connection, profile, state="finished", recipients=100, batch_size=10, on_unknown="hold")
    await connection.execute(
        "UPDATE batches SET sent = B'1110000000', in_flight = B'0011100000', failed = 2, unknown = 1"
        " WHERE job_number IN (%s, %s) AND number = 0",
        [one, ended],
    )
    backlog = await read_backlog(connection)
    assert (backlog.pending, backlog.in_flight, backlog.sent) == (17, 2, 3)
    assert (backlog.failed, backlog.unknown, backlog.suppressed) == (2, 1, 0)
    assert await counts_of(connection, one) == {"pending": 12, "in_flight": 2, "sent": 3, "failed": 2, "unknown": 1}
    assert await counts_of(connection, paused) == {"pending": 5}


async def test_who_waits_for_a_person_is_counted_also_after_the_job_has_ended(connection: Connection) -> None:
    profile = await add_profile(connection)
    for state in ("running", "finished", "cancelled"):
        job = await add_job(connection, profile, state=state, recipients=4, batch_size=2, on_unknown="hold")
        await connection.execute("UPDATE batches SET unknown = 1 WHERE job_number = %s AND number = 0", [job])
    assert (await read_backlog(connection)).unknown == 1
    assert await count_unknown_of_ended_jobs(connection) == 2
    fates = await read_unknown_fates(connection)
    assert fates is not None
    assert (fates.jobs, fates.recipients) == (3, 3)
