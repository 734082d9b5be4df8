"""Where a profile's requests go: its token endpoint, and the one that gives codes to sign in with elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from tocsin_schema.errors import TokenError
from tocsin_schema.ledger.oauth_providers import GrantType

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

_PLACEHOLDER = "{tenantId}"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def token_endpoint(profile: OAuthProfile) -> str:
    """Give the token endpoint with `{tenantId}` filled in.

    Raises TokenError (permanent) where the tenant id is missing or malformed, another placeholder stands in the
    address, or it is not https.
    """
    return _filled_in(profile, profile.token_endpoint, "token endpoint")


def device_endpoint(profile: OAuthProfile) -> str:
    """Give the device authorization endpoint (RFC 8628 section 3.1) with `{tenantId}` filled in.

    Raises TokenError (permanent) as `token_endpoint`, and where the profile has none.
    """
    if not profile.device_endpoint:
        raise TokenError(
            f"OAuth profile {profile.name}: it has no device endpoint.",
            fix=f"Set it: `tocsin oauth set {profile.name} --device-endpoint URL`.",
            permanent=True,
        )
    return _filled_in(profile, profile.device_endpoint, "device endpoint")


def endpoint_host(profile: OAuthProfile) -> str:
    """Give host and port of the token endpoint, for messages; the whole text where it is not an address.

    A managed identity has none of its own: the machine that we run on names it.
    """
    if profile.grant_type == GrantType.MANAGED_IDENTITY:
        return "this machine's managed identity endpoint"
    try:
        return urlsplit(profile.token_endpoint).netloc.rpartition("@")[2] or profile.token_endpoint
    except ValueError:
        return profile.token_endpoint


def _filled_in(profile: OAuthProfile, endpoint: str, what: str) -> str:
    if _PLACEHOLDER in endpoint:
        endpoint = endpoint.replace(_PLACEHOLDER, quote(_tenant_id(profile, what), safe=""))
    parts = _split(profile, endpoint, what)
    if "{" in endpoint or "}" in endpoint or parts.scheme != "https" or not parts.hostname or parts.username:
        raise _unusable(profile, what)
    return endpoint


def _tenant_id(profile: OAuthProfile, what: str) -> str:
    fix = f"Set it: `tocsin oauth set {profile.name} --tenant-id ID`."
    if not profile.tenant_id:
        raise TokenError(
            f"OAuth profile {profile.name}: the {what} wants a tenant id and none is set.",
            fix=fix,
            permanent=True,
        )
    # A tenant is an id or a domain name; anything else could point the path elsewhere.
    if not _TENANT.fullmatch(profile.tenant_id):
        raise TokenError(f"OAuth profile {profile.name}: its tenant id is malformed.", fix=fix, permanent=True)
    return profile.tenant_id


def _split(profile: OAuthProfile, endpoint: str, what: str) -> SplitResult:
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError:
        raise _unusable(profile, what) from None
    return parts


def _unusable(profile: OAuthProfile, what: str) -> TokenError:
    return TokenError(
        f"OAuth profile {profile.name}: the {what} is not an https address with at most {_PLACEHOLDER} in it.",
        fix=f"Correct it: `tocsin oauth set {profile.name} --{what.replace(' ', '-')} URL`.",
        permanent=True,
    )
