"""Where a profile's token requests go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from tocsin_schema.errors import TokenError

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
    endpoint = profile.token_endpoint
    if _PLACEHOLDER in endpoint:
        endpoint = endpoint.replace(_PLACEHOLDER, quote(_tenant_id(profile), safe=""))
    parts = _split(profile, endpoint)
    if "{" in endpoint or "}" in endpoint or parts.scheme != "https" or not parts.hostname or parts.username:
        raise _unusable(profile)
    return endpoint


def endpoint_host(profile: OAuthProfile) -> str:
    """Give host and port of the token endpoint, for messages; the whole text where it is not an address."""
    try:
        return urlsplit(profile.token_endpoint).netloc.rpartition("@")[2] or profile.token_endpoint
    except ValueError:
        return profile.token_endpoint


def _tenant_id(profile: OAuthProfile) -> str:
    fix = f"Set it: `tocsin oauth set {profile.name} --tenant-id ID`."
    if not profile.tenant_id:
        raise TokenError(
            f"OAuth profile {profile.name}: the token endpoint wants a tenant id and none is set.",
            fix=fix,
            permanent=True,
        )
    # A tenant is an id or a domain name; anything else could point the path elsewhere.
    if not _TENANT.fullmatch(profile.tenant_id):
        raise TokenError(f"OAuth profile {profile.name}: its tenant id is malformed.", fix=fix, permanent=True)
    return profile.tenant_id


def _split(profile: OAuthProfile, endpoint: str) -> SplitResult:
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError:
        raise _unusable(profile) from None
    return parts


def _unusable(profile: OAuthProfile) -> TokenError:
    return TokenError(
        f"OAuth profile {profile.name}: the token endpoint is not an https address with at most {_PLACEHOLDER} in it.",
        fix=f"Correct it: `tocsin oauth set {profile.name} --token-endpoint URL`.",
        permanent=True,
    )
