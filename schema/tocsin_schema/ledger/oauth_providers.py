"""Whose token endpoints and which ways to ask there are: the closed sets that profiles and grants are told by."""

from __future__ import annotations

from enum import StrEnum


class OAuthProvider(StrEnum):
    """Whose template an OAuth profile was made from. Each has a row in `oauth_profile_defaults`."""

    MICROSOFT365 = "microsoft365"
    MICROSOFT365_GCC_HIGH = "microsoft365-gcc-high"
    MICROSOFT365_DOD = "microsoft365-dod"
    MICROSOFT365_CHINA = "microsoft365-china"
    GOOGLE = "google"
    CUSTOM = "custom"


MICROSOFT_CLOUDS = frozenset(
    {
        OAuthProvider.MICROSOFT365,
        OAuthProvider.MICROSOFT365_GCC_HIGH,
        OAuthProvider.MICROSOFT365_DOD,
        OAuthProvider.MICROSOFT365_CHINA,
    }
)
"""The worldwide cloud and the national ones: the same protocol at other addresses."""


class GrantType(StrEnum):
    """How a token is asked for."""

    CLIENT_CREDENTIALS = "client_credentials"
    """The application's own token, for a client secret or a certificate (RFC 6749 section 4.4, RFC 7523)."""
    WORKLOAD_IDENTITY = "workload_identity"
    """The same for a token that the platform projects into a file (workload identity federation)."""
    MANAGED_IDENTITY = "managed_identity"
    """The same from the endpoint that Azure gives its own machines."""
    DEVICE_CODE = "device_code"
    """A person signs in at another screen (RFC 8628); from then on the refresh token that came."""
    REFRESH_TOKEN = "refresh_token"  # noqa: S105  # the name of a grant
    """A refresh token that was obtained elsewhere (RFC 6749 section 6)."""
    JWT_BEARER = "jwt_bearer"
    """A signed assertion in the mailbox's name (RFC 7523; Google: domain-wide delegation)."""


SIGN_IN_GRANTS = frozenset({GrantType.DEVICE_CODE, GrantType.REFRESH_TOKEN})
"""Those that live on a refresh token: a mailbox whose person has not signed in gets none."""

DEFAULT_TOKEN_FILE = "/var/run/secrets/azure/tokens/azure-identity-token"  # noqa: S105  # a path
"""Where the webhook of Azure Workload Identity mounts a pod's token, for profiles that name no other file."""
