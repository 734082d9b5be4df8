"""The grants that this release knows. Another one is an adapter of `seam.Grant` and a line in `GRANTS`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from tocsin_schema.errors import TokenError
from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, GrantType, OAuthProvider
from tocsin_workers.tokens.grants.custom import CustomClientCredentials, CustomJwtBearer, CustomRefreshToken
from tocsin_workers.tokens.grants.google import GoogleJwtBearer, GoogleRefreshToken
from tocsin_workers.tokens.grants.microsoft_client_credentials import MicrosoftClientCredentials
from tocsin_workers.tokens.grants.microsoft_managed_identity import MicrosoftManagedIdentity
from tocsin_workers.tokens.grants.microsoft_sign_in import MicrosoftSignIn
from tocsin_workers.tokens.grants.microsoft_workload_identity import MicrosoftWorkloadIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.seam import Grant

_MICROSOFT: Mapping[str, Grant] = {
    GrantType.CLIENT_CREDENTIALS: MicrosoftClientCredentials(),
    GrantType.WORKLOAD_IDENTITY: MicrosoftWorkloadIdentity(),
    GrantType.MANAGED_IDENTITY: MicrosoftManagedIdentity(),
    GrantType.DEVICE_CODE: MicrosoftSignIn(),
    GrantType.REFRESH_TOKEN: MicrosoftSignIn(),
}

#: By provider and grant type, as they stand in the OAuth profile.
GRANTS: Mapping[tuple[str, str], Grant] = MappingProxyType(
    {
        **{
            (cloud, grant_type): grant for cloud in sorted(MICROSOFT_CLOUDS) for grant_type, grant in _MICROSOFT.items()
        },
        (OAuthProvider.GOOGLE, GrantType.JWT_BEARER): GoogleJwtBearer(),
        (OAuthProvider.GOOGLE, GrantType.REFRESH_TOKEN): GoogleRefreshToken(),
        (OAuthProvider.CUSTOM, GrantType.CLIENT_CREDENTIALS): CustomClientCredentials(),
        (OAuthProvider.CUSTOM, GrantType.JWT_BEARER): CustomJwtBearer(),
        (OAuthProvider.CUSTOM, GrantType.DEVICE_CODE): CustomRefreshToken(),
        (OAuthProvider.CUSTOM, GrantType.REFRESH_TOKEN): CustomRefreshToken(),
    }
)


def grant_of(profile: OAuthProfile) -> Grant:
    """Give the adapter for a profile. Raises TokenError (permanent) where this release has none."""
    if (profile.provider, profile.grant_type) == (OAuthProvider.GOOGLE, GrantType.CLIENT_CREDENTIALS):
        raise _no_client_credentials_at_google(profile)
    grant = GRANTS.get((profile.provider, profile.grant_type))
    if grant is None:
        known = ", ".join(grant_type for provider, grant_type in GRANTS if provider == profile.provider)
        raise TokenError(
            f"OAuth profile {profile.name}: grant {profile.grant_type} of provider {profile.provider}"
            " is not supported.",
            fix=f"Choose one of its own: {known or 'it has none in this release'}.",
            permanent=True,
        )
    return grant


def subject_of(profile: OAuthProfile, mailbox: str) -> str:
    """Give the subject of a mailbox's token: its address in lower case where the grant has one, else ""."""
    grant = GRANTS.get((profile.provider, profile.grant_type))
    return mailbox.lower() if grant is not None and grant.per_mailbox else ""


def _no_client_credentials_at_google(profile: OAuthProfile) -> TokenError:
    return TokenError(
        f"OAuth profile {profile.name}: Google has no client credentials grant for mail; a client id and a secret"
        " alone give no token there.",
        fix="Google has two others: jwt_bearer, with a service account that the domain is delegated to, and"
        " refresh_token, with somebody's sign-in: `tocsin oauth add NAME --provider google --grant jwt_bearer`"
        " (or refresh_token).",
        permanent=True,
    )
