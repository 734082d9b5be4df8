"""Where a managed identity's token may be asked for, and for what."""

from __future__ import annotations

import httpx
import pytest

from tests.builders import an_oauth_profile
from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.endpoint import endpoint_host
from tocsin_workers.tokens.grants.microsoft_managed_identity import may_be_asked, resource_of


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/metadata/identity/oauth2/token",
        "http://169.254.130.4:8081/msi/token",
        "http://127.0.0.1:41741/msi/token",
        "http://localhost:42356/msi/token",
        "http://172.16.1.2:8081/msi/token",
        "http://[fe80::1]/token",
        "http://[::1]:1/token",
        "https://identity.example/token",
    ],
)
def test_an_address_nearby_may_be_asked_over_http_and_any_over_https(address: str):
    assert may_be_asked(httpx.URL(address))


@pytest.mark.parametrize(
    "address",
    [
        "http://identity.example/token",
        "http://localhost.example/token",
        "http://169.254.169.254@identity.example/token",
        "http://8.8.8.8/token",
        "http://172.32.0.1/token",
        "http://2130706433/token",
        "http://[2001:db8::1]/token",
        "http:///token",
        "https:///token",
        "ftp://127.0.0.1/token",
        "/token",
    ],
)
def test_an_address_elsewhere_is_not_asked_over_http(address: str):
    assert not may_be_asked(httpx.URL(address))


def test_the_resource_is_the_scope_without_its_default():
    assert resource_of(an_oauth_profile()) == "https://outlook.office365.com"
    assert resource_of(an_oauth_profile(scope="https://outlook.office365.us")) == "https://outlook.office365.us"


@pytest.mark.parametrize("scope", [None, "", "https://a.example/.default https://b.example/.default"])
def test_a_scope_that_is_not_exactly_one_is_told(scope: str | None):
    with pytest.raises(TokenError, match="tocsin oauth set campus --scope") as caught:
        resource_of(an_oauth_profile(scope=scope))
    assert caught.value.permanent


def test_messages_do_not_name_the_token_endpoint_that_a_managed_identity_never_asks():
    assert endpoint_host(an_oauth_profile()) == "login.microsoftonline.com"
    assert "microsoft" not in endpoint_host(an_oauth_profile(grant_type="managed_identity"))
