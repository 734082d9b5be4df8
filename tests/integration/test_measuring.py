"""What the metrics read of the ledger beside its depths: budgets, pauses, tokens, the sweeper, how long mail waits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from tests.servers.ledger_rows import add_job, add_profile, add_worker
from tests.servers.ledger_sender import claim, claim_one
from tocsin_schema.ledger import mailboxes, measuring, pausing, sweeping
from tocsin_schema.ledger.connection import open_pool
from tocsin_schema.ledger.pausing import PauseCause
from tocsin_workers.intake.taking import take_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.servers.ledger_rows import Profile
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.measuring import ProfileGauges


@pytest.fixture
async def connection(ledger_url: str) -> AsyncGenerator[Connection]:
    """Everything that a test writes is gone after it."""
    async with await psycopg.AsyncConnection.connect(ledger_url) as one:
        yield one
        await one.rollback()


async def gauges(connection: Connection, profile: Profile) -> ProfileGauges:
    [found] = [one for one in await measuring.read_profiles(connection) if one.name == profile.name]
    return found


# Profiles


async def test_a_profile_tells_why_it_is_paused(connection: Connection) -> None:
    profile = await add_profile(connection)
    assert (await gauges(connection, profile)).pause_cause is None
    await pausing.pause_profile(connection, profile.id, "535", cause=PauseCause.CREDENTIALS)
    assert (await gauges(connection, profile)).pause_cause == "credentials"


async def test_a_mailbox_without_limits_has_no_connections_to_tell(connection: Connection) -> None:
    found = await gauges(connection, await add_profile(connection))
    assert (found.connections_open, found.connections_limit, found.wants_connection) == (None, None, False)
    assert (found.messages_limit, found.recipients_limit, found.is_resting) == (None, None, False)


async def test_a_budget_is_told_as_it_is_in_force(connection: Connection) -> None:
    profile = await add_profile(connection, connections=4, messages_per_minute=30)
    worker = await add_worker(connection)
    await mailboxes.take_connection(connection, profile.mailbox_id, worker)
    await mailboxes.want_connection(connection, profile.mailbox_id, profile.id, 1)
    await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=60.0, reason="too fast")
    await connection.execute(
        "UPDATE mailboxes SET learned_per_minute = 12.5, per_minute_lowered_at = now(), recipients_per_day = 1000"
        " WHERE id = %s",
        [profile.mailbox_id],
    )
    await connection.execute(
        "INSERT INTO mailbox_usage (mailbox_id, minute, recipients) VALUES"
        " (%(id)s, now() - interval '23 hours', 300), (%(id)s, now() - interval '25 hours', 5000)",
        {"id": profile.mailbox_id},
    )
    await connection.execute(
        "INSERT INTO mailbox_traffic (mailbox_id, bucket, worker_id, messages, recipients, connections, busy_seconds)"
        " VALUES (%(id)s, now() - interval '10 seconds', %(worker)s, 9, 20, 1, 5),"
        "        (%(id)s, now() - interval '2 minutes', %(worker)s, 100, 100, 1, 5)",
        {"id": profile.mailbox_id, "worker": worker},
    )
    found = await gauges(connection, profile)
    assert (found.connections_open, found.connections_limit, found.wants_connection) == (1, 4, True)
    assert (found.messages_last_minute, found.messages_limit) == (9, 12.5)
    assert (found.recipients_used, found.recipients_limit, found.is_resting) == (300, 1000, True)


async def test_of_a_mailboxs_and_its_tenants_day_the_one_that_ends_sooner_is_told(connection: Connection) -> None:
    profile = await add_profile(connection)
    [tenant] = await (
        await connection.execute(
            "INSERT INTO tenants (name, external_recipients_per_day) VALUES (%s, 2000) RETURNING id", [str(uuid4())]
        )
    ).fetchone() or [None]
    await connection.execute("UPDATE mailboxes SET tenant_id = %s WHERE id = %s", [tenant, profile.mailbox_id])
    await connection.execute(
        "INSERT INTO tenant_usage (tenant_id, minute, recipients) VALUES (%s, now(), 1500)", [tenant]
    )
    found = await gauges(connection, profile)
    assert (found.recipients_used, found.recipients_limit) == (1500, 2000)
    await connection.execute("UPDATE mailboxes SET recipients_per_day = 100 WHERE id = %s", [profile.mailbox_id])
    await connection.execute(
        "INSERT INTO mailbox_usage (mailbox_id, minute, recipients) VALUES (%s, now(), 90)", [profile.mailbox_id]
    )
    found = await gauges(connection, profile)
    assert (found.recipients_used, found.recipients_limit) == (90, 100)


# Tokens


async def test_of_the_tokens_in_use_the_one_that_ends_first_is_told(connection: Connection) -> None:
    name = f"oauth-{uuid4()}"
    [oauth] = await (
        await connection.execute(
            "INSERT INTO oauth_profiles (name, provider, grant_type, token_endpoint)"
            " VALUES (%s, 'custom', 'client_credentials', 'https://id.example/token') RETURNING id",
            [name],
        )
    ).fetchone() or [None]
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    for subject, minutes, used in (("a", 60, "1 minute"), ("b", 30, "1 minute"), ("long unused", 5, "2 days")):
        await connection.execute(
            "INSERT INTO access_tokens (oauth_profile_id, subject, sealed_token, obtained_at, expires_at, used_at)"
            " VALUES (%s, %s, '', %s, %s, now() - %s::interval)",
            [oauth, subject, now - timedelta(hours=1), now + timedelta(minutes=minutes), used],
        )
    [found] = [one for one in await measuring.read_tokens(connection) if one.oauth_profile == name]
    assert (found.obtained_at, found.expires_at) == (now - timedelta(hours=1), now + timedelta(minutes=30))


# The installation


async def test_a_halt_is_told(connection: Connection) -> None:
    assert not (await measuring.read_watch(connection)).is_halted
    await connection.execute(
        "INSERT INTO sending_halts (cause, reason, actor_kind, actor) VALUES ('by_hand', 'wrong list', 'login', 'ada')"
    )
    assert (await measuring.read_watch(connection)).is_halted


async def test_the_sweepers_end_is_noted_every_few_seconds_only(connection: Connection) -> None:
    await connection.execute("UPDATE ledger_origin SET swept_at = now() - interval '1 second'")
    before = (await measuring.read_watch(connection)).swept_at
    await sweeping.note_swept(connection)
    assert (await measuring.read_watch(connection)).swept_at == before
    await connection.execute("UPDATE ledger_origin SET swept_at = now() - interval '60 seconds'")
    await sweeping.note_swept(connection)
    [now] = await (await connection.execute("SELECT now()")).fetchone() or [None]
    assert (await measuring.read_watch(connection)).swept_at == now


async def test_dead_letters_are_counted_until_somebody_has_settled_them(connection: Connection) -> None:
    for state in ("kept", "requeued"):
        await connection.execute(
            "INSERT INTO dead_letters (queue, code, reason, body, digest, details, state)"
            " VALUES ('q', 'not_json', 'no JSON', '', '', '{}', %s)",
            [state],
        )
    assert (await measuring.read_watch(connection)).dead_letters == 1


async def test_a_statement_that_takes_too_long_is_given_up(connection: Connection) -> None:
    await measuring.limit_time(connection, seconds=0.05)
    with pytest.raises(psycopg.errors.QueryCanceled):
        await connection.execute("SELECT pg_sleep(30)")


# How long mail has waited


async def set_times(connection: Connection, job: int, *, published: str | None, due: str, after: str | None) -> None:
    await connection.execute(
        "UPDATE jobs SET created_at = now() - interval '1 minute', published_at = now() - %s::interval,"
        " send_after = now() - %s::interval WHERE number = %s",
        [published, after, job],
    )
    await connection.execute("UPDATE batches SET due_at = %s::timestamptz WHERE job_number = %s", [due, job])


@pytest.mark.parametrize(
    ("published", "due_seconds_ago", "after", "waited"),
    [
        ("2 minutes", 30, None, (120, 30)),
        (None, 30, None, (60, 30)),
        ("2 hours", 3600, "10 seconds", (10, 10)),
        ("2 minutes", None, None, (120, 0)),
    ],
    ids=["published", "only taken in", "for a later time", "wanted tried again by a person"],
)
async def test_a_claim_tells_how_long_its_batches_have_waited(
    connection: Connection,
    published: str | None,
    due_seconds_ago: int | None,
    after: str | None,
    waited: tuple[int, int],
) -> None:
    profile = await add_profile(connection)
    job = await add_job(connection, profile, recipients=1)
    due = "-infinity" if due_seconds_ago is None else str(datetime.now(UTC) - timedelta(seconds=due_seconds_ago))
    await set_times(connection, job, published=published, due=due, after=after)
    batch = await claim_one(connection, profile, await add_worker(connection))
    assert (batch.since_published, batch.since_due) == pytest.approx(waited, abs=9)


async def test_each_batch_of_a_claim_tells_its_own(connection: Connection) -> None:
    profile = await add_profile(connection)
    job = await add_job(connection, profile, recipients=4, batch_size=2)
    await connection.execute(
        "UPDATE batches SET due_at = now() - make_interval(mins => number) WHERE job_number = %s", [job]
    )
    first, second = await claim(connection, profile, await add_worker(connection))
    assert second.since_due - first.since_due == pytest.approx(60, abs=1)


@pytest.mark.parametrize(("told", "believed"), [(-90.0, True), (3600.0, False), (None, False)])
async def test_a_time_of_publishing_is_kept_unless_it_is_still_to_come(
    ledger_url: str, told: float | None, believed: bool
) -> None:
    published_at = None if told is None else datetime.now(UTC) + timedelta(seconds=told)
    pool = open_pool(ledger_url, size=1)
    await pool.open()
    try:
        async with pool.connection() as connection:
            profile = await add_profile(connection)
        part = {
            "id": str(uuid4()),
            "profile": profile.name,
            "content": {"subject": "Water damage", "text": "Please leave."},
            "recipients": [{"address": "a@campus.example"}],
        }
        taken = await take_in(pool, json.dumps(part).encode(), published_at=published_at)
        async with pool.connection() as connection:
            row = await (
                await connection.execute("SELECT published_at FROM jobs WHERE number = %s", [taken.job_number])
            ).fetchone()
            await connection.execute("UPDATE jobs SET state = 'cancelled' WHERE number = %s", [taken.job_number])
    finally:
        await pool.close()
    assert row == (published_at if believed else None,)
