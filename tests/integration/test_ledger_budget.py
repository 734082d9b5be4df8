"""What a provider allows a mailbox, over the whole fleet: connections, and messages a minute."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from tests.servers.ledger_rows import add_profile, add_worker
from tocsin_schema.ledger import mailboxes, pausing, sending, sweeping, worker_leases
from tocsin_schema.ledger.pausing import PauseCause

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection

HORIZON = 1e6


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


async def several(stack: AsyncExitStack, url: str, count: int) -> list[Connection]:
    connect = psycopg.AsyncConnection.connect
    return [await stack.enter_async_context(await connect(url, autocommit=True)) for _ in range(count)]


# -- Connections


async def test_twenty_takers_never_hold_more_connections_than_the_mailbox_has(
    connection: Connection, database_url: str
) -> None:
    profile = await add_profile(connection, connections=3)
    open_now: set[int] = set()
    most = 0

    async def take_and_give_back(own: Connection) -> None:
        nonlocal most
        worker = await add_worker(own)
        for _ in range(3):
            while (slot := await mailboxes.take_connection(own, profile.mailbox_id, worker)) is None:
                await worker_leases.beat(own, worker)
            assert slot not in open_now
            open_now.add(slot)
            most = max(most, len(open_now))
            await worker_leases.beat(own, worker)
            open_now.remove(slot)
            await mailboxes.give_back_connection(own, profile.mailbox_id, slot, worker)

    async with AsyncExitStack() as stack:
        await asyncio.gather(*map(take_and_give_back, await several(stack, database_url, 20)))
    assert most == 3


async def test_all_connections_of_a_mailbox_can_be_had(connection: Connection) -> None:
    profile, worker = await add_profile(connection, connections=3), await add_worker(connection)
    slots = {await mailboxes.take_connection(connection, profile.mailbox_id, worker) for _ in range(3)}
    assert slots == {1, 2, 3}
    assert await mailboxes.take_connection(connection, profile.mailbox_id, worker) is None


async def test_a_connection_is_given_back_by_its_holder_only(connection: Connection) -> None:
    profile, worker = await add_profile(connection, connections=1), await add_worker(connection)
    assert await mailboxes.take_connection(connection, profile.mailbox_id, worker) == 1
    await mailboxes.give_back_connection(connection, profile.mailbox_id, 1, uuid4())
    assert await mailboxes.take_connection(connection, profile.mailbox_id, worker) is None
    await mailboxes.give_back_connection(connection, profile.mailbox_id, 1, worker)
    assert await mailboxes.take_connection(connection, profile.mailbox_id, worker) == 1


async def test_mailboxes_do_not_share_connections(connection: Connection) -> None:
    one, other = await add_profile(connection, connections=1), await add_profile(connection, connections=1)
    worker = await add_worker(connection)
    assert await mailboxes.take_connection(connection, one.mailbox_id, worker) == 1
    assert await mailboxes.take_connection(connection, other.mailbox_id, worker) == 1


async def test_after_the_limit_was_lowered_no_connection_is_added(connection: Connection) -> None:
    profile, worker = await add_profile(connection, connections=3), await add_worker(connection)
    for _ in range(3):
        await mailboxes.take_connection(connection, profile.mailbox_id, worker)
    await connection.execute("UPDATE mailboxes SET connections = 2 WHERE id = %s", [profile.mailbox_id])
    await mailboxes.give_back_connection(connection, profile.mailbox_id, 1, worker)
    assert await mailboxes.take_connection(connection, profile.mailbox_id, worker) is None  # 2 and 3 are still open


async def test_a_worker_that_retires_gives_its_connections_back(connection: Connection) -> None:
    profile, worker = await add_profile(connection, connections=1), await add_worker(connection)
    await mailboxes.take_connection(connection, profile.mailbox_id, worker)
    await worker_leases.retire_worker(connection, worker)
    assert await mailboxes.take_connection(connection, profile.mailbox_id, await add_worker(connection)) == 1


async def test_connections_of_workers_without_a_row_are_freed(connection: Connection) -> None:
    profile, worker = await add_profile(connection, connections=2), await add_worker(connection)
    await mailboxes.take_connection(connection, profile.mailbox_id, worker)
    await mailboxes.take_connection(connection, profile.mailbox_id, uuid4())
    assert await sweeping.free_orphaned_connections(connection) == 1


# -- Messages a minute


async def reserve(own: Connection, mailbox_id: int, count: int) -> list[float]:
    """Reserve time slots; give them in seconds since 1970, on the ledger's clock."""
    async with own.transaction():
        slots = await mailboxes.reserve_messages(own, mailbox_id, count, horizon_seconds=HORIZON)
        row = await (await own.execute("SELECT extract(epoch FROM now())::float8")).fetchone()
    assert slots is not None
    assert row is not None
    return [float(row[0]) + slots.first_in_seconds + place * slots.spacing_seconds for place in range(count)]


@pytest.mark.parametrize("limit", [1, 7, 30, 61, 1800])
async def test_no_minute_holds_more_messages_than_allowed(
    connection: Connection, database_url: str, limit: int
) -> None:
    profile = await add_profile(connection, messages_per_minute=limit)
    sizes = random.Random(limit)

    async def reserve_some(own: Connection) -> list[float]:
        return [
            time for _ in range(12) for time in await reserve(own, profile.mailbox_id, sizes.randint(1, 1 + limit // 4))
        ]

    async with AsyncExitStack() as stack:
        taken = await asyncio.gather(*map(reserve_some, await several(stack, database_url, 6)))
    times = sorted(time for some in taken for time in some)
    assert len(times) > limit
    # Whatever comes `limit` places later is more than a minute away, and a second more: it may leave late by that.
    assert all(later - earlier > 61 - 0.001 for earlier, later in zip(times, times[limit:], strict=False))


async def test_slots_follow_each_other_without_a_gap(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=30)
    times = [*await reserve(connection, profile.mailbox_id, 3), *await reserve(connection, profile.mailbox_id, 2)]
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([61 / 30] * 4, abs=0.001)


async def test_a_mailbox_that_rested_may_not_catch_up(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=30)
    await reserve(connection, profile.mailbox_id, 1)
    await connection.execute("UPDATE mailboxes SET next_message_at = now() - interval '1 hour'")
    slots = await mailboxes.reserve_messages(connection, profile.mailbox_id, 5, horizon_seconds=5)
    assert slots is not None
    assert slots.first_in_seconds == pytest.approx(0, abs=0.001)
    assert slots.spacing_seconds == pytest.approx(61 / 30)


async def test_slots_beyond_the_horizon_are_not_reserved(connection: Connection) -> None:
    profile = await add_profile(connection, messages_per_minute=6)
    assert await mailboxes.reserve_messages(connection, profile.mailbox_id, 1, horizon_seconds=5) is not None
    assert await mailboxes.reserve_messages(connection, profile.mailbox_id, 1, horizon_seconds=5) is None
    (time,) = await reserve(connection, profile.mailbox_id, 1)  # the refusal has cost nothing
    row = await (await connection.execute("SELECT extract(epoch FROM now())::float8")).fetchone()
    assert row is not None
    assert time - float(row[0]) < 61 / 6 + 0.1


async def test_a_limit_lifted_meanwhile_is_no_error(connection: Connection) -> None:
    # The slice read the profile a moment ago; the operator has just taken the limit away.
    profile = await add_profile(connection, messages_per_minute=30)
    await connection.execute("UPDATE mailboxes SET messages_per_minute = NULL")
    assert await mailboxes.reserve_messages(connection, profile.mailbox_id, 1, horizon_seconds=5) is None


# -- Rest


async def test_a_parked_mailbox_says_why_and_a_shorter_rest_does_not_end_a_longer_one(connection: Connection) -> None:
    profile = await add_profile(connection)
    await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=3600, reason="throttled")
    await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=10, reason="again")
    known = await sending.read_sender_profile(connection, profile.id)
    assert known is not None
    assert known.parked_until is not None
    row = await (await connection.execute("SELECT %s - now() > interval '59 minutes'", [known.parked_until])).fetchone()
    assert row == (True,)
    await connection.execute("UPDATE mailboxes SET parked_until = now() - interval '1 second'")
    rested = await sending.read_sender_profile(connection, profile.id)
    assert rested is not None
    assert rested.parked_until is None


async def test_a_profile_is_paused_once_and_keeps_its_first_reason(connection: Connection) -> None:
    profile = await add_profile(connection)
    assert await pausing.pause_profile(connection, profile.id, "the password is wrong", cause=PauseCause.SENDER)
    assert not await pausing.pause_profile(connection, profile.id, "something else", cause=PauseCause.SENDER)
    known = await sending.read_sender_profile(connection, profile.id)
    assert known is not None
    assert known.paused_reason == "the password is wrong"
