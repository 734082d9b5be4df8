"""Google's and custom grants against an OAuth server that others wrote: what it gives, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from tests.builders import an_oauth_profile
from tests.servers.oauth_server import (
    BASIC_CLIENT_ID,
    CLIENT_SECRET,
    CUSTOM_SCOPE,
    DEVICE_CLIENT_ID,
    GOOGLE_CLIENT_ID,
    GOOGLE_SCOPE,
    MAILBOX,
    OTHER_MAILBOX,
    POST_CLIENT_ID,
    REFRESH_CLIENT_ID,
    SERVICE_ACCOUNT,
    TENANT,
    OAuthServer,
    Settings,
)
from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.grants import grant_of, subject_of
from tocsin_workers.tokens.grants.seam import GrantSecrets
from tocsin_workers.tokens.refusal_causes import Cause

if TYPE_CHECKING:
    from typing import Any

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.seam import ObtainedToken

SECRET = SecretStr(CLIENT_SECRET)


def profile_at(server: OAuthServer, provider: str, grant_type: str, client_id: str, **fields: Any) -> OAuthProfile:
    usual = {
        "provider": provider,
        "grant_type": grant_type,
        "client_id": client_id,
        "ca_pem": server.ca_pem,
        "tenant_id": TENANT,
        "token_endpoint": server.google_token_url if provider == "google" else f"{server.origin}/{{tenantId}}/token",
        "scope": GOOGLE_SCOPE if provider == "google" else CUSTOM_SCOPE,
        "secret_set_at": None,
    }
    return an_oauth_profile(**{**usual, **fields})


def service_account_key(server: OAuthServer) -> GrantSecrets:
    return GrantSecrets(private_key=SecretStr(server.service_account_info()["private_key"]))


def left_by(token: str | SecretStr | None, client_secret: SecretStr | None = None) -> GrantSecrets:
    assert token is not None
    return GrantSecrets(client_secret, refresh_token=token if isinstance(token, SecretStr) else SecretStr(token))


async def ask(profile: OAuthProfile, secrets: GrantSecrets, mailbox: str = MAILBOX) -> ObtainedToken:
    return await grant_of(profile).request(profile, secrets, subject_of(profile, mailbox), deadline_seconds=8)


async def refusal(profile: OAuthProfile, secrets: GrantSecrets, mailbox: str = MAILBOX) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await ask(profile, secrets, mailbox)
    assert caught.value.permanent
    return caught.value


def told_of(server: OAuthServer, obtained: ObtainedToken) -> tuple[object, object]:
    """Give whose mailbox a mail server takes the token for, and its scope."""
    told = server.tokeninfo(obtained.token.get_secret_value())
    assert told is not None
    return told["username"], told["scope"]


@pytest.mark.parametrize("provider", ["google", "custom"])
async def test_an_assertion_gives_each_mailbox_a_token_of_its_own(oauth_server: OAuthServer, provider: str):
    profile = profile_at(oauth_server, provider, "jwt_bearer", SERVICE_ACCOUNT)
    for mailbox in (MAILBOX, OTHER_MAILBOX):
        obtained = await ask(profile, service_account_key(oauth_server), mailbox.upper())
        assert told_of(oauth_server, obtained) == (mailbox, profile.scope)
        assert obtained.lifetime_seconds == 3600


async def test_a_domain_that_is_not_delegated_is_told_with_the_fix(oauth_server: OAuthServer):
    oauth_server.configure(Settings(delegated=()))
    number = oauth_server.service_account_info()["client_id"]
    profile = profile_at(oauth_server, "google", "jwt_bearer", SERVICE_ACCOUNT, delegation_client_id=number)
    told = await refusal(profile, service_account_key(oauth_server))
    assert (told.code, told.cause) == ("unauthorized_client", Cause.DELEGATION_MISSING)
    assert f"client ID {number} with the scope {GOOGLE_SCOPE}" in str(told.fix)


async def test_another_key_is_told_with_the_fix(oauth_server: OAuthServer):
    other = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    secrets = GrantSecrets(private_key=SecretStr(other.decode()))
    told = await refusal(profile_at(oauth_server, "google", "jwt_bearer", SERVICE_ACCOUNT), secrets)
    assert told.cause == Cause.PRIVATE_KEY_WRONG
    told = await refusal(profile_at(oauth_server, "custom", "jwt_bearer", SERVICE_ACCOUNT), secrets)
    assert told.cause == Cause.ASSERTION_REFUSED


async def test_googles_refresh_token_is_used_again_and_again(oauth_server: OAuthServer):
    profile = profile_at(oauth_server, "google", "refresh_token", GOOGLE_CLIENT_ID)
    secrets = left_by(oauth_server.mint_refresh_token(GOOGLE_CLIENT_ID), SECRET)
    for _ in range(2):
        assert told_of(oauth_server, await ask(profile, secrets)) == (MAILBOX, GOOGLE_SCOPE)


@pytest.mark.parametrize(
    ("client_id", "secret"), [(REFRESH_CLIENT_ID, SECRET), (DEVICE_CLIENT_ID, None)], ids=["with secret", "public"]
)
@pytest.mark.parametrize("grant_type", ["refresh_token", "device_code"])
async def test_a_rotated_refresh_token_is_handed_on_and_the_family_ends_when_the_old_one_comes_again(
    oauth_server: OAuthServer, client_id: str, secret: SecretStr | None, grant_type: str
):
    profile = profile_at(oauth_server, "custom", grant_type, client_id)
    first = left_by(oauth_server.mint_refresh_token(client_id, scope=CUSTOM_SCOPE), secret)
    obtained = await ask(profile, first)
    assert told_of(oauth_server, obtained) == (MAILBOX, CUSTOM_SCOPE)
    second = left_by(obtained.refresh_token, secret)
    third = left_by((await ask(profile, second)).refresh_token, secret)
    for revoked in (first, third):
        told = await refusal(profile, revoked)
        assert told.cause == Cause.SIGN_IN_REVOKED
        assert f"--user {MAILBOX}`" in str(told.fix)


@pytest.mark.parametrize(
    ("client_id", "client_auth"),
    [(POST_CLIENT_ID, "client_secret_post"), (BASIC_CLIENT_ID, "client_secret_basic")],
)
async def test_a_secret_is_taken_where_the_client_is_registered_to_put_it(
    oauth_server: OAuthServer, client_id: str, client_auth: str
):
    profile = profile_at(oauth_server, "custom", "client_credentials", client_id, client_auth=client_auth)
    profile = replace(profile, secret_set_at=profile.created_at)
    assert told_of(oauth_server, await ask(profile, GrantSecrets(SECRET))) == (MAILBOX, CUSTOM_SCOPE)
    told = await refusal(profile, GrantSecrets(SecretStr("another one")))
    assert (told.code, told.cause) == ("invalid_client", Cause.SECRET_WRONG)
    assert "`tocsin oauth replace-secret campus`" in str(told.fix)
    told = await refusal(replace(profile, scope="mail.read"), GrantSecrets(SECRET))
    assert told.cause == Cause.SCOPE_WRONG
