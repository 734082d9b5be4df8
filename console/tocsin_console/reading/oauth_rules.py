"""What an OAuth profile may be: pure decisions, made before anything is written."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from tocsin_schema.errors import Scope, UsageError

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthDefaults, OAuthProfile

TENANT_TAG = "{tenantId}"
"""Filled in with the tenant id at run time."""

_LONGEST_TEXT = 2000


class Grant(StrEnum):
    """The OAuth grants that a profile can use."""

    CLIENT_CREDENTIALS = "client_credentials"
    """RFC 6749 section 4.4: the application's own id and secret."""


def checked_grant(asked: Grant | None, defaults: OAuthDefaults) -> Grant:
    """Give the grant of a new profile: the one asked for, else the provider's usual one.

    Raises UsageError where the provider does not know it, or this release does not.
    """
    if defaults.provider == "google":
        raise UsageError(
            "Google has no client-credentials grant: a client id and secret alone give no token for Gmail.",
            fix=(
                "The two ways that Google offers, a service account with domain-wide delegation and a refresh token"
                " from a one-time consent, are not in this release yet. Until then use an app password"
                " (`tocsin profile add NAME --provider google --auth basic`)."
            ),
            scope=Scope.OAUTH_PROFILE,
        )
    if asked is not None:
        return asked
    try:
        return Grant(defaults.grant_type)
    except ValueError:
        raise _refused(
            f"{defaults.title} uses the grant {defaults.grant_type}, which this release does not know",
            f"The grants are: {', '.join(Grant)}.",
        ) from None


def check_profile(
    defaults: OAuthDefaults, *, token_endpoint: str, tenant_id: str | None, client_id: str | None, scope: str | None
) -> None:
    """Refuse a profile that could never get a token, or would send its secret in clear. Raises UsageError."""
    check_endpoint(token_endpoint)
    if TENANT_TAG in token_endpoint and not tenant_id:
        raise _refused(f"the token endpoint holds {TENANT_TAG}, and there is no tenant id", "Give --tenant-id.")
    if not client_id:
        raise _refused("there is no client id", "Give --client-id.")
    for flag, value in (("--tenant-id", tenant_id), ("--client-id", client_id)):
        if defaults.guid_ids and value and not _is_guid(value):
            raise _refused(
                f"{flag} {value[:60]!r} is not a GUID, as {defaults.title} gives them",
                "Copy it from the application's overview; it looks like 8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10.",
            )
    for flag, value in (("--scope", scope), ("--client-id", client_id), ("--tenant-id", tenant_id)):
        if value and (len(value) > _LONGEST_TEXT or not value.isprintable()):
            raise _refused(f"{flag} is too long or holds a control character", "Copy it again.")
    if tenant_id and not all(character.isalnum() or character in ".-_" for character in tenant_id):
        raise _refused(f"--tenant-id {tenant_id[:60]!r} cannot stand in a URL", "Give the tenant's id.")


def check_endpoint(url: str) -> None:
    """Refuse a token endpoint that is not https, or cannot be read. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _refused("its token endpoint cannot be read as a URL", "Write https://host/path.") from None
    if parts.scheme != "https":
        raise _refused("its token endpoint is not https, and the secret would travel in clear", "Write https://…")
    if not host or not url.isascii() or not url.isprintable() or " " in url or len(url) > _LONGEST_TEXT:
        raise _refused("its token endpoint cannot be read as a URL", "Write https://host/path.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _refused(
            "its token endpoint holds a user name, a password or a fragment", "Write https://host/path alone."
        )
    if "{" in url.replace(TENANT_TAG, "") or TENANT_TAG in (parts.netloc or ""):
        raise _refused(f"its token endpoint holds a tag other than {TENANT_TAG}, or one in the host", "Correct it.")


def secret_must_be_given_again(old: OAuthProfile, token_endpoint: str) -> bool:
    """Whether the stored client secret would go to another host than the one it was given for."""
    return _origin(old.token_endpoint) != _origin(token_endpoint)


def _origin(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port


def _is_guid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _refused(why: str, fix: str) -> UsageError:
    return UsageError(f"This OAuth profile cannot be: {why}.", fix=fix, scope=Scope.OAUTH_PROFILE)
