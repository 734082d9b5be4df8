"""What an OAuth profile may be: pure decisions, made before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never
from urllib.parse import urlsplit
from uuid import UUID

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, GrantType, OAuthProvider

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from tocsin_schema.ledger.oauth_profiles import NewOAuthProfile, OAuthDefaults, OAuthProfile

TENANT_TAG = "{tenantId}"
"""Filled in with the tenant id at run time."""

MICROSOFT_TOKEN_PATH = "/oauth2/v2.0/token"  # noqa: S105  # a path
"""How every token endpoint of Microsoft's ends, in all clouds: MSAL makes the other addresses out of it
(learn.microsoft.com/entra/identity-platform/authentication-national-cloud)."""

_HTTPS_PORT = 443
_LONGEST_TEXT = 2000


class Proof(StrEnum):
    """What a profile proves itself with: the secrets that it may hold."""

    CLIENT_SECRET = "client secret"  # noqa: S105  # what it is called
    PRIVATE_KEY = "private key"
    REFRESH_TOKEN = "refresh token"  # noqa: S105  # what it is called


class Extra(StrEnum):
    """Options that some grants only have a use for, by their flag."""

    CLIENT_AUTH = "--client-auth"
    DEVICE_ENDPOINT = "--device-endpoint"
    TOKEN_FILE = "--token-file"  # noqa: S105  # a flag
    KEY_ID = "--key-id"


_FLAGS = {
    Proof.CLIENT_SECRET: "--client-secret-file",
    Proof.PRIVATE_KEY: "--certificate-file, --private-key-file and --service-account-file",
    Proof.REFRESH_TOKEN: "--refresh-token-file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a grant takes at a provider, and what it cannot do without."""

    takes: frozenset[Proof] = frozenset()
    needs: tuple[frozenset[Proof], ...] = ()
    """Of each set, one."""
    extras: frozenset[Extra] = frozenset()
    needs_client_id: bool = True
    needs_certificate: bool = False
    """Whether a private key is of no use without its certificate, and does in place of a client secret."""
    needs_rsa: bool = False
    """Whether the provider takes no other keys."""
    asks_endpoint: bool = True
    """Whether the token endpoint is asked at all."""


_SECRET = frozenset({Proof.CLIENT_SECRET})
_KEY = frozenset({Proof.PRIVATE_KEY})
_REFRESH_TOKEN = frozenset({Proof.REFRESH_TOKEN})
_CLIENT_AUTH = frozenset({Extra.CLIENT_AUTH})

_AT_MICROSOFT = {
    GrantType.CLIENT_CREDENTIALS: Fit(
        takes=_SECRET | _KEY, needs=(_SECRET | _KEY,), needs_certificate=True, needs_rsa=True
    ),
    GrantType.WORKLOAD_IDENTITY: Fit(extras=frozenset({Extra.TOKEN_FILE})),
    GrantType.MANAGED_IDENTITY: Fit(needs_client_id=False, asks_endpoint=False),
    GrantType.DEVICE_CODE: Fit(),
    GrantType.REFRESH_TOKEN: Fit(
        takes=_SECRET | _KEY | _REFRESH_TOKEN, needs=(_REFRESH_TOKEN,), needs_certificate=True, needs_rsa=True
    ),
}
_AT_GOOGLE = {
    GrantType.JWT_BEARER: Fit(takes=_KEY, needs=(_KEY,), extras=frozenset({Extra.KEY_ID}), needs_rsa=True),
    GrantType.REFRESH_TOKEN: Fit(takes=_SECRET | _REFRESH_TOKEN, needs=(_SECRET, _REFRESH_TOKEN)),
}
_ELSEWHERE = {
    GrantType.CLIENT_CREDENTIALS: Fit(takes=_SECRET, needs=(_SECRET,), extras=_CLIENT_AUTH),
    GrantType.DEVICE_CODE: Fit(takes=_SECRET, extras=_CLIENT_AUTH | {Extra.DEVICE_ENDPOINT}),
    GrantType.REFRESH_TOKEN: Fit(takes=_SECRET | _REFRESH_TOKEN, needs=(_REFRESH_TOKEN,), extras=_CLIENT_AUTH),
    GrantType.JWT_BEARER: Fit(takes=_SECRET | _KEY, needs=(_KEY,), extras=_CLIENT_AUTH | {Extra.KEY_ID}),
}


def fit_of(provider: OAuthProvider, grant: GrantType) -> Fit:
    """Say what a grant takes at a provider. Raises UsageError where the provider has no such grant."""
    fits = _AT_MICROSOFT if provider in MICROSOFT_CLOUDS else _AT_GOOGLE
    if provider is OAuthProvider.CUSTOM:
        fits = _ELSEWHERE
    if grant not in fits:
        raise _refused(f"the provider {provider} has no grant {grant}", f"Choose one of {', '.join(fits)}.")
    return fits[grant]


def checked_grant(asked: GrantType | None, gives: AbstractSet[Proof], defaults: OAuthDefaults) -> GrantType:
    """Give the grant of a new profile: the one asked for, else what its credentials are for, else the usual one.

    Raises UsageError where the provider does not know it.
    """
    is_google = defaults.provider == OAuthProvider.GOOGLE
    implied = GrantType.REFRESH_TOKEN if Proof.REFRESH_TOKEN in gives else None
    grant = asked or implied or GrantType(defaults.grant_type)
    if is_google and (
        grant is GrantType.CLIENT_CREDENTIALS or (grant is GrantType.JWT_BEARER and Proof.PRIVATE_KEY not in gives)
    ):
        raise google_has_no_such_grant()
    if grant.value not in defaults.grants:
        raise _refused(f"{defaults.title} has no grant {grant}", f"Choose one of {', '.join(defaults.grants)}.")
    return grant


def google_has_no_such_grant() -> UsageError:
    """Say which two ways Google offers instead of a client id and secret alone."""
    return UsageError(
        "Google has no client credentials grant for mail: a client id and secret alone give no token for Gmail.",
        fix=(
            "There are two ways. A service account with domain-wide delegation:"
            " `tocsin oauth add NAME --provider google --service-account-file key.json`."
            " Or a refresh token from a one-time consent:"
            " `tocsin oauth add NAME --provider google --grant refresh_token --client-id C"
            " --client-secret-file secret.txt --refresh-token-file token.txt --user MAILBOX`."
        ),
        scope=Scope.OAUTH_PROFILE,
    )


def usual_scope(defaults: OAuthDefaults, grant: GrantType) -> str | None:
    """Give the provider's scope for a grant: another one where it acts in the name of a person."""
    match grant:
        case GrantType.DEVICE_CODE | GrantType.REFRESH_TOKEN | GrantType.JWT_BEARER:
            return defaults.delegated_scope
        case GrantType.CLIENT_CREDENTIALS | GrantType.WORKLOAD_IDENTITY | GrantType.MANAGED_IDENTITY:
            return defaults.scope
        case _:
            assert_never(grant)


def check_what_is_given(
    fit: Fit, grant: GrantType, *, gives: AbstractSet[Proof], extras: AbstractSet[Extra], title: str
) -> None:
    """Refuse what was given and is of no use. Raises UsageError."""
    for proof in Proof:
        if proof in gives - fit.takes:
            raise _refused(
                f"a {proof} is of no use with the grant {grant} at {title}",
                f"Leave {_FLAGS[proof]} out, or choose another --grant.",
            )
    for extra in Extra:
        if extra in extras - fit.extras:
            raise _refused(
                f"{extra} is of no use with the grant {grant} at {title}", "Leave it out, or choose another --grant."
            )
    if fit.needs_certificate and {Proof.CLIENT_SECRET, Proof.PRIVATE_KEY} <= gives:
        raise _refused("it proves itself with a client secret or with a certificate, not both", "Leave one out.")


def what_is_missing(fit: Fit, present: AbstractSet[Proof]) -> list[Proof]:
    """Give the secrets that are still to be asked for. Raises UsageError for a key, which nobody types."""
    missing: list[Proof] = []
    for choice in fit.needs:
        if not choice & present:
            asked = next((proof for proof in (Proof.CLIENT_SECRET, Proof.REFRESH_TOKEN) if proof in choice), None)
            if asked is None:
                raise _refused("there is no private key", "Give --private-key-file, or --service-account-file.")
            missing.append(asked)
    return missing


def check_profile(defaults: OAuthDefaults, profile: NewOAuthProfile | OAuthProfile, fit: Fit) -> None:
    """Refuse a profile that could never get a token, or would send its secret in clear. Raises UsageError."""
    check_endpoint(profile.token_endpoint, "token endpoint")
    if profile.provider in MICROSOFT_CLOUDS and not profile.token_endpoint.endswith(MICROSOFT_TOKEN_PATH):
        raise _refused(
            f"its token endpoint is none of {defaults.title}'s: they end in {MICROSOFT_TOKEN_PATH}",
            f"Leave --token-endpoint out, or write https://HOST/{TENANT_TAG}{MICROSOFT_TOKEN_PATH}.",
        )
    if profile.device_endpoint is not None:
        check_endpoint(profile.device_endpoint, "device endpoint")
    elif Extra.DEVICE_ENDPOINT in fit.extras:
        raise _refused("there is no device endpoint, where the code comes from", "Give --device-endpoint URL.")
    endpoints = profile.token_endpoint + (profile.device_endpoint or "")
    if fit.asks_endpoint and TENANT_TAG in endpoints and not profile.tenant_id:
        raise _refused(f"its endpoint holds {TENANT_TAG}, and there is no tenant id", "Give --tenant-id.")
    if fit.needs_client_id and not profile.client_id:
        raise _refused("there is no client id", "Give --client-id.")
    _check_ids(defaults, profile)
    for flag, value in (
        ("--scope", profile.scope),
        ("--client-id", profile.client_id),
        ("--tenant-id", profile.tenant_id),
        ("--key-id", profile.key_id),
        ("--token-file", profile.token_file),
    ):
        if value and (len(value) > _LONGEST_TEXT or not value.isprintable()):
            raise _refused(f"{flag} is too long or holds a control character", "Copy it again.")
    if profile.token_file and not profile.token_file.startswith("/"):
        raise _refused(
            "--token-file is not a full path, and workers start elsewhere", "Write it from / on, as workers see it."
        )


def check_tenant_is_used(defaults: OAuthDefaults, profile: NewOAuthProfile | OAuthProfile) -> None:
    """Refuse a tenant id that would go nowhere. Raises UsageError."""
    endpoints = profile.token_endpoint + (profile.device_endpoint or "")
    if profile.tenant_id and not defaults.wants_tenant and TENANT_TAG not in endpoints:
        raise _refused(
            f"--tenant-id is of no use: its endpoint does not hold {TENANT_TAG}",
            f"Leave it out, or write {TENANT_TAG} where it belongs in --token-endpoint.",
        )


def check_endpoint(url: str, what: str) -> None:
    """Refuse an endpoint that is not https, or cannot be read. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _refused(f"its {what} cannot be read as a URL", "Write https://host/path.") from None
    if parts.scheme != "https":
        raise _refused(f"its {what} is not https, and secrets would travel in clear", "Write https://…")
    if not host or not url.isascii() or not url.isprintable() or " " in url or len(url) > _LONGEST_TEXT:
        raise _refused(f"its {what} cannot be read as a URL", "Write https://host/path.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _refused(f"its {what} holds a user name, a password or a fragment", "Write https://host/path alone.")
    if "{" in url.replace(TENANT_TAG, "") or TENANT_TAG in (parts.netloc or ""):
        raise _refused(f"its {what} holds a tag other than {TENANT_TAG}, or one in the host", "Correct it.")


def secrets_would_move(old: OAuthProfile, new: OAuthProfile) -> bool:
    """Whether what was stored for one host would go to another, or be signed for it."""
    return not _origins(new) <= _origins(old)


def stored_proofs(profile: OAuthProfile) -> frozenset[Proof]:
    """Give the secrets that a profile holds itself; sign-ins are a mailbox's."""
    stored = {
        Proof.CLIENT_SECRET: profile.secret_set_at is not None,
        Proof.PRIVATE_KEY: profile.private_key_set_at is not None,
    }
    return frozenset(proof for proof, is_stored in stored.items() if is_stored)


def forgotten_proofs(before: OAuthProfile, after: OAuthProfile, gives: AbstractSet[Proof]) -> frozenset[Proof]:
    """Give the stored secrets that a change makes useless: its grant does not take them, or another stands in."""
    fit = fit_of(OAuthProvider(after.provider), GrantType(after.grant_type))
    useless = frozenset(Proof) - fit.takes
    if fit.needs_certificate:
        useless |= _KEY if Proof.CLIENT_SECRET in gives else _SECRET if Proof.PRIVATE_KEY in gives else frozenset()
    return stored_proofs(before) & useless


def check_no_stored_secret_moves(before: OAuthProfile, after: OAuthProfile, gives: AbstractSet[Proof]) -> None:
    """Refuse a change by which a stored secret or key would serve another host. Raises UsageError."""
    if not secrets_would_move(before, after):
        return
    for proof in Proof:
        if proof in stored_proofs(before) - forgotten_proofs(before, after, gives) - gives:
            raise UsageError(
                f"The endpoint is on another host, and the stored {proof} does not go there by itself.",
                fix=f"Give the {proof} for it again ({_FLAGS[proof]}), or add another OAuth profile.",
                scope=Scope.OAUTH_PROFILE,
            )


def check_nobody_changed_it(before: OAuthProfile, now: OAuthProfile) -> None:
    """Refuse to store a secret that was given for what the profile was before. Raises UsageError."""
    is_the_same = now.id == before.id and now.grant_type == before.grant_type
    if is_the_same and not secrets_would_move(before, now):
        return
    raise UsageError(
        f"Somebody else changed the OAuth profile {now.name!r} meanwhile; it now asks {now.token_endpoint} "
        f"({now.grant_type}), not {before.token_endpoint} ({before.grant_type}).",
        fix="Nothing was stored. Look at it, and give the secret for its endpoint again.",
        scope=Scope.OAUTH_PROFILE,
    )


def _check_ids(defaults: OAuthDefaults, profile: NewOAuthProfile | OAuthProfile) -> None:
    for flag, value in (("--tenant-id", profile.tenant_id), ("--client-id", profile.client_id)):
        if defaults.guid_ids and value and not _is_guid(value):
            raise _refused(
                f"{flag} {value[:60]!r} is not a GUID, as {defaults.title} gives them",
                "Copy it from the application's overview; it looks like 8f7c1a52-3b0d-4f6e-9a41-0c2d5e7b9a10.",
            )
    tenant_id = profile.tenant_id
    if tenant_id and not all(character.isalnum() or character in ".-_" for character in tenant_id):
        raise _refused(f"--tenant-id {tenant_id[:60]!r} cannot stand in a URL", "Give the tenant's id.")
    is_service_account = profile.provider == OAuthProvider.GOOGLE and profile.grant_type == GrantType.JWT_BEARER
    if is_service_account and "@" not in (profile.client_id or ""):
        raise _refused(
            "Google knows a service account by its address, and --client-id is none",
            "Give client_email of the service account's key file, or the file itself with --service-account-file.",
        )


def _origins(profile: OAuthProfile) -> set[tuple[str | None, int]]:
    """Give the hosts that see the profile's secrets."""
    urls = [urlsplit(url) for url in (profile.token_endpoint, profile.device_endpoint) if url is not None]
    return {(parts.hostname, parts.port or _HTTPS_PORT) for parts in urls}


def _is_guid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _refused(why: str, fix: str) -> UsageError:
    return UsageError(f"This OAuth profile cannot be: {why}.", fix=fix, scope=Scope.OAUTH_PROFILE)
