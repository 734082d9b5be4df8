"""One token request for the whole fleet: a real ledger, a real HTTPS endpoint, a pool for each process."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from tests.servers.token_endpoint import CLIENT_SECRET, TENANT, Reply, TokenEndpoint, json_reply, token_endpoint
from tests.servers.token_fleet import PROCESSES, Fleet, failures_of, token_fleet
from tocsin_schema.errors import MessageBrokerError
from tocsin_schema.ledger import access_tokens
from tocsin_schema.sealing import Keyring, Sealer
from tocsin_workers.tokens import broker
from tocsin_workers.tokens.attempting import RequestOutcome
from tocsin_workers.tokens.refreshing import AfterRefusal, Want

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.access_tokens import TokenKey
    from tocsin_workers.tokens.access import TokenAccess

ASKERS = 64
MAILBOX = "news@campus.example"


@pytest.fixture
async def endpoint() -> AsyncGenerator[TokenEndpoint]:
    async with token_endpoint() as one:
        yield one


@pytest.fixture
async def fleet(database_url: str, endpoint: TokenEndpoint) -> AsyncGenerator[Fleet]:
    async with token_fleet(database_url, endpoint) as one:
        yield one


async def test_64_cold_askers_in_4_processes_make_one_request(fleet: Fleet, endpoint: TokenEndpoint):
    endpoint.seconds_to_answer = 0.2
    # Longer than on a good day: 64 askers on a busy machine take most of a second to come to the request.
    sources = [fleet.source(process, deadline=5.0, lease=6.0) for process in range(PROCESSES)]
    tokens = await asyncio.gather(*(sources[number % PROCESSES].obtain(fleet.key) for number in range(ASKERS)))
    assert endpoint.token_requests == 1
    assert {token.token.get_secret_value() for token in tokens} == {"tokentext-1"}
    assert [request.outcome for request in fleet.requests] == [RequestOutcome.OBTAINED]


async def test_without_a_token_broker_senders_help_themselves_with_one_request(fleet: Fleet, endpoint: TokenEndpoint):
    processes = [fleet.access(process) for process in range(PROCESSES)]
    tokens = await asyncio.gather(
        *(processes[number % PROCESSES].get(fleet.profile, MAILBOX) for number in range(ASKERS))
    )
    assert endpoint.token_requests == 1
    assert {token.version for token in tokens} == {1}


async def test_with_a_token_broker_it_makes_the_one_request(fleet: Fleet, endpoint: TokenEndpoint):
    endpoint.seconds_to_answer = 0.5
    asked: list[TokenKey] = []
    at_work: list[asyncio.Task[bool]] = []

    async def ask(key: TokenKey) -> None:
        asked.append(key)
        at_work.append(asyncio.create_task(broker.refresh(fleet.source(0), key)))

    processes = [fleet.access(process, ask=ask) for process in range(1, PROCESSES)]
    await asyncio.gather(*(process.get(fleet.profile, MAILBOX) for process in processes for _ in range(16)))
    assert all(await asyncio.gather(*at_work))
    assert endpoint.token_requests == 1
    assert 1 <= len(asked) <= len(processes)


async def test_a_message_broker_that_is_away_keeps_nobody_from_a_token(fleet: Fleet, endpoint: TokenEndpoint):
    async def ask(_key: TokenKey) -> None:
        raise MessageBrokerError("RabbitMQ cannot be reached.")

    await fleet.access(ask=ask).get(fleet.profile, MAILBOX)
    assert endpoint.token_requests == 1


async def test_64_simultaneous_refusals_make_one_more_request(fleet: Fleet, endpoint: TokenEndpoint):
    processes = [fleet.access(process) for process in range(PROCESSES)]
    for process in processes:
        await process.get(fleet.profile, MAILBOX)
    await fleet.age(1800)
    for process in processes:
        process._held.clear()

    async def refused_once(process: TokenAccess) -> str:
        token = await process.get(fleet.profile, MAILBOX)
        await everybody_has_one.wait()
        assert await process.refused(token, MAILBOX) is AfterRefusal.TRY_AGAIN
        return (await process.get(fleet.profile, MAILBOX)).token.get_secret_value()

    everybody_has_one = asyncio.Barrier(ASKERS)
    tokens = await asyncio.gather(*(refused_once(processes[number % PROCESSES]) for number in range(ASKERS)))
    assert set(tokens) == {"tokentext-2"}
    assert endpoint.token_requests == 2


async def test_of_many_refusals_of_a_version_one_counts(fleet: Fleet):
    token = await fleet.source().obtain(fleet.key)
    results = await asyncio.gather(
        *(fleet.source(number % PROCESSES).note_refusal(fleet.key, version=token.version) for number in range(16))
    )
    assert sorted(results) == [False] * 15 + [True]


async def test_a_refusal_of_a_new_token_pauses_and_asks_for_no_other(fleet: Fleet, endpoint: TokenEndpoint):
    access = fleet.access()
    token = await access.get(fleet.profile, MAILBOX)
    assert [await access.refused(token, MAILBOX) for _ in range(3)] == [AfterRefusal.PAUSE] * 3
    assert (await access.get(fleet.profile, MAILBOX)).version == token.version
    assert endpoint.token_requests == 1


async def test_a_refusal_of_a_version_that_is_gone_costs_nothing(fleet: Fleet, endpoint: TokenEndpoint):
    access = fleet.access()
    token = await access.get(fleet.profile, MAILBOX)
    await fleet.age(1800)
    await fleet.source(1).obtain(fleet.key, beyond=token.version)
    assert await access.refused(token, MAILBOX) is AfterRefusal.TRY_AGAIN
    assert (await access.get(fleet.profile, MAILBOX)).token.get_secret_value() == "tokentext-2"
    assert endpoint.token_requests == 2


async def test_who_looked_before_another_refreshed_gets_no_lease_after_it(fleet: Fleet, endpoint: TokenEndpoint):
    row, _ = await fleet.source(0).look(fleet.key)
    await fleet.source(1).obtain(fleet.key)
    async with fleet.pools[0].connection() as connection:
        assert await access_tokens.claim_refresh(connection, row, attempt=uuid4(), lease_seconds=1) is None
    assert endpoint.token_requests == 1


async def test_short_lived_tokens_under_load_are_never_missed_nor_asked_for_twice(
    fleet: Fleet, endpoint: TokenEndpoint
):
    endpoint.lifetime = 1.5
    lifetimes = 4
    clock = asyncio.get_running_loop().time
    end = clock() + lifetimes * 1.5
    processes = [fleet.access(process) for process in range(PROCESSES)]

    async def keep_fresh() -> None:
        while clock() < end:
            await broker.refresh_due(fleet.source(0))
            await asyncio.sleep(0.1)

    async def send(process: TokenAccess) -> None:
        while clock() < end:
            token = await process.get(fleet.profile, MAILBOX)
            assert token.read_at < token.expires_at
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_fresh())
        for number in range(16):
            tasks.create_task(send(processes[number % PROCESSES]))
    assert lifetimes <= endpoint.token_requests <= lifetimes * 1.5 + 1
    assert endpoint.most_at_once == 1


async def test_only_what_is_due_and_was_used_lately_is_refreshed_ahead(fleet: Fleet, endpoint: TokenEndpoint):
    await fleet.access().get(fleet.profile, MAILBOX)
    assert await broker.refresh_due(fleet.source()) == 0
    await fleet.age(3100)
    assert await broker.refresh_due(fleet.source()) == 1
    assert endpoint.token_requests == 2
    await fleet.age(3100)
    await fleet.execute(b"UPDATE access_tokens SET used_at = used_at - interval '2 hours'")
    assert await broker.refresh_due(fleet.source()) == 0
    assert endpoint.token_requests == 2


async def test_a_process_without_the_key_says_so_once_and_asks_nobody(
    fleet: Fleet, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
):
    fleet.sealer = Sealer(Keyring.generate(), "11111111-1111-4111-8111-111111111111")
    source = fleet.source()
    assert not await broker.refresh(source, fleet.key)
    assert not await broker.refresh(source, fleet.key)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    assert endpoint.token_requests == 0


async def test_a_due_token_is_used_and_the_token_broker_woken(fleet: Fleet, endpoint: TokenEndpoint):
    woken: list[TokenKey] = []

    async def ask(key: TokenKey) -> None:
        woken.append(key)

    await fleet.source().obtain(fleet.key)
    await fleet.age(3100)
    access = fleet.access(ask=ask)
    for _ in range(5):
        await access.get(fleet.profile, MAILBOX)
    assert woken == [fleet.key]
    assert endpoint.token_requests == 1


async def test_a_held_token_needs_no_ledger(fleet: Fleet):
    access = fleet.access(1)
    first = await access.get(fleet.profile, MAILBOX)
    await fleet.pools[1].close()
    assert await access.get(fleet.profile, MAILBOX) is first


async def test_no_secret_and_no_token_stands_in_clear_in_ledger_log_or_repr(
    fleet: Fleet, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    access = fleet.access()
    token = await access.get(fleet.profile, MAILBOX)
    row, step = await fleet.source().look(fleet.key)
    await fleet.age(3100)
    endpoint.misbehave(Reply(401, f'{{"error": "invalid_client", "error_description": "{CLIENT_SECRET}"}}'.encode()))
    await failures_of(fleet.source().obtain(fleet.key, want=Want.FRESH))
    ledger = await fleet.execute(b"SELECT t::text, p::text FROM access_tokens t, oauth_profiles p")
    texts = [repr(token), repr(access), repr(row), repr(step), repr(fleet.sealer), repr(ledger), caplog.text]
    texts += [str(record.__dict__) for record in caplog.records if record.name != "asyncio"]
    # bytea is shown in hexadecimal.
    for clear in ("tokentext", CLIENT_SECRET, b"tokentext".hex(), CLIENT_SECRET.encode().hex()):
        assert not [text for text in texts if clear in text]


async def test_two_mailboxes_on_one_client_id_never_share_a_token(fleet: Fleet, endpoint: TokenEndpoint):
    key = generate_private_key(65537, 2048)
    delegated = await fleet.add_jwt_bearer(key)
    endpoint.misbehave(*(json_reply(200, {"access_token": f"for-{n}", "expires_in": 3600}) for n in (1, 2)))
    access = fleet.access()
    tokens = [await access.get(delegated, mailbox) for mailbox in ("Ada@campus.example", "alan@campus.example")]
    assert [token.token.get_secret_value() for token in tokens] == ["for-1", "for-2"]
    # No provider tells mailboxes apart by their case.
    assert (await fleet.access(1).get(delegated, "ADA@campus.example")).token == tokens[0].token
    audience = endpoint.custom_url.replace("{tenantId}", TENANT)
    claims = [
        jwt.decode(request.form["assertion"], key.public_key(), ["RS256"], audience=audience)
        for request in endpoint.requests
    ]
    assert [one["sub"] for one in claims] == ["ada@campus.example", "alan@campus.example"]
