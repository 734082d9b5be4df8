"""Microsoft's grants against real HTTP endpoints: certificates, workload and managed identities, sign-ins."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import jwt
import pytest
from pydantic import SecretStr

from tests.builders import an_oauth_profile
from tests.servers.identity_endpoint import (
    IDENTITY_CLIENT_ID,
    IDENTITY_HEADER,
    RESOURCE,
    IdentityEndpoint,
    identity_endpoint,
)
from tests.servers.oauth_server_keys import self_signed_certificate
from tests.servers.token_endpoint import CLIENT_SECRET, Hang, Reply, TokenEndpoint, json_reply, token_endpoint
from tocsin_schema.errors import TokenError
from tocsin_schema.ledger.oauth_providers import DEFAULT_TOKEN_FILE
from tocsin_workers.tokens import device_sign_in
from tocsin_workers.tokens.device_sign_in import DeviceCode, SignedIn, Undecided
from tocsin_workers.tokens.grants import grant_of
from tocsin_workers.tokens.grants.microsoft_workload_identity import MAX_TOKEN_FILE_BYTES
from tocsin_workers.tokens.grants.seam import GrantSecrets

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.seam import ObtainedToken

MAILBOX = "alerts@campus.example"
SMTP_SEND = "https://outlook.office.com/SMTP.Send"
NOTHING = GrantSecrets()
DEADLINE = 0.8


@pytest.fixture
async def endpoint() -> AsyncGenerator[TokenEndpoint]:
    async with token_endpoint() as one:
        yield one


@pytest.fixture
async def identity() -> AsyncGenerator[IdentityEndpoint]:
    async with identity_endpoint() as one:
        yield one


@pytest.fixture(autouse=True)
def _no_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine that the tests run on be none of Azure's."""
    for name in os.environ:
        if name.startswith(("IDENTITY_", "IMDS_", "MSI_", "AZURE")):
            monkeypatch.delenv(name)


def profile_of(endpoint: TokenEndpoint, grant_type: str, **fields: object) -> OAuthProfile:
    return an_oauth_profile(
        grant_type=grant_type, token_endpoint=endpoint.microsoft_url, ca_pem=endpoint.ca_pem, **fields
    )


async def ask(
    profile: OAuthProfile, secrets: GrantSecrets = NOTHING, *, deadline_seconds: float = 5.0
) -> ObtainedToken:
    return await grant_of(profile).request(profile, secrets, MAILBOX, deadline_seconds=deadline_seconds)


async def refusal(
    profile: OAuthProfile, secrets: GrantSecrets = NOTHING, *, deadline_seconds: float = 5.0
) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await ask(profile, secrets, deadline_seconds=deadline_seconds)
    return caught.value


# ------------------------------------------------------------------------------------------------ certificate


async def test_a_certificate_signs_an_assertion_and_no_secret_is_sent(endpoint: TokenEndpoint):
    certificate = self_signed_certificate()
    endpoint.certificate_pem = certificate.certificate_pem
    profile = profile_of(endpoint, "client_credentials", certificate_pem=certificate.certificate_pem)
    secrets = GrantSecrets(SecretStr(CLIENT_SECRET), SecretStr(certificate.private_key_pem))
    assert (await ask(profile, secrets)).token.get_secret_value() == "tokentext-1"
    (request,) = endpoint.requests
    assert request.form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "client_secret" not in request.form


async def test_an_assertion_of_another_certificate_is_refused(endpoint: TokenEndpoint):
    endpoint.certificate_pem = self_signed_certificate().certificate_pem
    other = self_signed_certificate()
    profile = profile_of(endpoint, "client_credentials", certificate_pem=other.certificate_pem)
    told = await refusal(profile, GrantSecrets(private_key=SecretStr(other.private_key_pem)))
    assert told.permanent
    assert told.code == "AADSTS700027"


# ------------------------------------------------------------------------------------------------ workload identity


def project(token_file: Path, content: bytes | str) -> None:
    """Put a token where the platform would."""
    token_file.write_bytes(content if isinstance(content, bytes) else content.encode())


def a_jwt(subject: str) -> str:
    return jwt.encode({"sub": subject}, "k" * 32, algorithm="HS256")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return tmp_path / "azure-identity-token"


@pytest.fixture
def federated(endpoint: TokenEndpoint, token_file: Path) -> OAuthProfile:
    return profile_of(endpoint, "workload_identity", token_file=str(token_file))


async def test_the_projected_token_is_read_anew_at_every_request(
    federated: OAuthProfile, endpoint: TokenEndpoint, token_file: Path
):
    endpoint.misbehave(json_reply(200, {"access_token": "tokentext", "token_type": "Bearer", "expires_in": 3599}))
    for subject in ("first", "second"):
        project(token_file, a_jwt(subject) + "\n")
        await ask(federated)
    assert [request.form["client_assertion"] for request in endpoint.requests] == [a_jwt("first"), a_jwt("second")]
    assert endpoint.requests[0].form["grant_type"] == "client_credentials"
    assert "client_secret" not in endpoint.requests[0].form


@pytest.mark.parametrize(
    ("content", "told_as"),
    [
        (None, "is missing"),
        (b"", "does not hold a JWT"),
        (b"password", "does not hold a JWT"),
        (b"a.b.c d", "does not hold a JWT"),
        (b"a.b\xff.c", "does not hold a JWT"),
        (b"a.b." + b"c" * MAX_TOKEN_FILE_BYTES, "does not hold a JWT"),
    ],
)
async def test_a_file_without_a_token_is_named_and_nothing_is_sent(
    federated: OAuthProfile, endpoint: TokenEndpoint, token_file: Path, content: bytes | None, told_as: str
):
    if content is not None:
        project(token_file, content)
    told = await refusal(federated)
    assert f"the token file {token_file} {told_as}" in told.problem
    assert "password" not in str(told)
    assert told.fix is not None
    # The worker beside this one may have it.
    assert not told.permanent
    assert endpoint.token_requests == endpoint.discoveries == 0


async def test_a_pipe_or_a_directory_in_the_files_place_holds_nobody_up(federated: OAuthProfile, token_file: Path):
    os.mkfifo(token_file)
    assert "is not a file" in (await refusal(federated)).problem
    assert "is not a file" in (await refusal(replace(federated, token_file=str(token_file.parent)))).problem


async def test_without_a_path_azures_own_is_read(federated: OAuthProfile):
    assert DEFAULT_TOKEN_FILE in (await refusal(replace(federated, token_file=None))).problem


async def test_a_projected_token_that_is_echoed_is_masked(
    federated: OAuthProfile, endpoint: TokenEndpoint, token_file: Path
):
    project(token_file, a_jwt("first"))
    endpoint.misbehave(json_reply(401, {"error": "invalid_client", "error_description": f"no: {a_jwt('first')}"}))
    assert a_jwt("first") not in str(await refusal(federated))


# ------------------------------------------------------------------------------------------------ managed identity


@pytest.fixture(params=["app service", "imds"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, identity: IdentityEndpoint) -> str:
    """A machine of Azure's, of either kind."""
    if request.param == "imds":
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", identity.imds_host)
    else:
        monkeypatch.setenv("IDENTITY_ENDPOINT", identity.app_service_url)
        monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
    return request.param


def of_machine(client_id: str | None = None, **fields: object) -> OAuthProfile:
    return an_oauth_profile(grant_type="managed_identity", client_id=client_id, **fields)


async def test_a_machines_own_identity_needs_nothing(machine: str, identity: IdentityEndpoint):
    obtained = await ask(of_machine(tenant_id=None))
    assert obtained.token.get_secret_value() == "tokentext-1"
    assert obtained.lifetime_seconds == pytest.approx(3600 if machine == "app service" else 86_399, abs=2)
    (request,) = identity.requests
    assert request.parameters["resource"] == RESOURCE
    assert "client_id" not in request.parameters
    assert (await ask(of_machine())).token.get_secret_value() == "tokentext-2"


async def test_another_identity_goes_by_its_client_id(machine: str, identity: IdentityEndpoint):
    await ask(of_machine(IDENTITY_CLIENT_ID))
    assert identity.requests[0].parameters["client_id"] == IDENTITY_CLIENT_ID


async def test_an_identity_that_the_machine_lacks_is_told_with_the_command(machine: str):
    told = await refusal(of_machine("99999999-0000-4000-8000-000000000000"))
    assert told.permanent
    assert "this machine's managed identity endpoint" in told.problem
    assert "dentity" in told.problem.partition(" says ")[2]
    assert "tocsin oauth set campus --client-id" in str(told)


async def test_a_scope_that_nobody_knows_is_no_token(machine: str):
    told = await refusal(of_machine(scope="https://nowhere.example/.default"))
    # App Service says only that something went wrong.
    assert told.permanent == (machine == "imds")
    assert told.fix is not None


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, b""),
        Reply(410, b"gone"),
        json_reply(429, {"error": "too many"}, **{"Retry-After": "3"}),
        Reply(500, b"oops"),
        Reply(200, b'{"access_token": "tokentext-broken'),
        json_reply(200, {}),
        json_reply(200, {"access_token": "tokentext", "expires_in": "soon", "expires_on": "soon"}),
        json_reply(200, {"access_token": "tokentext", "expires_in": [], "expires_on": []}),
        Reply(200, b"x" * 100_000),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:20]}",
)
async def test_what_a_machine_says_while_it_is_renewed_or_confused_passes(
    machine: str, identity: IdentityEndpoint, reply: Reply
):
    identity.misbehave(reply)
    told = await refusal(of_machine())
    assert not told.permanent
    assert "tokentext" not in str(told)
    assert len(identity.requests) == 1


async def test_a_machine_does_not_lead_on_to_another(machine: str, identity: IdentityEndpoint):
    identity.misbehave(Reply(302, b"", {"Location": f"{identity.imds_host}/metadata/identity/oauth2/token"}))
    assert "HTTP 302" in (await refusal(of_machine())).problem
    assert len(identity.requests) == 1


@pytest.mark.parametrize("behaviour", [Hang(), Reply(200, b"{}" * 50, drip_seconds=0.1)], ids=["hangs", "drips"])
async def test_the_deadline_holds_for_machines_too(machine: str, identity: IdentityEndpoint, behaviour: Hang | Reply):
    identity.misbehave(behaviour)
    clock = asyncio.get_running_loop().time
    began = clock()
    told = await refusal(of_machine(), deadline_seconds=DEADLINE)
    assert clock() - began < DEADLINE + 0.4
    assert "this machine's managed identity endpoint did not answer within" in told.problem


async def test_where_there_is_no_such_machine_the_address_and_the_way_out_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
    told = await refusal(of_machine())
    assert "this machine's managed identity endpoint cannot be reached: 127.0.0.1:1:" in told.problem
    assert "choose another grant" in str(told)
    assert not told.permanent


async def test_no_identity_header_goes_over_http_to_another_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://identity.example/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
    told = await refusal(of_machine())
    assert "neither https nor on this machine's own networks" in told.problem
    assert IDENTITY_HEADER not in str(told)


async def test_plain_http_is_for_managed_identities_alone(endpoint: TokenEndpoint, identity: IdentityEndpoint):
    address = f"{identity.imds_host}/{{tenantId}}/oauth2/v2.0/token"
    profile = replace(profile_of(endpoint, "client_credentials"), token_endpoint=address)
    assert (await refusal(profile, GrantSecrets(SecretStr(CLIENT_SECRET)))).permanent
    assert not identity.requests


@pytest.mark.parametrize(
    ("names", "source"),
    [
        (("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"), "Service Fabric"),
        (("MSI_ENDPOINT", "MSI_SECRET"), "Azure Machine Learning"),
        (("IDENTITY_ENDPOINT", "IMDS_ENDPOINT"), "Azure Arc"),
        (("AZUREPS_HOST_ENVIRONMENT",), "Azure Cloud Shell"),
    ],
)
async def test_a_kind_of_machine_that_we_do_not_speak_with_is_named_and_not_asked(
    monkeypatch: pytest.MonkeyPatch, identity: IdentityEndpoint, names: tuple[str, ...], source: str
):
    for name in names:
        monkeypatch.setenv(name, "cloud-shell/1.0" if name.startswith("AZUREPS") else identity.app_service_url)
    told = await refusal(of_machine())
    assert f"{source}'s" in told.problem
    assert told.fix is not None
    assert not identity.requests


# ------------------------------------------------------------------------------------------------ sign-ins


def a_sign_in(**fields: object) -> Reply:
    usual = {"token_type": "Bearer", "expires_in": 4800, "access_token": "tokentext", "refresh_token": "r3fresh-2"}
    return json_reply(200, {**usual, **fields})


async def test_a_refresh_gives_the_next_refresh_token(endpoint: TokenEndpoint):
    endpoint.misbehave(a_sign_in(id_token=a_jwt("7"), client_info="not what MSAL expects"))
    profile = profile_of(endpoint, "device_code", scope=f"{SMTP_SEND} offline_access")
    obtained = await ask(profile, GrantSecrets(refresh_token=SecretStr("r3fresh-1")))
    assert obtained.token.get_secret_value() == "tokentext"
    assert obtained.renewal is not None
    assert obtained.renewal.refresh_token == SecretStr("r3fresh-2")
    form = endpoint.requests[0].form
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "r3fresh-1")
    assert set(form["scope"].split()) == {SMTP_SEND, "openid", "profile", "offline_access"}
    assert "client_secret" not in form


async def test_an_answer_without_a_refresh_token_leaves_the_old_one(endpoint: TokenEndpoint):
    endpoint.misbehave(a_sign_in(refresh_token=None))
    obtained = await ask(profile_of(endpoint, "refresh_token"), GrantSecrets(refresh_token=SecretStr("r3fresh-1")))
    assert obtained.renewal is None


async def test_an_application_with_a_secret_proves_itself_at_the_refresh(endpoint: TokenEndpoint):
    endpoint.misbehave(a_sign_in())
    secrets = GrantSecrets(SecretStr(CLIENT_SECRET), refresh_token=SecretStr("r3fresh-1"))
    await ask(profile_of(endpoint, "refresh_token"), secrets)
    assert endpoint.requests[0].form["client_secret"] == CLIENT_SECRET


async def test_a_revoked_sign_in_is_permanent_and_names_the_mailbox(endpoint: TokenEndpoint):
    description = "AADSTS50173: The provided grant has expired due to it being revoked. r3fresh-1"
    endpoint.misbehave(json_reply(400, {"error": "invalid_grant", "error_description": description}))
    told = await refusal(profile_of(endpoint, "device_code"), GrantSecrets(refresh_token=SecretStr("r3fresh-1")))
    assert told.permanent
    assert told.code == "AADSTS50173"
    assert f"tocsin oauth acquire campus --user {MAILBOX}" in str(told)
    assert "r3fresh" not in str(told)


async def test_a_mailbox_that_nobody_signed_in_for_is_not_asked_about(endpoint: TokenEndpoint):
    told = await refusal(profile_of(endpoint, "device_code"))
    assert told.code == "not_signed_in"
    assert endpoint.discoveries == 0


# ------------------------------------------------------------------------------------------------ device code


def a_device_code(**fields: object) -> Reply:
    address = "https://microsoft.com/devicelogin"
    usual = {"user_code": "BCDFGHJKL", "verification_uri": address, "device_code": "d3vice", "expires_in": 900}
    return json_reply(200, {**usual, "interval": 5, "message": "To sign in, …", **fields})


@pytest.fixture(params=["microsoft365", "custom"])
def signing_in(request: pytest.FixtureRequest, endpoint: TokenEndpoint) -> OAuthProfile:
    if request.param == "microsoft365":
        return profile_of(endpoint, "device_code", scope=SMTP_SEND)
    return an_oauth_profile(
        provider="custom",
        grant_type="device_code",
        token_endpoint=endpoint.custom_url,
        device_endpoint=endpoint.custom_url.replace("/token", "/device"),
        ca_pem=endpoint.ca_pem,
        scope="mail.send offline_access",
    )


async def begin(profile: OAuthProfile, secrets: GrantSecrets = NOTHING) -> DeviceCode:
    return await device_sign_in.begin(profile, secrets, deadline_seconds=5)


async def poll(
    profile: OAuthProfile, code: DeviceCode, secrets: GrantSecrets = NOTHING, *, deadline_seconds: float = 5.0
) -> SignedIn | Undecided:
    return await device_sign_in.poll(profile, secrets, code, deadline_seconds=deadline_seconds)


async def test_a_person_signs_in_at_another_screen(signing_in: OAuthProfile, endpoint: TokenEndpoint):
    endpoint.misbehave(a_device_code())
    code = await begin(signing_in)
    assert (code.user_code, code.verification_uri) == ("BCDFGHJKL", "https://microsoft.com/devicelogin")
    endpoint.misbehave(
        json_reply(400, {"error": "authorization_pending"}),
        json_reply(400, {"error": "slow_down"}),
        a_sign_in(id_token=jwt.encode({"sub": "7", "email": MAILBOX}, "k" * 32, algorithm="HS256")),
    )
    began = time.monotonic()
    assert await poll(signing_in, code) is Undecided.PENDING
    assert await poll(signing_in, code) is Undecided.SLOW_DOWN
    signed_in = await poll(signing_in, code)
    assert time.monotonic() - began < 3, "a poll does not wait"
    assert isinstance(signed_in, SignedIn)
    assert signed_in.refresh_token == SecretStr("r3fresh-2")
    assert signed_in.account == MAILBOX
    asked, *polled = endpoint.requests
    assert asked.form["client_id"] == signing_in.client_id
    assert {"offline_access", *(signing_in.scope or "").split()} <= set(asked.form["scope"].split())
    for request in polled:
        assert request.form["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"
        assert (request.form["device_code"], request.form["client_id"]) == ("d3vice", signing_in.client_id)


async def test_declined_and_expired_are_told_apart(signing_in: OAuthProfile, endpoint: TokenEndpoint):
    endpoint.misbehave(a_device_code())
    code = await begin(signing_in)
    endpoint.misbehave(
        json_reply(400, {"error": "authorization_declined"}), json_reply(400, {"error": "expired_token"})
    )
    assert await poll(signing_in, code) is Undecided.DECLINED
    assert await poll(signing_in, code) is Undecided.EXPIRED


async def test_a_refusal_of_the_client_is_an_error_without_the_device_code(
    signing_in: OAuthProfile, endpoint: TokenEndpoint
):
    endpoint.misbehave(a_device_code())
    code = await begin(signing_in)
    endpoint.misbehave(json_reply(401, {"error": "invalid_client", "error_description": "AADSTS7000218: d3vice"}))
    with pytest.raises(TokenError) as caught:
        await begin(signing_in)
    assert caught.value.permanent
    with pytest.raises(TokenError) as caught:
        await poll(signing_in, code)
    assert caught.value.permanent
    assert "d3vice" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        json_reply(200, {}),
        json_reply(200, {"interval": "soon", "device_code": 7}),
        a_device_code(verification_uri="http://microsoft.com/devicelogin"),
        a_device_code(user_code="\x1b[2J"),
        Reply(200, b"<html>"),
        Reply(503, b""),
    ],
    ids=lambda reply: str(reply.body[:30]),
)
async def test_a_code_that_nobody_could_use_is_a_passing_error(
    signing_in: OAuthProfile, endpoint: TokenEndpoint, reply: Reply
):
    endpoint.misbehave(reply)
    with pytest.raises(TokenError) as caught:
        await begin(signing_in)
    assert not caught.value.permanent


async def test_a_sign_in_without_a_refresh_token_is_told(signing_in: OAuthProfile, endpoint: TokenEndpoint):
    endpoint.misbehave(a_device_code())
    code = await begin(signing_in)
    endpoint.misbehave(a_sign_in(refresh_token=None))
    with pytest.raises(TokenError, match="gave no refresh token"):
        await poll(signing_in, code)


async def test_a_poll_has_a_deadline(signing_in: OAuthProfile, endpoint: TokenEndpoint):
    endpoint.misbehave(a_device_code())
    code = await begin(signing_in)
    endpoint.misbehave(Hang())
    with pytest.raises(TokenError, match="did not answer within"):
        await poll(signing_in, code, deadline_seconds=DEADLINE)


@pytest.mark.parametrize("client_auth", ["client_secret_post", "client_secret_basic"])
async def test_a_custom_client_with_a_secret_proves_itself_in_its_way(endpoint: TokenEndpoint, client_auth: str):
    address = endpoint.custom_url
    profile = an_oauth_profile(
        provider="custom",
        grant_type="device_code",
        token_endpoint=address,
        device_endpoint=address,
        ca_pem=endpoint.ca_pem,
        client_id="tocsin:1",
        client_auth=client_auth,
    )
    secrets = GrantSecrets(SecretStr(CLIENT_SECRET))
    endpoint.misbehave(a_device_code())
    code = await begin(profile, secrets)
    endpoint.misbehave(json_reply(400, {"error": "authorization_pending"}))
    await poll(profile, code, secrets)
    for request in endpoint.requests:
        if client_auth == "client_secret_post":
            assert (request.form["client_id"], request.form["client_secret"]) == ("tocsin:1", CLIENT_SECRET)
            assert "authorization" not in request.headers
        else:
            # base64("tocsin%3A1:s3cret~Value%2Fwith%2Bsigns"), encoded as RFC 6749 section 2.3.1 says
            assert request.headers["authorization"] == "Basic dG9jc2luJTNBMTpzM2NyZXR+VmFsdWUlMkZ3aXRoJTJCc2lnbnM="
            assert "client_secret" not in request.form


async def test_a_provider_without_device_codes_is_told(endpoint: TokenEndpoint):
    with pytest.raises(TokenError, match="google has no sign-in by device code"):
        await begin(an_oauth_profile(provider="google"))


async def test_no_log_line_shows_what_a_sign_in_lives_on(
    signing_in: OAuthProfile, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    endpoint.misbehave(a_device_code())
    code = await begin(signing_in)
    endpoint.misbehave(a_sign_in())
    signed_in = await poll(signing_in, code)
    await ask(
        replace(signing_in, provider="microsoft365", token_endpoint=endpoint.microsoft_url),
        GrantSecrets(refresh_token=SecretStr("r3fresh-1")),
    )
    assert caplog.records
    shown = caplog.text + repr(signed_in) + repr(code)
    shown += "".join(str(record.__dict__) for record in caplog.records if record.name != "asyncio")
    for secret in ("d3vice", "r3fresh", "tokentext"):
        assert secret not in shown
