"""Which OAuth profiles can be: decided before anything is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.builders import THEN, an_oauth_profile, oauth_defaults
from tocsin_console.reading.oauth_credentials import KeyCredential, ServiceAccount
from tocsin_console.reading.oauth_mailbox import mailbox_meant
from tocsin_console.reading.oauth_request import (
    ClientAuth,
    OAuthRequest,
    changed_profile,
    check_takes_secret,
    new_profile,
)
from tocsin_console.reading.oauth_rules import Proof, check_endpoint, check_nobody_changed_it, fit_of
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, GrantType, OAuthProvider

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import NewOAuthProfile, OAuthDefaults

GUID = "8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10"
SECRET, KEY, REFRESH = (frozenset({proof}) for proof in Proof)
ACCOUNT = ServiceAccount(
    "sa@p.iam.gserviceaccount.com", "1234", "kid1", "https://oauth2.example/token", KeyCredential("pem")
)
M365 = oauth_defaults(
    "microsoft365",
    token_endpoint="https://login.microsoftonline.com/{tenantId}/oauth2/v2.0/token",
    grants=["client_credentials", "workload_identity", "managed_identity", "device_code", "refresh_token"],
    scope="https://outlook.office365.com/.default",
    delegated_scope="https://outlook.office.com/SMTP.Send",
    wants_tenant=True,
    guid_ids=True,
)
CUSTOM = oauth_defaults("custom", grants=["client_credentials", "jwt_bearer", "device_code", "refresh_token"])
GOOGLE = oauth_defaults(
    "google",
    grant_type="jwt_bearer",
    grants=["jwt_bearer", "refresh_token"],
    token_endpoint="https://oauth2.googleapis.com/token",
    scope="https://mail.google.com/",
    delegated_scope="https://mail.google.com/",
)


def made(defaults: OAuthDefaults, **asked: Any) -> NewOAuthProfile:
    return new_profile("x", OAuthRequest(**asked), defaults).profile


def microsoft(**asked: Any) -> NewOAuthProfile:
    return made(M365, **{"tenant_id": GUID, "client_id": GUID, **asked})


def custom(**asked: Any) -> NewOAuthProfile:
    return made(CUSTOM, **{"token_endpoint": "https://sso.example.org/token", "client_id": "tocsin", **asked})


def test_what_is_left_out_comes_from_the_provider() -> None:
    planned = new_profile("m365", OAuthRequest(tenant_id=GUID, client_id=GUID), M365)
    assert planned.profile.grant_type == "client_credentials"
    assert planned.profile.token_endpoint == M365.token_endpoint
    assert planned.asks == (Proof.CLIENT_SECRET,)


@pytest.mark.parametrize(
    ("grant", "scope"),
    [
        (GrantType.CLIENT_CREDENTIALS, M365.scope),
        (GrantType.MANAGED_IDENTITY, M365.scope),
        (GrantType.DEVICE_CODE, M365.delegated_scope),
        (GrantType.REFRESH_TOKEN, M365.delegated_scope),
    ],
)
def test_a_grant_in_a_persons_name_has_a_scope_of_its_own(grant: GrantType, scope: str) -> None:
    assert microsoft(grant=grant).scope == scope


@pytest.mark.parametrize("provider", MICROSOFT_CLOUDS)
def test_what_needs_no_secret_asks_for_none(provider: OAuthProvider) -> None:
    for grant in (GrantType.WORKLOAD_IDENTITY, GrantType.MANAGED_IDENTITY, GrantType.DEVICE_CODE):
        assert fit_of(provider, grant).needs == ()


def test_credentials_say_which_grant_is_meant() -> None:
    assert custom(gives=REFRESH).grant_type == "refresh_token"
    account = made(GOOGLE, service_account=ACCOUNT, gives=KEY)
    assert (account.grant_type, account.client_id) == ("jwt_bearer", "sa@p.iam.gserviceaccount.com")
    assert (account.key_id, account.delegation_client_id) == ("kid1", "1234")
    assert account.token_endpoint == "https://oauth2.example/token"


@pytest.mark.parametrize("field", ["tenant_id", "client_id"])
@pytest.mark.parametrize("text", ["contoso.onmicrosoft.com", GUID + "0", "{" + GUID + "}", "not a guid"])
def test_microsoft_ids_are_guids(field: str, text: str) -> None:
    with pytest.raises(UsageError, match="GUID"):
        microsoft(**{field: text})


def test_custom_ids_may_be_anything_printable() -> None:
    assert custom(client_id="tocsin app").client_id == "tocsin app"
    with pytest.raises(UsageError):
        custom(client_id="a\nb")


@pytest.mark.parametrize("missing", ["tenant_id", "client_id"])
def test_what_is_missing_is_named_with_its_flag(missing: str) -> None:
    with pytest.raises(UsageError, match="Give --" + missing.replace("_", "-")):
        microsoft(**{missing: None})


def test_a_managed_identity_needs_neither_tenant_nor_client() -> None:
    made(M365, grant=GrantType.MANAGED_IDENTITY)
    with pytest.raises(UsageError, match="client id"):
        made(M365, grant=GrantType.WORKLOAD_IDENTITY, tenant_id=GUID)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"grant": GrantType.MANAGED_IDENTITY, "gives": SECRET}, "--client-secret-file"),
        ({"grant": GrantType.WORKLOAD_IDENTITY, "gives": KEY}, "--certificate-file"),
        ({"grant": GrantType.DEVICE_CODE, "gives": SECRET}, "--client-secret-file"),
        ({"grant": GrantType.CLIENT_CREDENTIALS, "gives": REFRESH}, "--refresh-token-file"),
        ({"gives": SECRET | KEY}, "not both"),
        ({"token_file": "/var/token"}, "--token-file"),
        ({"device_endpoint": "https://x.example/"}, "--device-endpoint"),
        ({"client_auth": ClientAuth.BASIC}, "--client-auth"),
        ({"key_id": "k"}, "--key-id"),
        ({"grant": GrantType.JWT_BEARER, "gives": KEY}, "no grant jwt_bearer"),
        ({"grant": GrantType.WORKLOAD_IDENTITY, "token_file": "token"}, "full path"),
        ({"grant": GrantType.DEVICE_CODE, "secret_expires_at": THEN}, "no client secret"),
    ],
)
def test_what_does_not_fit_the_grant_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        microsoft(**asked)
    assert refused.value.fix


def test_a_custom_device_code_needs_the_endpoint_that_gives_it() -> None:
    with pytest.raises(UsageError, match="Give --device-endpoint"):
        custom(grant=GrantType.DEVICE_CODE)
    assert custom(grant=GrantType.DEVICE_CODE, device_endpoint="https://sso.example.org/device", gives=SECRET)


@pytest.mark.parametrize(
    "asked",
    [
        {"client_id": "x"},
        {"client_id": "x", "gives": SECRET},
        {"grant": GrantType.CLIENT_CREDENTIALS},
        {"grant": GrantType.CLIENT_CREDENTIALS, "gives": KEY},
    ],
)
def test_google_is_told_what_its_two_ways_are(asked: dict[str, Any]) -> None:
    ways = r"no client credentials grant.*--service-account-file.*--grant refresh_token"
    with pytest.raises(UsageError, match=ways):
        made(GOOGLE, **asked)


def test_a_service_account_is_known_by_its_address() -> None:
    with pytest.raises(UsageError, match="client_email"):
        made(GOOGLE, client_id="123456", gives=KEY)


@pytest.mark.parametrize(
    "url",
    [
        "http://sso.example.org/token",
        "sso.example.org/token",
        "https:///token",
        "https://user:secret@sso.example.org/token",
        "https://sso.example.org/token#x",
        "https://sso.example.org/{other}/token",
        "https://{tenantId}.example.org/token",
        "https://sso.example.org:port/token",
        "https://[::1/token",
        "https://sso.example.org/a b",
        "https://sso.example.org/\n",
        "https://sso.example.org/" + "x" * 3000,
    ],
)
def test_an_endpoint_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_endpoint(url, "token endpoint")
    assert "secret@" not in str(refused.value)


SSO = an_oauth_profile(
    provider="custom", token_endpoint="https://sso.example.org/token", client_id="tocsin", tenant_id=None
)


@pytest.mark.parametrize(
    ("endpoint", "moves"),
    [
        ("https://sso.example.org/other", False),
        ("https://SSO.example.org:443/other", False),
        ("https://sso.example.org:8443/token", True),
        ("https://evil.example.org/token", True),
    ],
)
def test_a_stored_secret_does_not_follow_to_another_host(endpoint: str, moves: bool) -> None:
    moved = OAuthRequest(token_endpoint=endpoint)
    if not moves:
        assert changed_profile(SSO, moved, CUSTOM).profile.token_endpoint == endpoint
        return
    with pytest.raises(UsageError, match=r"stored client secret does not go there.*--client-secret-file"):
        changed_profile(SSO, moved, CUSTOM)
    again = OAuthRequest(token_endpoint=endpoint, gives=SECRET)
    assert changed_profile(SSO, again, CUSTOM).profile.token_endpoint == endpoint


def test_a_stored_secret_does_not_go_to_another_device_endpoint_either() -> None:
    asked = OAuthRequest(grant=GrantType.DEVICE_CODE, device_endpoint="https://evil.example.org/device")
    with pytest.raises(UsageError, match="another host"):
        changed_profile(SSO, asked, CUSTOM)
    asked = OAuthRequest(grant=GrantType.DEVICE_CODE, device_endpoint="https://sso.example.org/device")
    assert changed_profile(SSO, asked, CUSTOM).profile.device_endpoint == "https://sso.example.org/device"


def test_a_stored_key_does_not_sign_for_another_host() -> None:
    before = an_oauth_profile(secret_set_at=None, private_key_set_at=THEN, certificate_pem="pem")
    elsewhere = OAuthRequest(token_endpoint="https://evil.example.org/{tenantId}/oauth2/v2.0/token")
    with pytest.raises(UsageError, match="stored private key does not go there"):
        changed_profile(before, elsewhere, M365)


def test_a_secret_typed_for_one_host_is_not_stored_for_another() -> None:
    check_nobody_changed_it(SSO, SSO)
    moved = an_oauth_profile(provider="custom", token_endpoint="https://evil.example.org/token")
    with pytest.raises(UsageError, match=r"evil\.example\.org"):
        check_nobody_changed_it(SSO, moved)


def test_a_change_leaves_what_was_not_named_and_an_empty_text_takes_away() -> None:
    before = an_oauth_profile()
    assert changed_profile(before, OAuthRequest(client_id=GUID), M365).profile.tenant_id == before.tenant_id
    assert changed_profile(SSO, OAuthRequest(scope=""), CUSTOM).profile.scope is None


def test_another_grant_brings_its_scope_unless_that_was_the_operators_own() -> None:
    asked = OAuthRequest(grant=GrantType.DEVICE_CODE)
    assert changed_profile(an_oauth_profile(), asked, M365).profile.scope == M365.delegated_scope
    assert changed_profile(an_oauth_profile(scope="mine"), asked, M365).profile.scope == "mine"


def test_another_grant_asks_for_the_secret_that_it_needs() -> None:
    machine = an_oauth_profile(grant_type="managed_identity", secret_set_at=None)
    assert changed_profile(machine, OAuthRequest(grant=GrantType.CLIENT_CREDENTIALS), M365).asks == (
        Proof.CLIENT_SECRET,
    )
    assert changed_profile(machine, OAuthRequest(scope="s"), M365).asks == ()


def test_another_secret_or_key_forgets_what_was_known_of_the_old_one() -> None:
    before = an_oauth_profile(secret_expires_at=THEN)
    assert changed_profile(before, OAuthRequest(gives=SECRET), M365).profile.secret_expires_at is None
    assert changed_profile(before, OAuthRequest(scope="s"), M365).profile.secret_expires_at == THEN
    assert changed_profile(before, OAuthRequest(forget_secret_expiry=True), M365).profile.secret_expires_at is None
    signing = replace(SSO, grant_type="jwt_bearer", key_id="old", private_key_set_at=THEN)
    assert changed_profile(signing, OAuthRequest(gives=KEY), CUSTOM).profile.key_id is None


def test_a_profile_with_a_certificate_has_no_secret_to_replace() -> None:
    certified = an_oauth_profile(private_key_set_at=THEN, certificate_pem="pem")
    with pytest.raises(UsageError, match="oauth set campus --client-secret-file"):
        check_takes_secret(certified)
    check_takes_secret(an_oauth_profile())


@pytest.mark.parametrize(
    ("grant", "fix"),
    [("device_code", "oauth acquire"), ("managed_identity", "where it runs"), ("workload_identity", "where it runs")],
)
def test_replacing_a_secret_that_there_cannot_be_names_what_to_do_instead(grant: str, fix: str) -> None:
    with pytest.raises(UsageError, match=fix):
        check_takes_secret(an_oauth_profile(grant_type=grant, secret_set_at=None))


def test_of_several_mailboxes_one_has_to_be_named() -> None:
    assert mailbox_meant("x", None, []) is None
    assert mailbox_meant("x", None, ["a@example.org"]) == "a@example.org"
    assert mailbox_meant("x", "b@example.org", ["a@example.org"]) == "b@example.org"
    with pytest.raises(UsageError, match=r"a@example.org, b@example.org.*--user"):
        mailbox_meant("x", None, ["a@example.org", "b@example.org"])


@pytest.mark.parametrize(
    "endpoint", ["https://login.microsoftonline.com/x/oauth2/token", "https://sso.example.org/token"]
)
def test_a_microsoft_endpoint_ends_as_microsofts_do(endpoint: str) -> None:
    with pytest.raises(UsageError, match=r"none of microsoft365's.*Leave --token-endpoint out"):
        microsoft(token_endpoint=endpoint)
    with pytest.raises(UsageError, match="none of microsoft365's"):
        changed_profile(an_oauth_profile(), OAuthRequest(token_endpoint=endpoint, gives=SECRET), M365)


def test_a_tenant_id_that_goes_nowhere_is_refused() -> None:
    with pytest.raises(UsageError, match="--tenant-id is of no use"):
        custom(tenant_id="campus")
    with pytest.raises(UsageError, match="--tenant-id is of no use"):
        changed_profile(SSO, OAuthRequest(tenant_id="campus"), CUSTOM)
    assert custom(tenant_id="campus", token_endpoint="https://sso.example.org/{tenantId}/token").tenant_id == "campus"


def test_another_grant_forgets_the_secrets_that_it_does_not_take() -> None:
    before = an_oauth_profile(secret_expires_at=THEN, private_key_set_at=THEN, key_id="kid")
    changed = changed_profile(before, OAuthRequest(grant=GrantType.DEVICE_CODE), M365)
    assert changed.forgets == SECRET | KEY
    assert (changed.profile.secret_expires_at, changed.profile.key_id) == (None, None)
    assert changed_profile(SSO, OAuthRequest(scope="s"), CUSTOM).forgets == frozenset()
    # What is forgotten goes nowhere, and need not be given again.
    elsewhere = "https://login.microsoftonline.us/{tenantId}/oauth2/v2.0/token"
    moved = OAuthRequest(grant=GrantType.DEVICE_CODE, token_endpoint=elsewhere)
    assert changed_profile(before, moved, M365).profile.token_endpoint == elsewhere
    with pytest.raises(UsageError, match="no client secret"):
        changed_profile(before, OAuthRequest(grant=GrantType.DEVICE_CODE, secret_expires_at=THEN), M365)


@pytest.mark.parametrize("user", ["notmail", "", "a@example.org, b@example.org", "News <news@example.org>"])
def test_a_mailbox_is_one_address(user: str) -> None:
    with pytest.raises(UsageError, match="--user"):
        mailbox_meant("x", user, [])
