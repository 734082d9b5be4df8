"""Recipients of 24 hours in the ledger: exact over the fleet, a share kept for urgent jobs, tenants, and their end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from tests.builders import a_sender_profile
from tests.servers.ledger_rows import Profile, add_job, add_profile
from tocsin_schema.ledger import daily_recipients, mailboxes, pausing, sending, sweeping
from tocsin_schema.ledger.daily_recipients import MessageSize, Whose
from tocsin_workers.sender.reserving import rest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection


@pytest.fixture
async def connection(ledger_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(ledger_url, autocommit=True) as one:
        yield one


async def limited(connection: Connection, per_day: int, *, tenant_id: int | None = None) -> Profile:
    profile = await add_profile(connection)
    await connection.execute(
        "UPDATE mailboxes SET recipients_per_day = %s, tenant_id = %s WHERE id = %s",
        [per_day, tenant_id, profile.mailbox_id],
    )
    return profile


async def add_tenant(connection: Connection, per_day: int) -> int:
    return await one(
        connection,
        "INSERT INTO tenants (name, external_recipients_per_day) VALUES (%s, %s) RETURNING id",
        str(uuid4()),
        per_day,
    )


async def one(connection: Connection, query: str, *parameters: object) -> Any:
    row = await (await connection.execute(query.encode(), parameters)).fetchone()
    assert row is not None
    return row[0]


async def count(
    connection: Connection, profile: Profile, *sizes: int, is_urgent: bool = False, external: int | None = None
) -> daily_recipients.DayRoom:
    messages = [MessageSize(size, size if external is None else external) for size in sizes]
    async with connection.transaction():
        return await daily_recipients.count_recipients(connection, profile.mailbox_id, messages, is_urgent=is_urgent)


async def used(connection: Connection, profile: Profile) -> tuple[int, int]:
    row = await (
        await connection.execute(
            "SELECT recipients_of_the_day, urgent_of_the_day FROM mailbox_budgets WHERE id = %s", [profile.mailbox_id]
        )
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def grow_older(connection: Connection, profile: Profile, interval: str) -> None:
    await connection.execute(
        "UPDATE mailbox_usage SET minute = minute - %s::interval WHERE mailbox_id = %s", [interval, profile.mailbox_id]
    )


async def test_eight_processes_never_count_more_than_the_day_has(connection: Connection, ledger_url: str) -> None:
    profile = await limited(connection, 100)

    async def send(own: Connection) -> int:
        return sum([(await count(own, profile, 3, 3)).messages for _ in range(5)])

    async with AsyncExitStack() as stack:
        connect = psycopg.AsyncConnection.connect
        fleet = [await stack.enter_async_context(await connect(ledger_url, autocommit=True)) for _ in range(8)]
        messages = sum(await asyncio.gather(*map(send, fleet)))
    # 20 of the 100 are kept for urgent jobs, and 26 × 3 fit into the others.
    assert messages == 26
    assert await used(connection, profile) == (78, 0)


async def test_urgent_mail_has_its_share_when_the_rest_is_used_up(connection: Connection) -> None:
    profile = await limited(connection, 100)
    assert (await count(connection, profile, 50, 30)).shortage is None
    refused = await count(connection, profile, 1)
    assert refused.shortage is not None
    assert (refused.messages, refused.shortage.any_in_seconds) == (0, 0.0)
    assert 24 * 3600 - 60 <= refused.shortage.frees_in_seconds <= 24 * 3600 + 60
    assert (await count(connection, profile, 15, 5, is_urgent=True)).messages == 2
    assert await used(connection, profile) == (100, 20)
    full = await count(connection, profile, 1, is_urgent=True)
    assert full.shortage is not None
    assert full.shortage.any_in_seconds > 24 * 3600 - 60


async def test_the_share_is_a_setting(connection: Connection) -> None:
    profile = await limited(connection, 100)
    await connection.execute("INSERT INTO settings (key, value) VALUES ('UrgentSharePercent', '50')")
    try:
        assert (await count(connection, profile, 50)).messages == 1
        assert (await count(connection, profile, 1)).messages == 0
    finally:
        await connection.execute("DELETE FROM settings WHERE key = 'UrgentSharePercent'")


async def test_mail_resumes_by_itself_as_recipients_grow_a_day_old(connection: Connection) -> None:
    profile = await limited(connection, 100)
    await count(connection, profile, 40)
    await grow_older(connection, profile, "23 hours")
    await count(connection, profile, 40)
    short = await count(connection, profile, 30)
    assert short.shortage is not None
    assert 3600 - 60 <= short.shortage.frees_in_seconds <= 3600 + 60  # when the first forty are a day old
    await grow_older(connection, profile, "1 hour 2 minutes")
    assert (await count(connection, profile, 30)).shortage is None


async def test_what_was_not_tried_is_taken_back_wherever_it_was_counted(connection: Connection) -> None:
    profile = await limited(connection, 1000)
    await count(connection, profile, 30)
    await grow_older(connection, profile, "1 minute")
    await count(connection, profile, 10, is_urgent=True)
    await daily_recipients.give_back_recipients(
        connection, profile.mailbox_id, MessageSize(25, 0), tenant_id=None, is_urgent=False
    )
    assert await used(connection, profile) == (15, 10)
    await daily_recipients.give_back_recipients(
        connection, profile.mailbox_id, MessageSize(10, 0), tenant_id=None, is_urgent=True
    )
    assert await used(connection, profile) == (5, 0)


async def test_a_mailbox_without_a_limit_counts_nothing(connection: Connection) -> None:
    profile = await add_profile(connection)
    assert (await count(connection, profile, 50, 50)).messages == 2
    assert await used(connection, profile) == (0, 0)


# -- Tenants


async def test_mailboxes_of_a_tenant_share_its_external_recipients(connection: Connection) -> None:
    tenant = await add_tenant(connection, 100)
    one_box = await limited(connection, 1000, tenant_id=tenant)
    other = await limited(connection, 1000, tenant_id=tenant)
    assert (await count(connection, one_box, 50)).messages == 1
    assert (await count(connection, other, 30)).messages == 1
    refused = await count(connection, other, 5)
    assert refused.shortage is not None
    assert (refused.messages, refused.shortage.whose, refused.shortage.tenant_id) == (0, Whose.TENANT, tenant)
    assert (await count(connection, other, 5, external=0)).messages == 1  # inside of the organisation
    assert (await count(connection, one_box, 20, is_urgent=True)).messages == 1
    assert await used(connection, other) == (35, 0)


async def test_two_mailboxes_that_count_at_once_never_wait_for_each_other_in_a_circle(
    connection: Connection, ledger_url: str
) -> None:
    tenant = await add_tenant(connection, 10_000)
    boxes = [await limited(connection, 10_000, tenant_id=tenant) for _ in range(4)]

    async def send(own: Connection, profile: Profile) -> None:
        for _ in range(10):
            await count(own, profile, 1, 1)

    async with AsyncExitStack() as stack:
        connect = psycopg.AsyncConnection.connect
        fleet = [await stack.enter_async_context(await connect(ledger_url, autocommit=True)) for _ in range(4)]
        await asyncio.gather(*map(send, fleet, boxes))
    assert await one(connection, "SELECT sum(recipients) FROM tenant_usage WHERE tenant_id = %s", tenant) == 80


# -- Resting


async def rest_after(connection: Connection, profile: Profile, size: int, *, is_urgent: bool = False) -> None:
    room = await count(connection, profile, size, is_urgent=is_urgent)
    assert room.shortage is not None
    await rest(connection, a_sender_profile(mailbox_id=profile.mailbox_id), room.shortage, is_urgent=is_urgent)


async def woken(connection: Connection, profile: Profile) -> set[int]:
    found = await sweeping.profiles_to_wake(connection, patience_seconds=0)
    return {rank for profile_id, rank in found if profile_id == profile.id}


async def test_only_urgent_jobs_are_claimed_and_woken_for_while_the_rest_is_kept_for_them(
    connection: Connection,
) -> None:
    profile, other = await limited(connection, 100), await add_profile(connection)
    for rank in (0, 1, 2):
        await add_job(connection, profile, rank=rank)
    await add_job(connection, other)
    await count(connection, profile, 80)
    assert await woken(connection, profile) == {0, 1, 2}
    await rest_after(connection, profile, 1)
    assert await woken(connection, profile) == {0}
    assert await woken(connection, other) == {1}
    known = await sending.read_sender_profile(connection, profile.id)
    assert known is not None
    assert known.parked_until is None  # urgent mail goes on
    reason = await one(
        connection, "SELECT kept_for_urgent_reason FROM mailbox_budgets WHERE id = %s", profile.mailbox_id
    )
    assert "its 100 recipients of 24 hours are used up but for those that are kept for urgent jobs" in reason
    await count(connection, profile, 20, is_urgent=True)
    await rest_after(connection, profile, 1, is_urgent=True)
    assert await woken(connection, profile) == set()
    await pausing.resume_profile(connection, profile.id)
    assert await woken(connection, profile) == {0, 1, 2}


async def test_when_nothing_at_all_is_left_a_bulk_message_makes_the_mailbox_rest(connection: Connection) -> None:
    profile = await limited(connection, 10)
    await add_job(connection, profile, rank=0)
    await count(connection, profile, 8)
    await count(connection, profile, 2, is_urgent=True)
    await rest_after(connection, profile, 1)
    assert await woken(connection, profile) == set()


async def test_a_tenant_that_is_full_rests_with_all_its_mailboxes(connection: Connection) -> None:
    tenant = await add_tenant(connection, 10)
    one_box = await limited(connection, 1000, tenant_id=tenant)
    other = await limited(connection, 1000, tenant_id=tenant)
    for rank in (0, 1):
        await add_job(connection, other, rank=rank)
    await count(connection, one_box, 8)
    await rest_after(connection, one_box, 1)
    assert await woken(connection, other) == {0}
    await mailboxes.park_tenant(connection, tenant, seconds=60, reason="the tenant's quota is used up")
    assert await woken(connection, other) == set()
    known = await sending.read_sender_profile(connection, other.id)
    assert known is not None
    assert known.parked_reason == "the tenant's quota is used up"


# -- Nobody polls


async def test_nobody_is_woken_for_a_mailbox_without_a_free_connection(connection: Connection) -> None:
    profile = await add_profile(connection, connections=1)
    await add_job(connection, profile)
    worker = uuid4()
    slot = await mailboxes.take_connection(connection, profile.mailbox_id, worker)
    assert slot is not None
    assert await woken(connection, profile) == set()
    await mailboxes.give_back_connection(connection, profile.mailbox_id, slot, worker)
    assert await woken(connection, profile) == {1}


async def test_nobody_is_woken_long_before_the_next_time_slot(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=6)
    await add_job(connection, profile)
    assert await woken(connection, profile) == {1}
    await mailboxes.reserve_messages(connection, profile.mailbox_id, 1, horizon_seconds=5)
    assert await woken(connection, profile) == set()
    await connection.execute("UPDATE mailboxes SET next_message_at = next_message_at - interval '6 seconds'")
    assert await woken(connection, profile) == {1}


async def test_no_slot_is_given_while_the_mailbox_rests(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=60)
    await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=60, reason="throttled")
    assert await mailboxes.reserve_messages(connection, profile.mailbox_id, 1, horizon_seconds=5) is None
