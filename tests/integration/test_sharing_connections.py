"""A limited mailbox's connections: shared by profiles in turns, and fewer when its server says so."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest

from tocsin_schema.ledger import sending, traffic
from tocsin_workers.sender import session_pool
from tocsin_workers.sender.adapting import tell_traffic
from tocsin_workers.sender.carrying_out import carry_out
from tocsin_workers.sender.reacting import CONNECTIONS_SECONDS, FewerConnections, Park, Slow

if TYPE_CHECKING:
    from tests.servers.office import Office
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.session_pool import PooledSession

URGENT, NORMAL, BULK = 0, 1, 2


async def limit(office: Office, connections: int | None) -> None:
    await office.ledger.execute(
        "UPDATE mailboxes SET connections = %s WHERE id = (SELECT mailbox_id FROM sending_profiles WHERE name = %s)",
        [connections, office.profile],
    )


async def own_profile(office: Office) -> UUID:
    return await office.one("SELECT id FROM sending_profiles WHERE name = %s", office.profile)


async def second_profile(office: Office) -> UUID:
    """Add a profile on the office's mailbox."""
    return await office.one(
        "INSERT INTO sending_profiles"
        " (name, provider, host, port, tls, auth, from_address, login, batch_size, mailbox_id)"
        " SELECT %s, provider, host, port, tls, auth, from_address, login, batch_size, mailbox_id"
        " FROM sending_profiles WHERE name = %s RETURNING id",
        str(uuid4()),
        office.profile,
    )


async def read(office: Office, profile_id: UUID) -> SenderProfile:
    profile = await sending.read_sender_profile(office.ledger, profile_id)
    assert profile is not None
    return profile


async def take(office: Office, profile_id: UUID, rank: int = NORMAL) -> PooledSession | None:
    """Do what a slice does at its beginning."""
    desk, profile = office.runtime.sender, await read(office, profile_id)
    return await desk.sessions.take(profile, lambda: desk.open_session(profile), rank=rank)


async def work_a_slice(office: Office, profile_id: UUID, rank: int = NORMAL) -> bool:
    """Take a session and give it back; whether there was one."""
    pooled = await take(office, profile_id, rank)
    if pooled is not None:
        await office.runtime.sessions.give_back(pooled)
    return pooled is not None


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_pool, "TURN_SECONDS", 0.0)


@pytest.mark.usefixtures("short_turns")
async def test_profiles_on_one_mailbox_take_turns_with_its_connections(office: Office):
    await limit(office, 1)
    one, other = await own_profile(office), await second_profile(office)
    had = [await work_a_slice(office, profile) for _ in range(3) for profile in (one, other)]
    # Each time the other one is told to wait, the first one closes its session at its next slice.
    assert had == [True, False, False, True, False, False]
    assert await work_a_slice(office, one)


async def test_a_profile_keeps_its_connection_for_a_while(office: Office):
    await limit(office, 1)
    one, other = await own_profile(office), await second_profile(office)
    assert await work_a_slice(office, one)
    assert not await work_a_slice(office, other)
    assert await work_a_slice(office, one)


async def test_who_has_urgent_mail_gets_the_connection_at_once(office: Office):
    await limit(office, 1)
    one, other = await own_profile(office), await second_profile(office)
    assert await work_a_slice(office, one, BULK)
    assert not await work_a_slice(office, other, URGENT)
    assert not await work_a_slice(office, one, BULK)
    assert await work_a_slice(office, other, URGENT)


@pytest.mark.usefixtures("short_turns")
async def test_urgent_mail_does_not_make_room_for_bulk(office: Office):
    await limit(office, 1)
    one, other = await own_profile(office), await second_profile(office)
    assert await work_a_slice(office, one, URGENT)
    assert not await work_a_slice(office, other, BULK)
    assert await work_a_slice(office, one, URGENT)


async def test_only_one_connection_is_closed_for_one_who_waits(office: Office):
    await limit(office, 2)
    one, other = await own_profile(office), await second_profile(office)
    taken = [await take(office, one, BULK), await take(office, one, BULK)]
    assert not await work_a_slice(office, other, URGENT)
    for pooled in taken:
        assert pooled is not None
        await office.runtime.sessions.give_back(pooled)
    assert [await work_a_slice(office, one, BULK) for _ in range(2)] == [False, True]
    assert await work_a_slice(office, other, URGENT)


async def test_a_connection_that_lies_idle_is_one_that_another_slice_would_find(office: Office):
    await limit(office, 1)
    own = await own_profile(office)
    sessions = office.runtime.sender.sessions
    assert sessions.has_left(await read(office, own))
    pooled = await take(office, own)
    assert pooled is not None
    assert not sessions.has_left(await read(office, own))
    await office.runtime.sessions.give_back(pooled)
    assert sessions.has_left(await read(office, own))


async def test_nobody_logs_in_long_before_the_next_time_slot(office: Office):
    profile_id = await own_profile(office)
    mailbox = (await read(office, profile_id)).mailbox_id
    await office.ledger.execute(
        "UPDATE mailboxes SET messages_per_minute = 6, next_message_at = now() + interval '60 seconds' WHERE id = %s",
        [mailbox],
    )
    before = office.server.connections
    assert not await work_a_slice(office, profile_id)
    assert office.server.connections == before
    await office.ledger.execute("UPDATE mailboxes SET next_message_at = now() + interval '4 seconds'")
    assert await work_a_slice(office, profile_id)


async def test_an_idle_connection_is_closed_when_another_process_waits_for_it(office: Office):
    await limit(office, 1)
    profile_id = await own_profile(office)
    assert await work_a_slice(office, profile_id)
    profile = await read(office, profile_id)
    elsewhere = session_pool.SessionPool(office.runtime.pool, uuid4())
    await office.runtime.sessions.close_idle()
    assert office.runtime.sessions.open_by_mailbox[profile.mailbox_id] == 1
    assert await elsewhere.take(profile, lambda: office.runtime.sender.open_session(profile)) is None
    await office.runtime.sessions.close_idle()
    assert office.runtime.sessions.open_by_mailbox[profile.mailbox_id] == 0
    pooled = await elsewhere.take(profile, lambda: office.runtime.sender.open_session(profile))
    assert pooled is not None
    await elsewhere.give_back(pooled)
    await elsewhere.leave()


async def test_after_too_many_connections_this_one_is_closed_and_none_opened_for_a_moment(office: Office):
    await limit(office, 8)
    profile_id = await own_profile(office)
    taken = [await take(office, profile_id) for _ in range(4)]
    profile = await read(office, profile_id)
    refused = FewerConnections("432 4.3.2 Concurrent connections limit exceeded")
    await carry_out(office.runtime.sender, profile, refused, pooled=taken[0])
    known = await read(office, profile_id)
    assert (known.connections, known.parked_until) == (2, None)
    for pooled in taken:
        assert pooled is not None
        await office.runtime.sessions.give_back(pooled)
    # Those above the number in force are closed as well, and so is the one on which it was said.
    assert office.runtime.sessions.open_by_mailbox[profile.mailbox_id] <= 2
    left = office.runtime.sessions.open_by_mailbox[profile.mailbox_id]
    again = [await take(office, profile_id) for _ in range(3)]
    assert sum(pooled is not None for pooled in again) == left


async def test_a_mailbox_with_one_connection_left_rests(office: Office):
    await limit(office, 1)
    profile = await read(office, await own_profile(office))
    await carry_out(office.runtime.sender, profile, FewerConnections("432 4.3.2 no", at_greeting=True))
    rest = await office.one(
        "SELECT extract(epoch FROM parked_until - now())::float8 FROM mailboxes WHERE id = %s", profile.mailbox_id
    )
    assert CONNECTIONS_SECONDS - 5 < rest <= CONNECTIONS_SECONDS


async def test_sessions_of_a_mailbox_that_became_limited_are_closed(office: Office):
    profile_id = await own_profile(office)
    assert await work_a_slice(office, profile_id)
    before = office.server.connections
    await limit(office, 3)
    pooled = await take(office, profile_id)
    assert pooled is not None
    assert pooled.slot is not None
    assert office.server.connections == before + 1
    await office.runtime.sessions.give_back(pooled)


async def test_a_throttle_tells_what_was_sent_lowers_the_rate_and_lets_the_mailbox_rest(office: Office):
    profile = await read(office, await own_profile(office))
    desk = office.runtime.sender
    await tell_traffic(desk)
    desk.traffic.count(profile.mailbox_id, messages=30, recipients=30, now=0.0)
    await carry_out(desk, profile, Slow("421 4.4.2 Message submission rate exceeded"))
    known = await read(office, profile.id)
    assert known.messages_per_minute == pytest.approx(27.0)
    assert known.parked_until is not None
    assert (known.parked_until - known.read_at).total_seconds() > 50
    assert sum(bucket.messages for bucket in await traffic.recent_traffic(office.ledger, profile.mailbox_id)) == 30


async def test_a_tenants_quota_lets_all_its_mailboxes_rest(office: Office):
    profile_id = await own_profile(office)
    profile = await read(office, profile_id)
    tenant = await office.one("INSERT INTO tenants (name) VALUES (%s) RETURNING id", str(uuid4()))
    await office.ledger.execute("UPDATE mailboxes SET tenant_id = %s WHERE id = %s", [tenant, profile.mailbox_id])
    reply = Park(3600.0, "550 5.7.233 tenant threshold", is_tenants=True)
    await carry_out(office.runtime.sender, await read(office, profile_id), reply)
    assert await office.one("SELECT parked_until > now() FROM tenants WHERE id = %s", tenant)
    assert await office.one("SELECT parked_until IS NULL FROM mailboxes WHERE id = %s", profile.mailbox_id)
    assert (await read(office, profile_id)).parked_reason == reply.reason


async def test_a_session_is_kept_although_the_ledger_is_away_when_it_is_asked_whose_turn_it_is(
    office: Office, monkeypatch: pytest.MonkeyPatch
):
    await limit(office, 1)
    own, other = await own_profile(office), await second_profile(office)
    first = await take(office, own)
    assert first is not None
    await office.runtime.sessions.give_back(first)
    assert await take(office, other, URGENT) is None  # from now on it waits for the only connection

    async def away(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("the ledger is away")

    with monkeypatch.context() as patched:
        patched.setattr(session_pool.mailboxes, "grant_connection", away)
        with pytest.raises(psycopg.OperationalError):
            await take(office, own, BULK)
    assert office.runtime.sessions.open_by_mailbox.total() == 1
    assert await take(office, own, URGENT) is first
    await office.runtime.sessions.give_back(first)
