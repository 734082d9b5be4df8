"""The grants against a real HTTPS endpoint, which does what token endpoints do on bad days."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tests.builders import an_oauth_profile
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.token_endpoint import (
    CLIENT_SECRET,
    TENANT,
    Close,
    Hang,
    Reply,
    TokenEndpoint,
    json_reply,
    token_endpoint,
)
from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.grants import grant_of
from tocsin_workers.tokens.grants.seam import GrantSecrets

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.seam import ObtainedToken

THEN = datetime(2026, 11, 21, tzinfo=UTC)
SECRET = SecretStr(CLIENT_SECRET)
DEADLINE = 0.8


@pytest.fixture
async def endpoint() -> AsyncGenerator[TokenEndpoint]:
    async with token_endpoint() as one:
        yield one


@pytest.fixture(params=["microsoft365", "custom"])
def profile(request: pytest.FixtureRequest, endpoint: TokenEndpoint) -> OAuthProfile:
    return profile_of(request.param, endpoint)


def profile_of(provider: str, endpoint: TokenEndpoint) -> OAuthProfile:
    return an_oauth_profile(
        provider=provider,
        token_endpoint=endpoint.microsoft_url if provider == "microsoft365" else endpoint.custom_url,
        ca_pem=endpoint.ca_pem,
    )


async def ask(
    profile: OAuthProfile, *, secret: SecretStr | None = SECRET, deadline_seconds: float = 5.0
) -> ObtainedToken:
    return await grant_of(profile).request(
        profile, GrantSecrets(client_secret=secret), "", deadline_seconds=deadline_seconds
    )


async def refusal(
    profile: OAuthProfile, *, secret: SecretStr | None = SECRET, deadline_seconds: float = 5.0
) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await ask(profile, secret=secret, deadline_seconds=deadline_seconds)
    return caught.value


async def test_a_token_comes_for_the_tenant_filled_in(profile: OAuthProfile, endpoint: TokenEndpoint):
    obtained = await ask(profile)
    assert obtained.token.get_secret_value() == "tokentext-1"
    assert obtained.lifetime_seconds == 3600
    (request,) = endpoint.requests
    assert request.path.startswith(f"/{TENANT}/")
    assert request.form["scope"] == "https://outlook.office365.com/.default"
    assert request.form["client_secret"] == CLIENT_SECRET


async def test_every_request_gives_a_new_token(profile: OAuthProfile, endpoint: TokenEndpoint):
    first, second = await ask(profile), await ask(profile)
    assert first.token != second.token
    assert endpoint.token_requests == 2


async def test_a_custom_profile_without_scope_sends_none(endpoint: TokenEndpoint):
    await ask(replace(profile_of("custom", endpoint), scope=None))
    assert "scope" not in endpoint.requests[0].form


async def test_a_wrong_secret_is_permanent_and_names_the_command(profile: OAuthProfile):
    told = await refusal(profile, secret=SecretStr("wr0ng+one"))
    assert told.permanent
    assert told.code == "AADSTS7000215"
    assert "AADSTS7000215" in told.problem
    assert "tocsin oauth replace-secret campus" in str(told)
    assert not any(part in str(told) for part in ("wr0ng", "0f-aa", "1e-bb"))


async def test_a_wrong_tenant_is_permanent_and_names_the_command(profile: OAuthProfile):
    told = await refusal(replace(profile, tenant_id="elsewhere.example"))
    assert told.permanent
    assert "AADSTS90002" in told.problem
    assert "tocsin oauth set campus --tenant-id" in str(told)


@pytest.mark.parametrize("lacking", ["client_id", "secret"])
async def test_what_the_profile_lacks_is_told_before_anything_is_asked(
    profile: OAuthProfile, endpoint: TokenEndpoint, lacking: str
):
    if lacking == "secret":
        told = await refusal(profile, secret=None)
    else:
        told = await refusal(replace(profile, client_id=None))
    assert told.permanent
    assert "tocsin oauth" in str(told)
    assert endpoint.token_requests == endpoint.discoveries == 0


async def test_microsofts_endpoint_must_be_the_v2_one(endpoint: TokenEndpoint):
    told = await refusal(replace(profile_of("microsoft365", endpoint), token_endpoint=endpoint.custom_url))
    assert told.permanent
    assert "/oauth2/v2.0/token" in told.problem


async def test_too_many_requests_gives_the_endpoints_wish(profile: OAuthProfile, endpoint: TokenEndpoint):
    endpoint.misbehave(Reply(429, b"slow down", {"Retry-After": "17"}))
    told = await refusal(profile)
    assert not told.permanent
    assert told.retry_after == 17


PASSING: dict[str, Reply | Close] = {
    "500": Reply(500, b"oops"),
    "503 with JSON": json_reply(503, {"error": "server_error"}),
    "JSON cut short": Reply(200, b'{"access_token": "half-a-tok'),
    "a list": Reply(200, b'["access_token"]'),
    "nothing": Reply(200, b""),
    "not UTF-8": Reply(200, b"\xff\xfe"),
    "deeply nested": Reply(200, b"[" * 30_000),
    "too long": Reply(200, b"x" * 100_000),
    "no token": json_reply(200, {"token_type": "Bearer"}),
    "a control character": json_reply(200, {"access_token": "tok\x01en", "expires_in": 60}),
    "a life that is no number": json_reply(200, {"access_token": "token", "expires_in": "soon"}),
    "a life that is a list": json_reply(200, {"access_token": "token", "expires_in": []}),
    "a token that is an object": json_reply(200, {"access_token": {"a": "b"}, "expires_in": 60}),
    "temporarily unavailable": json_reply(400, {"error": "temporarily_unavailable"}),
    "packed": Reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
    "closed": Close(),
}
LASTING: dict[str, Reply] = {
    "a redirect": Reply(302, b"", {"Location": "https://elsewhere.example/"}),
    "not found": Reply(404, b"<html>"),
    "an error of another shape": json_reply(400, {"error": {"code": 7}}),
    "an error without a name": json_reply(400, {}),
    "a refusal with 200": json_reply(200, {"error": "invalid_client", "error_description": 'a "quoted"\nline'}),
}


@pytest.mark.parametrize("behaviour", PASSING.values(), ids=PASSING)
async def test_what_passes_by_itself_is_not_permanent(
    profile: OAuthProfile, endpoint: TokenEndpoint, behaviour: Reply | Close
):
    endpoint.misbehave(behaviour)
    told = await refusal(profile)
    assert not told.permanent
    assert endpoint.token_requests == 1


@pytest.mark.parametrize("behaviour", LASTING.values(), ids=LASTING)
async def test_what_a_person_must_mend_is_permanent(profile: OAuthProfile, endpoint: TokenEndpoint, behaviour: Reply):
    endpoint.misbehave(behaviour)
    told = await refusal(profile)
    assert told.permanent
    assert told.fix is not None
    assert endpoint.token_requests == 1


@pytest.mark.parametrize(
    "behaviour",
    [Hang(), Reply(200, b'{"access_token": "slow", "expires_in": 60}', drip_seconds=0.1)],
    ids=["hangs", "drips"],
)
async def test_the_deadline_is_a_total_and_leaves_no_thread_behind(
    profile: OAuthProfile, endpoint: TokenEndpoint, behaviour: Hang | Reply
):
    endpoint.misbehave(behaviour)
    clock = asyncio.get_running_loop().time
    began = clock()
    told = await refusal(profile, deadline_seconds=DEADLINE)
    assert clock() - began < DEADLINE + 0.4
    assert not told.permanent
    assert f"did not answer within {DEADLINE} s" in told.problem
    for thread in threading.enumerate():
        if thread.name.startswith("tocsin-oauth"):
            await asyncio.to_thread(thread.join, PATIENCE_SECONDS)
            assert not thread.is_alive()


async def test_a_hanging_endpoint_is_left_when_the_asker_is_cancelled(profile: OAuthProfile, endpoint: TokenEndpoint):
    endpoint.misbehave(Hang())
    asking = asyncio.create_task(ask(profile))
    await endpoint.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(PATIENCE_SECONDS):
        await endpoint.abandoned.wait()


async def test_nobody_there_is_told_with_its_reason(profile: OAuthProfile, endpoint: TokenEndpoint):
    address = profile.token_endpoint.replace(str(endpoint.port), "1")
    told = await refusal(replace(profile, token_endpoint=address))
    assert not told.permanent
    assert "localhost:1 cannot be reached" in told.problem


async def test_a_certificate_of_an_unknown_authority_is_refused(profile: OAuthProfile, endpoint: TokenEndpoint):
    told = await refusal(replace(profile, ca_pem=None))
    assert "certificate verify failed" in told.problem
    assert "--ca-file" in str(told)
    assert endpoint.token_requests == 0


async def test_a_certificate_of_another_name_is_refused(profile: OAuthProfile, endpoint: TokenEndpoint):
    told = await refusal(replace(profile, token_endpoint=profile.token_endpoint.replace("localhost", "127.0.0.1")))
    assert "certificate verify failed" in told.problem
    assert endpoint.token_requests == 0


async def test_an_unreadable_ca_certificate_names_the_option(profile: OAuthProfile):
    told = await refusal(replace(profile, ca_pem="no certificate"))
    assert told.permanent
    assert "--ca-file" in str(told)


async def test_the_environments_proxy_and_certificates_are_not_heeded(
    profile: OAuthProfile, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    assert (await ask(profile)).token.get_secret_value() == "tokentext-1"


async def test_a_discovery_that_talks_nonsense_or_leads_off_https_gets_no_secret(endpoint: TokenEndpoint):
    profile = profile_of("microsoft365", endpoint)
    endpoint.discover_as(json_reply(200, {"token_endpoint": 7}))
    assert not (await refusal(profile)).permanent
    endpoint.discover_as(json_reply(200, {"authorization_endpoint": "x", "token_endpoint": "http://localhost/x/token"}))
    assert not (await refusal(profile)).permanent
    assert endpoint.token_requests == 0


async def test_a_discovery_that_names_another_host_gets_no_secret(endpoint: TokenEndpoint):
    async with token_endpoint() as foreign:
        profile = replace(profile_of("microsoft365", endpoint), ca_pem=endpoint.ca_pem + foreign.ca_pem)
        there = f"https://localhost:{foreign.port}/{TENANT}/oauth2/v2.0"
        named = {"issuer": there, "authorization_endpoint": f"{there}/authorize", "token_endpoint": f"{there}/token"}
        endpoint.discover_as(json_reply(200, named))
        told = await refusal(profile)
        assert "not the profile's own host" in told.problem
        assert foreign.requests == []


async def test_no_log_line_shows_a_secret_or_a_token(
    profile: OAuthProfile, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    obtained = await ask(profile)
    endpoint.misbehave(Reply(200, b'{"access_token": "tokentext-broken'))
    told = [await refusal(profile)]
    endpoint.misbehave(json_reply(401, {"error": "invalid_client", "error_description": f"no: {CLIENT_SECRET}"}))
    told.append(await refusal(profile))
    assert caplog.records
    shown = caplog.text + repr(obtained) + "".join(f"{error!r} {error} {error.__cause__!r}" for error in told)
    shown += "".join(str(record.__dict__) for record in caplog.records if record.name != "asyncio")
    assert "tokentext" not in shown
    assert CLIENT_SECRET not in shown
    assert "s3cret" not in shown
