"""Refresh tokens that are replaced at every use: the new one is never lost, and the old one never comes twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.token_endpoint import Hang, Reply, TokenEndpoint, json_reply, token_endpoint
from tests.servers.token_fleet import MAILBOX, Fleet, token_fleet
from tocsin_schema.errors import TokenError
from tocsin_schema.ledger import oauth_profiles
from tocsin_schema.ledger.access_tokens import TokenKey
from tocsin_schema.ledger.oauth_profiles import CLIENT_SECRET_PURPOSE
from tocsin_workers.tokens import broker
from tocsin_workers.tokens.refreshing import Want
from tocsin_workers.tokens.single_flight import TokenSource

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection
    from tocsin_workers.tokens.access_token import AccessToken

SUCCESS = {"access_token": "token", "expires_in": 3600, "refresh_token": "second"}


@pytest.fixture
async def endpoint() -> AsyncGenerator[TokenEndpoint]:
    async with token_endpoint() as one:
        one.misbehave(json_reply(200, SUCCESS))
        yield one


@pytest.fixture
async def fleet(database_url: str, endpoint: TokenEndpoint) -> AsyncGenerator[Fleet]:
    async with token_fleet(database_url, endpoint) as one:
        yield one


async def test_whoever_asked_may_go_and_the_new_refresh_token_is_stored_all_the_same(
    fleet: Fleet, endpoint: TokenEndpoint
):
    endpoint.seconds_to_answer = 0.3
    profile = await fleet.add_sign_in("first")
    source = fleet.source()
    asking = asyncio.create_task(source.obtain(TokenKey(profile.id, MAILBOX)))
    await endpoint.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await source.finish()
    assert await fleet.stored_refresh_token(profile) == "second"
    assert endpoint.requests[0].form["refresh_token"] == "first"
    assert (await source.obtain(TokenKey(profile.id, MAILBOX))).token.get_secret_value() == "token"
    assert endpoint.token_requests == 1


async def test_a_process_that_ends_waits_for_no_hanging_endpoint(fleet: Fleet, endpoint: TokenEndpoint):
    endpoint.misbehave(Hang())
    profile = await fleet.add_sign_in("first")
    source = fleet.source(deadline=5.0, lease=6.0)
    asking = asyncio.create_task(source.obtain(TokenKey(profile.id, MAILBOX)))
    await endpoint.asked.wait()
    asking.cancel()
    await asyncio.wait([asking])
    async with asyncio.timeout(PATIENCE_SECONDS):
        await source.finish(within_seconds=0.2)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await endpoint.abandoned.wait()


@pytest.mark.parametrize("flaw", [{"expires_in": 0}, {"token_type": "mac"}, {"access_token": ""}], ids=str)
async def test_an_access_token_that_cannot_be_used_does_not_cost_the_sign_in(
    fleet: Fleet, endpoint: TokenEndpoint, flaw: dict[str, object]
):
    endpoint.misbehave(json_reply(200, {**SUCCESS, **flaw}))
    profile = await fleet.add_sign_in("first")
    with pytest.raises(TokenError):
        await fleet.source().obtain(TokenKey(profile.id, MAILBOX))
    assert await fleet.stored_refresh_token(profile) == "second"


async def test_a_new_refresh_token_waits_for_postgres_and_nobody_uses_the_old_one_meanwhile(
    fleet: Fleet, endpoint: TokenEndpoint
):
    endpoint.seconds_to_answer = 0.3
    profile = await fleet.add_sign_in("first")
    key = TokenKey(profile.id, MAILBOX)
    asking = asyncio.create_task(fleet.source().obtain(key))
    await endpoint.asked.wait()
    await let_in(fleet.url, allowed=False)
    # Longer than the lease of a request: it is the sign-in's that holds.
    await asyncio.sleep(2.0)
    await let_in(fleet.url, allowed=True)
    others = [asyncio.create_task(fleet.source(process).obtain(key)) for process in (1, 2)]
    tokens = await asyncio.gather(asking, *others)
    assert {token.token.get_secret_value() for token in tokens} == {"token"}
    assert await fleet.stored_refresh_token(profile) == "second"
    assert [request.form["refresh_token"] for request in endpoint.requests] == ["first"]


async def let_in(url: str, *, allowed: bool) -> None:
    """Let everybody into a database, or nobody, and throw out who is in."""
    name = urlsplit(url).path.removeprefix("/")
    elsewhere = url.replace(name, "postgres")
    async with await psycopg.AsyncConnection.connect(elsewhere, autocommit=True) as connection:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}".encode())
        if not allowed:
            await connection.execute(
                b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )


async def test_one_key_that_meets_an_outage_does_not_cut_off_the_others_requests(fleet: Fleet, endpoint: TokenEndpoint):
    unlucky, lucky = await fleet.add_sign_in("x", name="unlucky"), await fleet.add_sign_in("first", name="lucky")

    class Source(TokenSource):
        async def obtain(self, key: TokenKey, *, want: Want = Want.USABLE, beyond: int | None = None) -> AccessToken:
            if key.profile_id == unlucky.id:
                raise psycopg.OperationalError
            return await super().obtain(key, want=want, beyond=beyond)

    for profile in (unlucky, lucky):
        await fleet.source().obtain(TokenKey(profile.id, MAILBOX))
        await fleet.source().look(TokenKey(profile.id, MAILBOX), in_use=True)
    await fleet.age(3100)
    endpoint.seconds_to_answer = 0.2
    endpoint.misbehave(json_reply(200, {**SUCCESS, "refresh_token": "third"}))
    with pytest.raises(psycopg.OperationalError):
        await broker.refresh_due(Source(fleet.pools[0], fleet.sealer))
    assert await fleet.stored_refresh_token(lucky) == "third"


async def test_a_secret_that_is_replaced_together_with_its_address_never_goes_to_the_old_one(
    fleet: Fleet, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
):
    endpoint.behave()
    read = oauth_profiles.read_sealed_secrets

    async def changed_in_between(connection: Connection, profile_id: object) -> object:
        sealed = fleet.sealer.seal("n3w", purpose=CLIENT_SECRET_PURPOSE, row_id=str(fleet.profile.id))
        await fleet.execute(b"UPDATE oauth_profiles SET token_endpoint = 'https://elsewhere.example/token'")
        await fleet.execute(b"UPDATE oauth_profiles SET sealed_client_secret = %s", [sealed])
        return await read(connection, fleet.profile.id)

    monkeypatch.setattr(oauth_profiles, "read_sealed_secrets", changed_in_between)
    await fleet.source().obtain(fleet.key)
    assert "n3w" not in str([request.form for request in endpoint.requests])


async def test_a_mailbox_that_is_refused_takes_no_token_from_the_others_while_the_endpoint_is_away(
    fleet: Fleet, endpoint: TokenEndpoint
):
    endpoint.behave()
    access = fleet.access(memory_seconds=0)
    await access.get(fleet.profile, "bad@campus.example")
    await fleet.age(1800)
    token = await access.get(fleet.profile, "bad@campus.example")
    endpoint.misbehave(Reply(503, b"", {"Retry-After": "600"}))
    await access.refused(token, "bad@campus.example")
    with pytest.raises(TokenError):
        await access.get(fleet.profile, "bad@campus.example")
    assert (await access.get(fleet.profile, "good@campus.example")).token == token.token
    assert (await fleet.access(1).get(fleet.profile, "good@campus.example")).token == token.token
