"""What estimates are made of: the budget, the backlog and the rolling day, as the ledger has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.servers.ledger_rows import add_job, add_profile, add_worker
from tocsin_schema.ledger.estimates import (
    Outlook,
    PlannedJob,
    read_job_outlook,
    read_new_job_outlook,
    read_outlooks,
)
from tocsin_schema.ledger.job_reading import read_job
from tocsin_schema.ledger.mailbox_walk import Limit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.servers.ledger_rows import Profile
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.estimating import Estimate

RATE = 30


@pytest.fixture
async def connection(ledger_url: str) -> AsyncGenerator[Connection]:
    """Everything that a test writes is gone after it."""
    async with await psycopg.AsyncConnection.connect(ledger_url) as one:
        yield one
        await one.rollback()


async def outlook_of(connection: Connection, job: int, hold: Limit | None = None) -> Outlook:
    found = await read_job_outlook(connection, job, hold=hold)
    assert found is not None
    return found


async def estimate_of(connection: Connection, job: int) -> Estimate:
    found = (await outlook_of(connection, job)).estimate
    assert found is not None
    return found


def minutes(found: Estimate) -> float:
    assert found.done_at is not None
    return (found.done_at - datetime.now(UTC)).total_seconds() / 60


async def change(connection: Connection, profile: Profile, changes: str) -> None:
    await connection.execute(f"UPDATE mailboxes SET {changes} WHERE id = %s".encode(), [profile.mailbox_id])


async def test_what_is_left_of_a_job_and_of_better_ones_on_its_mailbox_is_counted_in_messages(
    connection: Connection,
) -> None:
    profile = await add_profile(connection, messages_per_minute=RATE)
    await add_job(connection, profile, recipients=600, batch_size=1, rank=0)
    await add_job(connection, profile, recipients=600, batch_size=1, rank=2)
    await add_job(connection, profile, recipients=600, batch_size=1, rank=0, state="paused")
    await add_job(connection, profile, recipients=600, batch_size=1, rank=0, expires_in="-1 hour")
    own = await add_job(connection, profile, recipients=600, batch_size=2)
    await connection.execute("UPDATE batches SET sent = '11' WHERE job_number = %s AND number < 150", [own])
    found = await estimate_of(connection, own)
    assert (found.limited_by, found.ahead) == (Limit.RATE, 600)
    assert minutes(found) == pytest.approx((600 + 150) * 61 / RATE / 60, abs=1.1)
    (whole,) = [one for one in await read_outlooks(connection, hold=None) if one.mailbox.id == profile.mailbox_id]
    assert whole.backlog == 600 + 600 + 300


async def test_a_message_of_a_shared_job_is_cut_where_the_server_takes_fewer(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=1)
    own = await add_job(connection, profile, recipients=100, batch_size=50)
    before = minutes(await estimate_of(connection, own))
    await change(connection, profile, "learned_recipients_per_message = 20, learned_recipients_at = now()")
    assert (before, minutes(await estimate_of(connection, own))) == (
        pytest.approx(2 * 61 / 60, abs=1.1), pytest.approx(6 * 61 / 60, abs=1.1),
    )  # fmt: skip
    planned = PlannedJob(rank=1, recipients=100, batch_size=50)
    found = await read_new_job_outlook(connection, profile.id, planned, hold=None)
    assert found is not None
    assert (found[0], found[1].backlog) == (6, 100)


async def test_jobs_of_another_profile_of_the_mailbox_are_in_the_way_unless_it_is_paused(
    connection: Connection,
) -> None:
    one, other = await add_profile(connection, messages_per_minute=RATE), await add_profile(connection)
    await connection.execute("UPDATE sending_profiles SET mailbox_id = %s WHERE id = %s", [one.mailbox_id, other.id])
    await add_job(connection, other, recipients=90, batch_size=1, rank=0)
    own = await add_job(connection, one, recipients=90, batch_size=1)
    found = await outlook_of(connection, own)
    assert found.estimate is not None
    assert (found.estimate.ahead, len(found.mailbox.profiles)) == (90, 2)
    await connection.execute(
        "UPDATE sending_profiles SET paused_at = now(), paused_reason = 'x', pause_cause = 'credentials' WHERE id = %s",
        [other.id],
    )
    assert (await estimate_of(connection, own)).ahead == 0


async def test_the_rolling_day_is_walked_by_the_minutes_that_are_counted(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=RATE)
    await change(connection, profile, "recipients_per_day = 100")
    own = await add_job(connection, profile, recipients=80, batch_size=1)
    assert (await estimate_of(connection, own)).limited_by is Limit.RATE
    await connection.execute(
        "INSERT INTO mailbox_usage (mailbox_id, minute, recipients) VALUES"
        " (%(id)s, date_trunc('minute', now()) - interval '23 hours', 90),"
        " (%(id)s, date_trunc('minute', now()) - interval '25 hours', 5000)",
        {"id": profile.mailbox_id},
    )
    found = await estimate_of(connection, own)
    assert (found.limited_by, minutes(found)) == (Limit.DAY, pytest.approx(61 + 80 * 61 / RATE / 60, abs=2))
    await connection.execute("UPDATE jobs SET rank = 0 WHERE number = %s", [own])
    assert minutes(await estimate_of(connection, own)) == pytest.approx(61 + 70 * 61 / RATE / 60, abs=2)


async def test_a_tenants_external_recipients_limit_its_mailboxes(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=RATE)
    row = await (
        await connection.execute(
            "INSERT INTO tenants (name, external_recipients_per_day) VALUES ('contoso', 100) RETURNING id"
        )
    ).fetchone()
    assert row is not None
    await connection.execute("UPDATE mailboxes SET tenant_id = %s WHERE id = %s", [row[0], profile.mailbox_id])
    await connection.execute(
        "INSERT INTO tenant_usage (tenant_id, minute, recipients)"
        " VALUES (%s, date_trunc('minute', now()) - interval '22 hours', 90)",
        [row[0]],
    )
    own = await add_job(connection, profile, recipients=40, batch_size=1)
    found = await estimate_of(connection, own)
    assert (found.limited_by, minutes(found)) == (Limit.TENANT, pytest.approx(121 + 40 * 61 / RATE / 60, abs=2))


async def test_where_no_rate_is_set_the_last_minute_shows_the_speed_while_it_was_at_work(
    connection: Connection,
) -> None:
    profile = await add_profile(connection)
    own = await add_job(connection, profile, recipients=6000, batch_size=1)
    assert (await estimate_of(connection, own)).limited_by is Limit.UNKNOWN_SPEED
    for _ in range(2):
        await connection.execute(
            "INSERT INTO mailbox_traffic (mailbox_id, bucket, worker_id, messages, recipients, connections,"
            " busy_seconds) VALUES (%s, now() - interval '10 seconds', %s, 50, 50, 1, 5)",
            [profile.mailbox_id, await add_worker(connection)],
        )
    found = await outlook_of(connection, own)
    assert (found.mailbox.messages_last_minute, found.mailbox.seen_per_minute) == (100, 2 * 50 / 5 * 60)
    assert found.estimate is not None
    assert (found.estimate.limited_by, minutes(found.estimate)) == (
        Limit.CONNECTIONS_OR_SPEED, pytest.approx(5, abs=1.1),
    )  # fmt: skip


async def test_whom_a_server_put_off_is_waited_for_to_the_last(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=RATE)
    own = await add_job(connection, profile, recipients=4, batch_size=2)
    await connection.execute(
        "UPDATE batches SET sent = '11', state = 'done' WHERE job_number = %s AND number = 1", [own]
    )
    await connection.execute(
        "UPDATE batches SET due_at = now() + interval '1 hour' WHERE job_number = %s AND number = 0", [own]
    )
    await connection.execute(
        "INSERT INTO recipient_exceptions (job_number, ordinal, batch_number, state, attempts, due_at, reason)"
        " VALUES (%s, 0, 0, 'pending', 1, now() + interval '2 hours', 'later')",
        [own],
    )
    found = await estimate_of(connection, own)
    assert (found.limited_by, minutes(found)) == (Limit.RETRIES, pytest.approx(120, abs=1.1))
    await change(connection, profile, "messages_per_minute = NULL")
    assert minutes(await estimate_of(connection, own)) == pytest.approx(120, abs=1.1)


async def test_a_job_that_is_held_or_done_is_told_so(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=RATE)
    paused = await add_job(connection, profile, recipients=300, batch_size=1, state="paused")
    found = (await outlook_of(connection, paused, Limit.PAUSED)).estimate
    assert found is not None
    assert (found.done_at, found.limited_by) == (None, Limit.PAUSED)
    assert found.takes == pytest.approx(timedelta(seconds=610), abs=timedelta(seconds=61))
    await connection.execute("UPDATE batches SET sent = '1' WHERE job_number = %s", [paused])
    assert await read_job_outlook(connection, paused, hold=None) is None
    later = await add_job(connection, profile, send_after=datetime.now(UTC) + timedelta(hours=2))
    assert (await estimate_of(connection, later)).limited_by is Limit.NOT_BEGUN


async def test_a_job_waits_where_its_day_is_kept_for_urgent_mail(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=RATE)
    await change(connection, profile, "kept_for_urgent_until = now() + interval '1 hour', kept_for_urgent_reason = 'x'")
    normal, urgent = [await add_job(connection, profile, rank=rank) for rank in (1, 0)]
    for number, reason in ((normal, "x"), (urgent, None)):
        job = await read_job(connection, str(number))
        assert job.parked_reason == reason
        assert (job.parked_until is None) == (reason is None)
    assert minutes(await estimate_of(connection, normal)) > 59
    assert minutes(await estimate_of(connection, urgent)) < 2
