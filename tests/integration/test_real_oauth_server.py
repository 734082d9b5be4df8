"""Microsoft's grants and signing in by device code, judged by an OAuth server that we did not write."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tests.builders import an_oauth_profile
from tests.servers.oauth_server import (
    CERTIFICATE_CLIENT_ID,
    CLIENT_SECRET,
    CUSTOM_SCOPE,
    DEVICE_CLIENT_ID,
    DEVICE_CODE,
    FEDERATED_CLIENT_ID,
    MAILBOX,
    MICROSOFT_SCOPE,
    OTHER_MAILBOX,
    POST_CLIENT_ID,
    REFRESH_CLIENT_ID,
    REFRESH_TOKEN,
    SIGN_IN_SCOPES,
    SMTP_SEND_SCOPE,
    TENANT,
    OAuthServer,
    Settings,
)
from tests.servers.oauth_server_keys import self_signed_certificate
from tocsin_schema.errors import TokenError
from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, GrantType
from tocsin_workers.tokens import device_sign_in
from tocsin_workers.tokens.device_sign_in import DeviceCode, SignedIn, Undecided
from tocsin_workers.tokens.grants import grant_of
from tocsin_workers.tokens.grants.seam import GrantSecrets

if TYPE_CHECKING:
    from pathlib import Path

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.seam import ObtainedToken

NOTHING = GrantSecrets()
SECRET = GrantSecrets(SecretStr(CLIENT_SECRET))


def microsoft(server: OAuthServer, grant_type: GrantType, client_id: str, **fields: object) -> OAuthProfile:
    usual = {
        "grant_type": grant_type,
        "client_id": client_id,
        "tenant_id": TENANT,
        "token_endpoint": server.microsoft_token_url.replace(TENANT, "{tenantId}"),
        "ca_pem": server.ca_pem,
        "scope": MICROSOFT_SCOPE,
    }
    return an_oauth_profile(**{**usual, **fields})


async def ask(profile: OAuthProfile, secrets: GrantSecrets = NOTHING) -> ObtainedToken:
    return await grant_of(profile).request(profile, secrets, MAILBOX, deadline_seconds=5)


async def refusal(profile: OAuthProfile, secrets: GrantSecrets = NOTHING) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await ask(profile, secrets)
    assert caught.value.permanent
    return caught.value


def mailbox_of(server: OAuthServer, obtained: ObtainedToken) -> object:
    told = server.tokeninfo(obtained.token.get_secret_value())
    return None if told is None else told["sub"]


@pytest.mark.parametrize("cloud", sorted(MICROSOFT_CLOUDS))
async def test_a_secret_gets_a_token_in_every_cloud(oauth_server: OAuthServer, cloud: str):
    profile = microsoft(oauth_server, GrantType.CLIENT_CREDENTIALS, POST_CLIENT_ID, provider=cloud)
    assert mailbox_of(oauth_server, await ask(profile, SECRET)) == MAILBOX


async def test_a_wrong_secret_is_told_by_its_command(oauth_server: OAuthServer):
    profile = microsoft(oauth_server, GrantType.CLIENT_CREDENTIALS, POST_CLIENT_ID)
    told = await refusal(profile, GrantSecrets(SecretStr("wr0ng")))
    assert told.code == "invalid_client"
    assert "tocsin oauth replace-secret campus" in str(told)


async def test_a_certificate_gets_a_token_and_another_one_does_not(oauth_server: OAuthServer):
    for certificate in (oauth_server.certificate, self_signed_certificate()):
        profile = microsoft(
            oauth_server,
            GrantType.CLIENT_CREDENTIALS,
            CERTIFICATE_CLIENT_ID,
            certificate_pem=certificate.certificate_pem,
        )
        secrets = GrantSecrets(private_key=SecretStr(certificate.private_key_pem))
        if certificate is oauth_server.certificate:
            assert mailbox_of(oauth_server, await ask(profile, secrets)) == MAILBOX
        else:
            assert (await refusal(profile, secrets)).code == "invalid_client"


async def test_a_projected_token_gets_a_token_and_an_expired_or_foreign_one_does_not(
    oauth_server: OAuthServer, tmp_path: Path
):
    file = tmp_path / "token"
    profile = microsoft(oauth_server, GrantType.WORKLOAD_IDENTITY, FEDERATED_CLIENT_ID, token_file=str(file))

    def project(token: str) -> None:
        file.write_text(token)

    project(oauth_server.federated_token())
    assert mailbox_of(oauth_server, await ask(profile)) == MAILBOX
    project(oauth_server.federated_token(lifetime_seconds=-60))
    assert (await refusal(profile)).code == "invalid_client"
    project(oauth_server.federated_token(subject="system:serviceaccount:mail:another"))
    assert (await refusal(profile)).code == "invalid_client"


# ------------------------------------------------------------------------------------------------ device code


@pytest.fixture(params=["microsoft365", "custom"])
def signing_in(request: pytest.FixtureRequest, oauth_server: OAuthServer) -> OAuthProfile:
    if request.param == "microsoft365":
        return microsoft(oauth_server, GrantType.DEVICE_CODE, DEVICE_CLIENT_ID, scope=SMTP_SEND_SCOPE)
    return an_oauth_profile(
        provider="custom",
        grant_type=GrantType.DEVICE_CODE,
        client_id=DEVICE_CLIENT_ID,
        token_endpoint=oauth_server.token_url,
        device_endpoint=oauth_server.device_authorization_url,
        ca_pem=oauth_server.ca_pem,
        scope=f"{SIGN_IN_SCOPES} {CUSTOM_SCOPE}",
    )


async def begin(profile: OAuthProfile) -> DeviceCode:
    return await device_sign_in.begin(profile, NOTHING, deadline_seconds=5)


async def poll(profile: OAuthProfile, code: DeviceCode) -> SignedIn | Undecided:
    return await device_sign_in.poll(profile, NOTHING, code, deadline_seconds=5)


async def test_who_signed_in_is_told_and_every_refresh_gives_the_next(
    oauth_server: OAuthServer, signing_in: OAuthProfile
):
    code = await begin(signing_in)
    assert oauth_server.open_user_codes() == [code.user_code]
    assert await poll(signing_in, code) is Undecided.PENDING
    oauth_server.approve(code.user_code, OTHER_MAILBOX)
    signed_in = await poll(signing_in, code)
    assert isinstance(signed_in, SignedIn)
    assert signed_in.account == OTHER_MAILBOX
    first = await ask(signing_in, GrantSecrets(refresh_token=signed_in.refresh_token))
    assert first.refresh_token not in (None, signed_in.refresh_token)
    second = await ask(signing_in, GrantSecrets(refresh_token=first.refresh_token))
    assert mailbox_of(oauth_server, first) == mailbox_of(oauth_server, second) == OTHER_MAILBOX
    assert first.token != second.token
    assert oauth_server.counts()[DEVICE_CLIENT_ID, DEVICE_CODE] == 2
    assert oauth_server.counts()[DEVICE_CLIENT_ID, REFRESH_TOKEN] == 2


@pytest.mark.parametrize("error", ["access_denied", "authorization_declined"])
async def test_a_person_may_decline(oauth_server: OAuthServer, signing_in: OAuthProfile, error: str):
    code = await begin(signing_in)
    oauth_server.deny(code.user_code, error)
    assert await poll(signing_in, code) is Undecided.DECLINED


async def test_a_code_expires(oauth_server: OAuthServer, signing_in: OAuthProfile):
    oauth_server.configure(replace(Settings(), device_code_seconds=90))
    code = await begin(signing_in)
    assert code.expires_in_seconds == 90
    oauth_server.expire(code.user_code)
    assert await poll(signing_in, code) is Undecided.EXPIRED


async def test_a_refresh_token_that_comes_twice_loses_the_sign_in(oauth_server: OAuthServer, signing_in: OAuthProfile):
    code = await begin(signing_in)
    oauth_server.approve(code.user_code)
    signed_in = await poll(signing_in, code)
    assert isinstance(signed_in, SignedIn)
    used = GrantSecrets(refresh_token=signed_in.refresh_token)
    successor = (await ask(signing_in, used)).refresh_token
    for secrets in (used, GrantSecrets(refresh_token=successor)):
        told = await refusal(signing_in, secrets)
        assert told.code == "invalid_grant"
        assert f"tocsin oauth acquire campus --user {MAILBOX}" in str(told)


async def test_a_revoked_sign_in_names_the_way_back(oauth_server: OAuthServer, signing_in: OAuthProfile):
    code = await begin(signing_in)
    oauth_server.approve(code.user_code)
    signed_in = await poll(signing_in, code)
    assert isinstance(signed_in, SignedIn)
    oauth_server.revoke(MAILBOX)
    told = await refusal(signing_in, GrantSecrets(refresh_token=signed_in.refresh_token))
    assert told.code == "invalid_grant"
    assert f"tocsin oauth acquire campus --user {MAILBOX}" in str(told)


async def test_a_confidential_application_refreshes_with_its_secret(oauth_server: OAuthServer):
    profile = microsoft(oauth_server, GrantType.REFRESH_TOKEN, REFRESH_CLIENT_ID, scope=SMTP_SEND_SCOPE)
    scope = f"{SIGN_IN_SCOPES} {SMTP_SEND_SCOPE}"
    token = SecretStr(oauth_server.mint_refresh_token(REFRESH_CLIENT_ID, MAILBOX, scope))
    obtained = await ask(profile, replace(SECRET, refresh_token=token))
    assert mailbox_of(oauth_server, obtained) == MAILBOX
    assert obtained.renewal is not None
    assert obtained.renewal.refresh_token != token
    without = GrantSecrets(refresh_token=obtained.renewal.refresh_token)
    assert (await refusal(profile, without)).code == "invalid_client"
