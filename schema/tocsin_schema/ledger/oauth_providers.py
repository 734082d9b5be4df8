"""Whose token endpoints and which ways to ask there are: the closed sets that profiles and grants are told by."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class OAuthProvider(StrEnum):
    """Whose template an OAuth profile was made from. Each has a row in `oauth_profile_defaults`."""

    MICROSOFT365 = "microsoft365"
    MICROSOFT365_GCC_HIGH = "microsoft365-gcc-high"
    MICROSOFT365_DOD = "microsoft365-dod"
    MICROSOFT365_CHINA = "microsoft365-china"
    GOOGLE = "google"
    CUSTOM = "custom"


_EXCHANGE_ONLINE: Mapping[OAuthProvider, tuple[str, ...]] = MappingProxyType(
    {
        OAuthProvider.MICROSOFT365: ("https://outlook.office365.com", "https://outlook.office.com"),
        OAuthProvider.MICROSOFT365_GCC_HIGH: ("https://outlook.office365.us",),
        OAuthProvider.MICROSOFT365_DOD: ("https://outlook-dod.office365.us",),
        OAuthProvider.MICROSOFT365_CHINA: ("https://partner.outlook.cn",),
    }
)
"""What Exchange Online is called in each cloud's scopes and tokens: the first name in an application's scope, the last
in a person's. `oauth_profile_defaults` says the same."""

MICROSOFT_CLOUDS = frozenset(_EXCHANGE_ONLINE)
"""The worldwide cloud and the national ones: the same protocol at other addresses."""

GOOGLE_SCOPE = "https://mail.google.com/"
"""The one scope that Gmail's SMTP takes; gmail.send and the like are for Google's HTTP API."""


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


def usual_scope(provider: str, *, acts_for_person: bool) -> str | None:
    """Give the scope that a provider's SMTP takes; None where there is none that we know.

    `acts_for_person` says that somebody signs in, so that the token is not the application's own.
    """
    if provider == OAuthProvider.GOOGLE:
        return GOOGLE_SCOPE
    if provider not in MICROSOFT_CLOUDS:
        return None
    names = exchange_online(provider)
    return f"{names[-1]}/SMTP.Send" if acts_for_person else f"{names[0]}/.default"


def exchange_online(provider: str) -> tuple[str, ...]:
    """Give the names of a cloud's Exchange Online; those of the worldwide one for whoever has no cloud of their own."""
    cloud = OAuthProvider(provider) if provider in MICROSOFT_CLOUDS else OAuthProvider.MICROSOFT365
    return _EXCHANGE_ONLINE[cloud]
