"""The grants that this release knows. Another one is an adapter of `seam.Grant` and a line in `GRANTS`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.grants.custom import CustomClientCredentials
from tocsin_workers.tokens.grants.microsoft import MicrosoftClientCredentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.seam import Grant

#: By provider and grant type, as they stand in the OAuth profile.
GRANTS: Mapping[tuple[str, str], Grant] = MappingProxyType(
    {
        ("microsoft365", "client_credentials"): MicrosoftClientCredentials(),
        ("custom", "client_credentials"): CustomClientCredentials(),
    }
)


def grant_of(profile: OAuthProfile) -> Grant:
    """Give the adapter for a profile. Raises TokenError (permanent) where this release has none."""
    grant = GRANTS.get((profile.provider, profile.grant_type))
    if grant is None:
        known = ", ".join(f"{provider} with {grant_type}" for provider, grant_type in GRANTS)
        raise TokenError(
            f"OAuth profile {profile.name}: grant {profile.grant_type} of provider {profile.provider}"
            " is not supported.",
            fix=f"Supported are: {known}.",
            permanent=True,
        )
    return grant


def subject_of(profile: OAuthProfile, mailbox: str) -> str:
    """Give the subject of a mailbox's token: its address in lower case where the grant has one, else ""."""
    grant = GRANTS.get((profile.provider, profile.grant_type))
    return mailbox.lower() if grant is not None and grant.per_mailbox else ""
