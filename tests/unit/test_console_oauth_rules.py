"""Which OAuth profiles can be: decided before anything is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.builders import an_oauth_profile, oauth_defaults
from tocsin_console.reading.oauth_rules import (
    Grant,
    check_endpoint,
    check_profile,
    checked_grant,
    secret_must_be_given_again,
)
from tocsin_schema.errors import UsageError

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthDefaults

GUID = "8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10"
M365 = oauth_defaults(
    "microsoft365",
    token_endpoint="https://login.microsoftonline.com/{tenantId}/oauth2/v2.0/token",
    scope="https://outlook.office365.com/.default",
    wants_tenant=True,
    guid_ids=True,
)
CUSTOM = oauth_defaults("custom")
GOOGLE = oauth_defaults(
    "google", grant_type="jwt_bearer", grants=["jwt_bearer", "refresh_token"], token_endpoint="https://x.example/"
)


def check(defaults: OAuthDefaults, **fields: str | None) -> None:
    values: dict[str, str | None] = {"tenant_id": GUID, "client_id": GUID, "scope": "s", **fields}
    check_profile(
        defaults,
        token_endpoint=values.get("token_endpoint") or M365.token_endpoint or "",
        tenant_id=values["tenant_id"],
        client_id=values["client_id"],
        scope=values["scope"],
    )


def test_a_complete_microsoft_profile_is_taken() -> None:
    check(M365)
    assert checked_grant(None, M365) is Grant.CLIENT_CREDENTIALS


@pytest.mark.parametrize("field", ["tenant_id", "client_id"])
@pytest.mark.parametrize("text", ["contoso.onmicrosoft.com", GUID + "0", "{" + GUID + "}", "not a guid"])
def test_microsoft_ids_are_guids(field: str, text: str) -> None:
    with pytest.raises(UsageError, match="GUID"):
        check(M365, **{field: text})


def test_custom_ids_may_be_anything_printable() -> None:
    check(CUSTOM, client_id="tocsin app", tenant_id=None, token_endpoint="https://sso.example.org/token")
    with pytest.raises(UsageError):
        check(CUSTOM, client_id="a\nb", tenant_id=None, token_endpoint="https://sso.example.org/token")


@pytest.mark.parametrize("missing", ["tenant_id", "client_id"])
def test_what_is_missing_is_named_with_its_flag(missing: str) -> None:
    with pytest.raises(UsageError, match="Give --" + missing.replace("_", "-")):
        check(M365, **{missing: None})


def test_google_is_told_what_its_ways_are() -> None:
    for grant in (None, Grant.CLIENT_CREDENTIALS):
        with pytest.raises(UsageError, match=r"no client-credentials grant.*service account.*refresh token"):
            checked_grant(grant, GOOGLE)


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
def test_a_token_endpoint_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_endpoint(url)
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "again"),
    [
        ("https://sso.example.org/other", False),
        ("https://sso.example.org:8443/token", True),
        ("https://evil.example.org/token", True),
    ],
)
def test_a_stored_secret_does_not_follow_to_another_host(endpoint: str, again: bool) -> None:
    old = an_oauth_profile(provider="custom", token_endpoint="https://sso.example.org/token")
    assert secret_must_be_given_again(old, endpoint) is again
