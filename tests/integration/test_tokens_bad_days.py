"""What the fleet does when the endpoint is away, refuses us, or who asked it dies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.servers.token_endpoint import CLIENT_SECRET, Hang, Reply, TokenEndpoint, token_endpoint
from tests.servers.token_fleet import DEADLINE, PROCESSES, Fleet, failures_of, token_fleet
from tocsin_schema.errors import SealError
from tocsin_schema.ledger import access_tokens
from tocsin_schema.ledger.access_tokens import TokenKey
from tocsin_schema.sealing import Keyring, Sealer
from tocsin_workers.tokens import broker
from tocsin_workers.tokens.attempting import RequestOutcome
from tocsin_workers.tokens.refreshing import Want

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

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


async def test_an_outage_goes_unnoticed_while_the_token_lives(fleet: Fleet, endpoint: TokenEndpoint):
    access = fleet.access(memory_seconds=0)
    first = await access.get(fleet.profile, MAILBOX)
    await fleet.age(3100)
    endpoint.misbehave(Reply(500, b"oops"))
    for _ in range(5):
        await broker.refresh(fleet.source(1), fleet.key)
        assert (await access.get(fleet.profile, MAILBOX)).token == first.token
    assert endpoint.token_requests == 2
    endpoint.behave()
    await fleet.forget_wait()
    assert await broker.refresh(fleet.source(1), fleet.key)
    assert (await access.get(fleet.profile, MAILBOX)).token.get_secret_value() == "tokentext-3"


@pytest.mark.parametrize(
    "behaviour",
    [
        Reply(500, b"oops"),
        Reply(429, b"", {"Retry-After": "17"}),
        Reply(200, b'{"access_token": "half-a-tok'),
        Hang(),
        Reply(200, b'{"access_token": "slow", "expires_in": 60}', drip_seconds=0.1),
    ],
    ids=["500", "429", "broken JSON", "hangs", "drips"],
)
async def test_a_bad_day_of_the_endpoint_ends_every_wait_and_makes_no_storm(
    fleet: Fleet, endpoint: TokenEndpoint, behaviour: Reply | Hang
):
    endpoint.misbehave(behaviour)
    processes = [fleet.access(process) for process in range(PROCESSES)]
    clock = asyncio.get_running_loop().time
    began = clock()
    failures = await failures_of(
        *(processes[number % PROCESSES].get(fleet.profile, MAILBOX) for number in range(ASKERS))
    )
    assert clock() - began < DEADLINE + 2
    assert not any(failure.permanent for failure in failures)
    assert all(failure.retry_after is not None and failure.retry_after > 0.5 for failure in failures)
    await failures_of(*(process.get(fleet.profile, MAILBOX) for process in processes))
    assert endpoint.token_requests == 1


async def test_the_endpoints_wish_is_obeyed_by_the_whole_fleet(fleet: Fleet, endpoint: TokenEndpoint):
    endpoint.misbehave(Reply(429, b"", {"Retry-After": "170"}))
    await failures_of(fleet.source(0).obtain(fleet.key))
    (failure,) = await failures_of(fleet.source(1).obtain(fleet.key))
    assert 160 < (failure.retry_after or 0) <= 170


async def test_waits_grow_while_the_endpoint_is_away(fleet: Fleet, endpoint: TokenEndpoint):
    endpoint.misbehave(Reply(500, b"oops"))
    waits: list[float] = []
    for _ in range(4):
        (failure,) = await failures_of(fleet.source().obtain(fleet.key))
        waits.append(failure.retry_after or 0)
        shift = b"UPDATE access_tokens SET failed_at = failed_at - w, retry_at = retry_at - w FROM"
        await fleet.execute(shift + b" (SELECT make_interval(secs => %s::float8) AS w) AS waited", [waits[-1]])
    assert [round(wait) for wait in waits] == [2, 4, 8, 16]
    endpoint.behave()
    await fleet.source().obtain(fleet.key)


async def test_a_wrong_secret_is_told_to_everybody_and_asked_about_once(fleet: Fleet, endpoint: TokenEndpoint):
    await fleet.replace_secret("wr0ng+one")
    failures = await failures_of(*(fleet.source(number % PROCESSES).obtain(fleet.key) for number in range(16)))
    assert endpoint.token_requests == 1
    for failure in failures:
        assert failure.permanent
        assert "tocsin oauth replace-secret campus" in (failure.fix or "")
        assert "AADSTS7000215" in failure.problem
    assert [request.outcome for request in fleet.requests] == [RequestOutcome.REFUSED]


async def test_a_corrected_secret_works_at_once(fleet: Fleet, endpoint: TokenEndpoint):
    await fleet.replace_secret("wr0ng+one")
    await failures_of(fleet.source().obtain(fleet.key))
    await fleet.replace_secret(CLIENT_SECRET)
    assert (await fleet.source().obtain(fleet.key)).token.get_secret_value() == "tokentext-2"
    assert endpoint.token_requests == 2


async def test_a_token_of_the_old_secret_that_comes_late_is_dropped(fleet: Fleet, endpoint: TokenEndpoint):
    endpoint.seconds_to_answer = 0.3
    asking = asyncio.create_task(fleet.source().obtain(fleet.key))
    await endpoint.asked.wait()
    await fleet.replace_secret(CLIENT_SECRET)
    assert (await asking).token.get_secret_value() == "tokentext-2"


async def test_when_the_holder_of_the_lease_dies_the_next_asks_after_it_lapses(fleet: Fleet, endpoint: TokenEndpoint):
    row, _ = await fleet.source().look(fleet.key)
    async with fleet.pools[0].connection() as connection:
        assert await access_tokens.claim_refresh(connection, row, attempt=uuid4(), lease_seconds=0.7)
    clock = asyncio.get_running_loop().time
    began = clock()
    processes = [fleet.access(process) for process in range(PROCESSES)]
    await asyncio.gather(*(process.get(fleet.profile, MAILBOX) for process in processes))
    assert 0.5 < clock() - began < 3
    assert endpoint.token_requests == 1


async def test_a_token_that_is_spent_on_arrival_makes_no_storm(fleet: Fleet, endpoint: TokenEndpoint):
    endpoint.seconds_to_answer = 0.3
    endpoint.lifetime = 0.2
    (failure,) = await failures_of(fleet.source().obtain(fleet.key, want=Want.FRESH))
    assert "lives only 0.2 s" in failure.problem
    await failures_of(fleet.source().obtain(fleet.key))
    assert endpoint.token_requests == 1


async def test_a_wrong_master_key_is_told_and_nothing_is_asked(fleet: Fleet, endpoint: TokenEndpoint):
    right = fleet.sealer
    fleet.sealer = Sealer(Keyring.generate(), "11111111-1111-4111-8111-111111111111")
    with pytest.raises(SealError, match="not in the master key file"):
        await fleet.source().obtain(fleet.key)
    assert not await broker.refresh(fleet.source(), fleet.key)
    assert endpoint.token_requests == 0
    fleet.sealer = right
    row, _ = await fleet.source().look(fleet.key)
    assert row.refresh_leased_until is None
    await fleet.source().obtain(fleet.key)


async def test_a_profile_that_is_gone_is_a_permanent_error(fleet: Fleet):
    (failure,) = await failures_of(fleet.source().obtain(TokenKey(uuid4(), "")))
    assert failure.permanent
    assert "gone" in failure.problem


@pytest.mark.parametrize("key", ["a key that is gone", "another row"])
async def test_an_access_token_that_does_not_open_is_replaced_once_by_another(
    fleet: Fleet, endpoint: TokenEndpoint, key: str
):
    await fleet.source().obtain(fleet.key)
    sealer = fleet.sealer if key == "another row" else Sealer(Keyring.generate(), "x")
    sealed = sealer.seal("moved", purpose=access_tokens.TOKEN_PURPOSE, row_id="elsewhere")
    await fleet.execute(b"UPDATE access_tokens SET sealed_token = %s", [sealed])
    processes = [fleet.access(process) for process in range(PROCESSES)]
    tokens = await asyncio.gather(*(process.get(fleet.profile, MAILBOX) for process in processes))
    assert {token.token.get_secret_value() for token in tokens} == {"tokentext-2"}
    assert endpoint.token_requests == 2
