"""What a server's refusals teach the whole fleet: once a cool-down, in force everywhere, and forgotten at a word."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from tests.builders import a_sender_profile
from tests.servers.ledger_rows import Profile, add_profile, add_worker
from tocsin_schema.ledger import learned_limits, mailboxes, sending, sending_profiles, traffic
from tocsin_schema.ledger.connection import open_pool
from tocsin_schema.ledger.learned_limits import CountedBy
from tocsin_schema.ledger.sending_profile_rules import AskedLimits, AskedTenant
from tocsin_schema.ledger.traffic import Counted
from tocsin_workers.sender.adapting import lower_connections, raise_limits, slow_down

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.sending import SenderProfile


@pytest.fixture
async def connection(ledger_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(ledger_url, autocommit=True) as one:
        yield one


async def read(connection: Connection, profile: Profile) -> SenderProfile:
    known = await sending.read_sender_profile(connection, profile.id)
    assert known is not None
    return known


async def tell(connection: Connection, profile: Profile, messages: int, *, connections: int = 1) -> None:
    """Let a process have sent so much just now."""
    counted = Counted(profile.mailbox_id, messages, messages, connections, 1.0)
    await traffic.note_traffic(connection, uuid4(), [counted])


async def refuse_rate(connection: Connection, profile: Profile, counted_by: CountedBy = CountedBy.MINUTE) -> float:
    async with connection.transaction():
        return await slow_down(
            connection, a_sender_profile(mailbox_id=profile.mailbox_id), counted_by, "421 4.4.2 slow down"
        )


async def refuse_connection(connection: Connection, profile: Profile, *, at_greeting: bool = False) -> Any:
    async with connection.transaction():
        return await lower_connections(
            connection, a_sender_profile(mailbox_id=profile.mailbox_id), "432 4.3.2 too many", at_greeting=at_greeting
        )


async def pass_time(connection: Connection, interval: str) -> None:
    """Let all that was learned and sent lie further back."""
    await connection.execute(
        "UPDATE mailboxes SET per_minute_lowered_at = per_minute_lowered_at - %(i)s::interval,"
        " per_minute_raised_at = per_minute_raised_at - %(i)s::interval,"
        " per_minute_needed_at = per_minute_needed_at - %(i)s::interval,"
        " connections_lowered_at = connections_lowered_at - %(i)s::interval,"
        " connections_raised_at = connections_raised_at - %(i)s::interval,"
        " learned_recipients_at = learned_recipients_at - %(i)s::interval,"
        " learned_pipelining_at = learned_pipelining_at - %(i)s::interval",
        {"i": interval},
    )
    await connection.execute("UPDATE mailbox_traffic SET bucket = bucket - %s::interval", [interval])


async def raise_all(url: str) -> None:
    async with open_pool(url, size=1) as pool:
        await raise_limits(pool)


async def test_twenty_refusals_at_once_lower_the_rate_once(connection: Connection, ledger_url: str) -> None:
    profile = await add_profile(connection)
    for _ in range(3):
        await tell(connection, profile, 10)
    async with AsyncExitStack() as stack:
        connect = psycopg.AsyncConnection.connect
        fleet = [await stack.enter_async_context(await connect(ledger_url, autocommit=True)) for _ in range(20)]
        rests = await asyncio.gather(*(refuse_rate(own, profile) for own in fleet))
    known = await read(connection, profile)
    assert known.messages_per_minute == pytest.approx(27.0)
    assert all(55.0 <= seconds <= 60.0 for seconds in rests)  # they were all sent just now


async def test_an_unlimited_mailbox_with_a_learned_rate_reserves_like_a_limited_one(connection: Connection) -> None:
    profile = await add_profile(connection)
    assert await mailboxes.reserve_messages(connection, profile.mailbox_id, 1, horizon_seconds=5) is None
    await tell(connection, profile, 25)
    await refuse_rate(connection, profile)
    slots = await mailboxes.reserve_messages(connection, profile.mailbox_id, 2, horizon_seconds=5)
    assert slots is not None
    assert slots.spacing_seconds == pytest.approx(61.0 / 22.5)


async def test_a_learned_rate_never_allows_more_than_is_set(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=20)
    await tell(connection, profile, 500)
    await refuse_rate(connection, profile)
    assert (await read(connection, profile)).messages_per_minute == pytest.approx(18.0)


async def test_what_is_counted_by_the_second_goes_by_the_last_seconds(connection: Connection) -> None:
    profile = await add_profile(connection)
    await tell(connection, profile, 14)
    assert await refuse_rate(connection, profile, CountedBy.SECOND) == pytest.approx(5.0)
    assert (await read(connection, profile)).messages_per_minute == pytest.approx(14 * 60 * 0.9)


async def test_the_rate_is_corrected_by_what_others_tell_later_and_creeps_up_when_used(
    connection: Connection, ledger_url: str
) -> None:
    profile = await add_profile(connection, messages_per_minute=60)
    await tell(connection, profile, 4)
    await refuse_rate(connection, profile)
    await tell(connection, profile, 26)
    await pass_time(connection, "5 seconds")
    await raise_all(ledger_url)
    assert (await read(connection, profile)).messages_per_minute == pytest.approx(27.0)
    await pass_time(connection, "2 minutes")
    await tell(connection, profile, 27)
    await asyncio.gather(*(raise_all(ledger_url) for _ in range(4)))
    assert (await read(connection, profile)).messages_per_minute == pytest.approx(27.27)


async def test_connections_go_down_for_the_fleet_and_one_is_tried_again(
    connection: Connection, ledger_url: str
) -> None:
    profile, worker = await add_profile(connection, connections=8), await add_worker(connection)
    slots = [await mailboxes.take_connection(connection, profile.mailbox_id, worker) for _ in range(8)]
    assert (await refuse_connection(connection, profile)).is_enough
    assert (await refuse_connection(connection, profile)).in_force == 4  # at once: it counts once
    assert (await read(connection, profile)).connections == 4
    for slot in slots[:4]:
        assert slot is not None
        await mailboxes.give_back_connection(connection, profile.mailbox_id, slot, worker)
    assert await mailboxes.take_connection(connection, profile.mailbox_id, worker) is None
    await pass_time(connection, "1 minute")
    await raise_all(ledger_url)
    assert (await read(connection, profile)).connections == 4
    await pass_time(connection, "1 minute")
    await raise_all(ledger_url)
    assert (await read(connection, profile)).connections == 5
    assert (await refuse_connection(connection, profile)).in_force == 3
    await pass_time(connection, "3 minutes")
    await raise_all(ledger_url)
    assert (await read(connection, profile)).connections == 3  # four minutes, after the second failure
    await pass_time(connection, "1 minute")
    await raise_all(ledger_url)
    assert (await read(connection, profile)).connections == 4


async def test_an_unlimited_mailbox_learns_from_what_processes_have_open(connection: Connection) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    for _ in range(3):
        await tell(connection, profile, 5, connections=2)
    assert (await refuse_connection(connection, profile)).in_force == 3
    assert [await mailboxes.take_connection(connection, profile.mailbox_id, worker) for _ in range(4)].count(None) == 1


async def test_with_one_connection_left_there_is_nothing_to_lower(connection: Connection) -> None:
    profile = await add_profile(connection, connections=1)
    lowered = await refuse_connection(connection, profile)
    assert (lowered.in_force, lowered.is_enough) == (1, False)


async def test_the_least_recipients_a_message_and_pipelining_hold_for_the_fleet_for_a_day(
    connection: Connection,
) -> None:
    profile = await add_profile(connection)
    for recipients in (20, 10, 30):
        await learned_limits.learn_recipients(connection, profile.mailbox_id, recipients)
    for form in ("envelope", "off", "envelope"):
        await learned_limits.learn_pipelining(connection, profile.mailbox_id, form)
    known = await read(connection, profile)
    assert (known.recipients_per_message, known.pipelining, known.learned_pipelining) == (10, "envelope", "off")
    await pass_time(connection, "1 day")
    known = await read(connection, profile)
    assert (known.recipients_per_message, known.learned_pipelining) == (None, None)
    await learned_limits.learn_recipients(connection, profile.mailbox_id, 30)
    assert (await read(connection, profile)).recipients_per_message == 30


async def test_a_person_who_names_a_limit_makes_the_fleet_forget_what_it_learned(connection: Connection) -> None:
    profile = await add_profile(connection, connections=8, messages_per_minute=60)
    await tell(connection, profile, 30)
    await refuse_rate(connection, profile)
    await refuse_connection(connection, profile)
    name = (await read(connection, profile)).name
    before = await sending_profiles.read_profile(connection, name)
    assert (before.learned_connections, before.per_minute_reason) == (1, "421 4.4.2 slow down")
    await sending_profiles.change_profile(connection, before, before.draft, asked=AskedLimits(messages_per_minute=40))
    after = await read(connection, profile)
    assert (after.messages_per_minute, after.connections) == (40, 1)
    await sending_profiles.change_profile(connection, before, before.draft, asked=AskedLimits(connections=8))
    assert (await read(connection, profile)).connections == 8


async def test_a_profile_joins_and_leaves_a_tenant(connection: Connection) -> None:
    profile = await add_profile(connection)
    name = (await read(connection, profile)).name
    before = await sending_profiles.read_profile(connection, name)
    campus = AskedTenant("campus", 5000)
    await sending_profiles.change_profile(connection, before, before.draft, asked=AskedLimits(), tenant=campus)
    known = await read(connection, profile)
    assert (known.tenant_per_day, known.tenant_urgent_share) == (5000, 1000)
    await sending_profiles.change_profile(
        connection, before, before.draft, asked=AskedLimits(), tenant=AskedTenant(None)
    )
    assert (await read(connection, profile)).tenant_id is None


async def test_traffic_is_told_by_the_five_seconds_and_forgotten_after_a_quarter_of_an_hour(
    connection: Connection, ledger_url: str
) -> None:
    profile, worker = await add_profile(connection), await add_worker(connection)
    for _ in range(2):
        await traffic.note_traffic(connection, worker, [Counted(profile.mailbox_id, 3, 30, 2, 0.5)])
    row = await (
        await connection.execute(
            "SELECT messages_last_minute, recipients_last_minute FROM mailbox_budgets WHERE id = %s",
            [profile.mailbox_id],
        )
    ).fetchone()
    assert row == (6, 60)
    await traffic.note_traffic(connection, worker, [Counted(-1, 3, 30, 2, 0.5)])  # its mailbox is gone
    await pass_time(connection, "16 minutes")
    await raise_all(ledger_url)
    assert await (await connection.execute("SELECT 1 FROM mailbox_traffic")).fetchone() is None
