"""Google's and custom grants against a real HTTPS endpoint that answers as told: what they send and what they take."""

from __future__ import annotations

import asyncio
import logging
import threading
from base64 import b64decode
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from pydantic import SecretStr

from tests.builders import an_oauth_profile
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.token_endpoint import CLIENT_SECRET, Behaviour, Hang, Reply, Request, TokenEndpoint, json_reply
from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.grants import grant_of, subject_of
from tocsin_workers.tokens.grants.seam import GrantSecrets
from tocsin_workers.tokens.refusal_causes import Cause

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.seam import ObtainedToken

MAILBOX = "Alerts@Campus.example"
SUBJECT = "alerts@campus.example"
SERVICE_ACCOUNT = "tocsin@campus.iam.gserviceaccount.com"
GOOGLE_SCOPE = "https://mail.google.com/"
REFRESH_TOKEN = "1//refresh~one/with+signs"
SECRETS = GrantSecrets(client_secret=SecretStr(CLIENT_SECRET), refresh_token=SecretStr(REFRESH_TOKEN))
TOKEN = json_reply(200, {"access_token": "tokentext-1", "token_type": "Bearer", "expires_in": 3599})

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Key, encryption: KeySerializationEncryption | None = None) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def with_key(key: Key, client_secret: str | None = None) -> GrantSecrets:
    return GrantSecrets(None if client_secret is None else SecretStr(client_secret), private_key=SecretStr(pem(key)))


class EchoingEndpoint(TokenEndpoint):
    """Answers as told, or, where `echoes`, refuses and says back what the client proved itself with."""

    echoes = False

    def _next_behaviour(self, tenant: str, form: dict[str, str]) -> Behaviour:
        if not self.echoes:
            return super()._next_behaviour(tenant, form)
        described = " ".join(proofs_in(self.requests[-1]))
        return json_reply(400, {"error": "invalid_grant", "error_description": described})


def proofs_in(request: Request) -> list[str]:
    """Give what of a request must never show."""
    header = request.headers.get("authorization", "").removeprefix("Basic ")
    fields = [request.form.get(name, "") for name in ("assertion", "refresh_token", "client_secret")]
    return [text for text in (*fields, header) if text]


@pytest.fixture
async def endpoint() -> AsyncGenerator[EchoingEndpoint]:
    one = EchoingEndpoint()
    one.misbehave(TOKEN)
    async with await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=one.context) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one
        await one.stop()


def google(endpoint: TokenEndpoint, grant_type: str) -> OAuthProfile:
    return an_oauth_profile(
        provider="google",
        grant_type=grant_type,
        token_endpoint=f"https://localhost:{endpoint.port}/token",
        ca_pem=endpoint.ca_pem,
        scope=GOOGLE_SCOPE,
        tenant_id=None,
        client_id=SERVICE_ACCOUNT if grant_type == "jwt_bearer" else "1-tocsin.apps.googleusercontent.com",
        key_id="0123abcd",
    )


def custom(endpoint: TokenEndpoint, grant_type: str) -> OAuthProfile:
    return an_oauth_profile(
        provider="custom",
        grant_type=grant_type,
        token_endpoint=endpoint.custom_url,
        ca_pem=endpoint.ca_pem,
        scope="mail.send",
        client_id="tocsin",
        key_id="key-7",
    )


@dataclass(frozen=True)
class Case:
    """A profile with what it proves itself with."""

    profile: OAuthProfile
    secrets: GrantSecrets


@pytest.fixture(params=["google jwt_bearer", "google refresh_token", "custom jwt_bearer", "custom device_code"])
def case(request: pytest.FixtureRequest, endpoint: TokenEndpoint) -> Case:
    provider, grant_type = request.param.split()
    profile = (google if provider == "google" else custom)(endpoint, grant_type)
    return Case(profile, with_key(rsa_key()) if grant_type == "jwt_bearer" else SECRETS)


async def ask(profile: OAuthProfile, secrets: GrantSecrets, deadline_seconds: float = 5.0) -> ObtainedToken:
    subject = subject_of(profile, MAILBOX)
    return await grant_of(profile).request(profile, secrets, subject, deadline_seconds=deadline_seconds)


async def refusal(profile: OAuthProfile, secrets: GrantSecrets, deadline_seconds: float = 5.0) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await ask(profile, secrets, deadline_seconds)
    return caught.value


class TestTheServiceAccountOfGoogle:
    async def test_signs_that_it_asks_in_the_mailboxs_name(self, endpoint: TokenEndpoint):
        obtained = await ask(google(endpoint, "jwt_bearer"), with_key(rsa_key()))
        assert obtained.token.get_secret_value() == "tokentext-1"
        assert obtained.lifetime_seconds == 3599
        (request,) = endpoint.requests
        assert request.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        header = jwt.get_unverified_header(request.form["assertion"])
        assert (header["alg"], header["kid"]) == ("RS256", "0123abcd")
        claims = jwt.decode(
            request.form["assertion"],
            rsa_key().public_key(),
            algorithms=["RS256"],
            audience="https://oauth2.googleapis.com/token",
        )
        assert (claims["iss"], claims["sub"], claims["scope"]) == (SERVICE_ACCOUNT, SUBJECT, GOOGLE_SCOPE)
        assert 0 < claims["exp"] - claims["iat"] <= 3600

    async def test_needs_an_rsa_key(self, endpoint: TokenEndpoint):
        told = await refusal(google(endpoint, "jwt_bearer"), with_key(ec_key()))
        assert told.permanent
        assert "not RSA" in told.problem
        assert endpoint.token_requests == 0


async def test_googles_refresh_token_goes_with_id_secret_and_scope(endpoint: TokenEndpoint):
    obtained = await ask(google(endpoint, "refresh_token"), SECRETS)
    assert obtained.renewal is None  # Google's live on
    (request,) = endpoint.requests
    assert request.form == {
        "grant_type": "refresh_token",
        "client_id": "1-tocsin.apps.googleusercontent.com",
        "client_secret": CLIENT_SECRET,
        "refresh_token": REFRESH_TOKEN,
        "scope": GOOGLE_SCOPE,
    }


@pytest.mark.parametrize("grant_type", ["jwt_bearer", "refresh_token"])
async def test_google_auth_neither_asks_again_nor_sleeps_by_itself(endpoint: TokenEndpoint, grant_type: str):
    endpoint.misbehave(json_reply(400, {"error": "server_error"}))
    secrets = with_key(rsa_key()) if grant_type == "jwt_bearer" else SECRETS
    told = await refusal(google(endpoint, grant_type), secrets)
    assert (told.permanent, told.cause) == (False, Cause.UNAVAILABLE)
    assert endpoint.token_requests == 1


def test_client_credentials_at_google_name_the_two_grants_that_it_has():
    with pytest.raises(TokenError, match="Google has no client credentials grant for mail") as caught:
        grant_of(an_oauth_profile(provider="google"))
    assert caught.value.permanent
    assert all(name in str(caught.value.fix) for name in ("jwt_bearer", "service account", "refresh_token"))


class TestACustomClient:
    async def test_puts_its_secret_into_the_body(self, endpoint: TokenEndpoint):
        await ask(custom(endpoint, "client_credentials"), SECRETS)
        (request,) = endpoint.requests
        assert "authorization" not in request.headers
        assert (request.form["client_id"], request.form["client_secret"]) == ("tocsin", CLIENT_SECRET)
        assert request.form["scope"] == "mail.send"

    @pytest.mark.parametrize("secret", [CLIENT_SECRET, "a:b c%20+ü✓"])
    async def test_or_into_a_basic_header_encoded_as_a_form_is(self, endpoint: TokenEndpoint, secret: str):
        profile = replace(
            custom(endpoint, "client_credentials"), client_auth="client_secret_basic", client_id="cl:ient"
        )
        await ask(profile, GrantSecrets(SecretStr(secret)))
        (request,) = endpoint.requests
        scheme, _, credentials = request.headers["authorization"].partition(" ")
        sent_id, colon, sent_secret = b64decode(credentials).decode("ascii").partition(":")
        assert (scheme, colon) == ("Basic", ":")
        assert (unquote_plus(sent_id), unquote_plus(sent_secret)) == ("cl:ient", secret)
        assert "client_secret" not in request.form

    @pytest.mark.parametrize("grant_type", ["refresh_token", "device_code"])
    async def test_without_a_secret_is_a_public_one_and_its_next_refresh_token_is_taken(
        self, endpoint: TokenEndpoint, grant_type: str
    ):
        rotated = {"access_token": "tokentext-2", "refresh_token": "the-next-one", "refresh_expires_in": 1800}
        endpoint.misbehave(json_reply(200, {**rotated, "token_type": "bearer", "expires_in": 300}))
        obtained = await ask(custom(endpoint, grant_type), GrantSecrets(refresh_token=SecretStr(REFRESH_TOKEN)))
        assert obtained.renewal is not None
        assert obtained.renewal.refresh_token.get_secret_value() == "the-next-one"
        assert obtained.renewal.lifetime_seconds == 1800
        (request,) = endpoint.requests
        assert request.form == {
            "grant_type": "refresh_token",
            "client_id": "tocsin",
            "refresh_token": REFRESH_TOKEN,
            "scope": "mail.send",
        }

    async def test_whose_refresh_token_lives_on_gets_none(self, endpoint: TokenEndpoint):
        assert (await ask(custom(endpoint, "refresh_token"), SECRETS)).renewal is None

    @pytest.mark.parametrize(("key", "algorithm"), [(rsa_key, "RS256"), (ec_key, "ES256")], ids=["RSA", "P-256"])
    async def test_signs_assertions_by_the_kind_of_its_key(
        self, endpoint: TokenEndpoint, key: Callable[[], Key], algorithm: str
    ):
        private_key = key()
        for _ in range(2):
            await ask(custom(endpoint, "jwt_bearer"), with_key(private_key))
        address = endpoint.custom_url.replace("{tenantId}", str(custom(endpoint, "jwt_bearer").tenant_id))
        told = []
        for request in endpoint.requests:
            assert request.form["client_id"] == "tocsin"
            assert "client_secret" not in request.form
            assertion = request.form["assertion"]
            assert jwt.get_unverified_header(assertion) == {"alg": algorithm, "typ": "JWT", "kid": "key-7"}
            told.append(jwt.decode(assertion, private_key.public_key(), algorithms=[algorithm], audience=address))
        assert [(claims["iss"], claims["sub"]) for claims in told] == [("tocsin", SUBJECT)] * 2
        assert all(0 < claims["exp"] - claims["iat"] <= 300 for claims in told)
        assert told[0]["jti"] != told[1]["jti"]

    async def test_with_a_secret_proves_itself_beside_its_assertion(self, endpoint: TokenEndpoint):
        profile = replace(custom(endpoint, "jwt_bearer"), client_auth="client_secret_basic", key_id=None)
        await ask(profile, with_key(ec_key(), CLIENT_SECRET))
        (request,) = endpoint.requests
        assert request.headers["authorization"].startswith("Basic ")
        assert "kid" not in jwt.get_unverified_header(request.form["assertion"])


UNUSABLE_KEYS: dict[str, Callable[[], str | None]] = {
    "none": lambda: None,
    "not a key": lambda: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "encrypted": lambda: pem(ec_key(), BestAvailableEncryption(b"passphrase")),
    "too short": lambda: pem(rsa_key(1024)),
    "another curve": lambda: pem(ec.generate_private_key(ec.SECP384R1())),
}


@pytest.mark.parametrize("provider", [google, custom], ids=["google", "custom"])
@pytest.mark.parametrize("make", UNUSABLE_KEYS.values(), ids=UNUSABLE_KEYS)
async def test_a_key_that_cannot_sign_is_told_before_anything_is_asked(
    endpoint: TokenEndpoint, provider: Callable[[TokenEndpoint, str], OAuthProfile], make: Callable[[], str | None]
):
    text = make()
    secrets = GrantSecrets(private_key=None if text is None else SecretStr(text))
    told = await refusal(provider(endpoint, "jwt_bearer"), secrets)
    assert told.permanent
    option = "--service-account-file" if provider is google else "--private-key-file"
    assert f"`tocsin oauth set campus {option} F`" in str(told.fix)
    assert endpoint.token_requests == 0


async def test_what_the_profile_lacks_is_told_before_anything_is_asked(case: Case, endpoint: TokenEndpoint):
    for lacking in (
        await refusal(replace(case.profile, client_id=None), case.secrets),
        await refusal(case.profile, GrantSecrets()),
    ):
        assert lacking.permanent
        assert "tocsin oauth" in str(lacking.fix)
    assert endpoint.token_requests == 0


async def test_googles_grants_want_a_scope(endpoint: TokenEndpoint):
    told = await refusal(replace(google(endpoint, "refresh_token"), scope=None), SECRETS)
    assert "--scope https://mail.google.com/" in str(told.fix)


async def test_a_mailbox_has_tokens_of_its_own(case: Case):
    assert grant_of(case.profile).per_mailbox
    assert subject_of(case.profile, MAILBOX) == SUBJECT


async def test_a_revoked_sign_in_names_the_command_to_sign_in_again(endpoint: TokenEndpoint):
    endpoint.misbehave(json_reply(400, {"error": "invalid_grant", "error_description": "Bad Request"}))
    for profile in (google(endpoint, "refresh_token"), custom(endpoint, "device_code")):
        told = await refusal(profile, SECRETS)
        assert (told.permanent, told.code, told.cause) == (True, "invalid_grant", Cause.SIGN_IN_REVOKED)
        command = "acquire campus" if profile.grant_type == "device_code" else "set campus --refresh-token-file F"
        assert f"`tocsin oauth {command} --user {SUBJECT}`" in str(told.fix)


async def test_no_log_line_and_no_repr_shows_a_secret(
    case: Case, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    obtained = await ask(case.profile, case.secrets)
    assert caplog.records
    shown = caplog.text + repr(obtained) + "".join(str(record.__dict__) for record in caplog.records)
    assert not any(part in shown for part in ["tokentext", *proofs_in(endpoint.requests[0])])


async def test_what_the_endpoint_echoes_is_masked(case: Case, endpoint: EchoingEndpoint):
    endpoint.echoes = True
    told = await refusal(replace(case.profile, client_auth="client_secret_basic"), case.secrets)
    proofs = proofs_in(endpoint.requests[0])
    assert "invalid_grant: **********" in told.problem
    assert not any(proof[:20] in str(told) for proof in proofs)


PASSING = {
    "500": Reply(500, b"oops"),
    "JSON cut short": Reply(200, b'{"access_token": "half-a-tok'),
    "no token": json_reply(200, {"token_type": "Bearer"}),
    "a life that is a list": json_reply(200, {"access_token": "token", "expires_in": []}),
    "a life that is no number": json_reply(200, {"access_token": "token", "expires_in": "soon"}),
}


@pytest.mark.parametrize("behaviour", PASSING.values(), ids=PASSING)
async def test_what_passes_by_itself_is_not_permanent(case: Case, endpoint: TokenEndpoint, behaviour: Reply):
    endpoint.misbehave(behaviour)
    assert not (await refusal(case.profile, case.secrets)).permanent
    assert endpoint.token_requests == 1


async def test_too_many_requests_gives_the_endpoints_wish(case: Case, endpoint: TokenEndpoint):
    endpoint.misbehave(Reply(429, b"slow down", {"Retry-After": "17"}))
    told = await refusal(case.profile, case.secrets)
    assert (told.permanent, told.retry_after) == (False, 17)
    assert endpoint.token_requests == 1


async def test_the_deadline_is_a_total_and_leaves_no_thread_behind(case: Case, endpoint: TokenEndpoint):
    endpoint.misbehave(Hang())
    told = await refusal(case.profile, case.secrets, 0.5)
    assert not told.permanent
    assert "did not answer within 0.5 s" in told.problem
    for thread in threading.enumerate():
        if thread.name.startswith("tocsin-oauth"):
            await asyncio.to_thread(thread.join, PATIENCE_SECONDS)
            assert not thread.is_alive()
