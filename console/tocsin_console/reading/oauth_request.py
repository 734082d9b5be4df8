"""From what an operator asked for, and the provider's defaults, to an OAuth profile: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from tocsin_console.reading.oauth_rules import (
    Extra,
    Fit,
    Proof,
    check_no_stored_secret_moves,
    check_profile,
    check_tenant_is_used,
    check_what_is_given,
    checked_grant,
    fit_of,
    forgotten_proofs,
    stored_proofs,
    usual_scope,
    what_is_missing,
)
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.oauth_profiles import NewOAuthProfile, OAuthProfile
from tocsin_schema.ledger.oauth_providers import GrantType, OAuthProvider
from tocsin_schema.ledger.sending_profile_rules import checked_name

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_console.reading.oauth_credentials import ServiceAccount
    from tocsin_schema.ledger.oauth_profiles import OAuthDefaults


class ClientAuth(StrEnum):
    """Where a client secret goes: into the body or a Basic header (RFC 6749 section 2.3.1)."""

    POST = "post"
    BASIC = "basic"

    @property
    def stored(self) -> str:
        """Give the method's registered name, as the ledger holds it."""
        return f"client_secret_{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthRequest:
    """What an operator asked for; None is what they said nothing about, an empty text takes away.

    The secrets travel beside it: `gives` says which of them come along.
    """

    grant: GrantType | None = None
    token_endpoint: str | None = None
    scope: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_auth: ClientAuth | None = None
    device_endpoint: str | None = None
    token_file: str | None = None
    key_id: str | None = None
    ca_pem: str | None = None
    forget_ca: bool = False
    secret_expires_at: datetime | None = None
    forget_secret_expiry: bool = False
    service_account: ServiceAccount | None = None
    gives: frozenset[Proof] = field(default_factory=frozenset[Proof])

    @property
    def is_anything(self) -> bool:
        """Whether anything was asked for at all."""
        return self != OAuthRequest()

    @property
    def extras(self) -> frozenset[Extra]:
        """The options given that some grants only have a use for."""
        given = {
            Extra.CLIENT_AUTH: self.client_auth,
            Extra.DEVICE_ENDPOINT: self.device_endpoint,
            Extra.TOKEN_FILE: self.token_file,
            Extra.KEY_ID: self.key_id,
        }
        return frozenset(extra for extra, value in given.items() if value)


@dataclass(frozen=True, slots=True)
class Planned:
    """A new profile as it shall be, and the secrets to ask for beside those that come along."""

    profile: NewOAuthProfile
    asks: tuple[Proof, ...]


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A profile as it shall be after a change, and the secrets to ask for beside those that come along.

    `forgets` are the stored ones that it has no use for any more.
    """

    profile: OAuthProfile
    asks: tuple[Proof, ...]
    forgets: frozenset[Proof]


def new_profile(name: str, request: OAuthRequest, defaults: OAuthDefaults) -> Planned:
    """Make a new profile of what was asked for, and of the provider's defaults for the rest. Raises UsageError."""
    account = request.service_account
    asked = request.grant or (GrantType.JWT_BEARER if account is not None else None)
    grant = checked_grant(asked, request.gives, defaults)
    fit = fit_of(OAuthProvider(defaults.provider), grant)
    check_what_is_given(fit, grant, gives=request.gives, extras=request.extras, title=defaults.title)
    asks = what_is_missing(fit, request.gives)
    profile = NewOAuthProfile(
        name=checked_name(name, "an OAuth profile"),
        provider=defaults.provider,
        grant_type=grant.value,
        token_endpoint=_endpoint(
            request.token_endpoint or (account.token_uri if account is not None else None) or defaults.token_endpoint
        ),
        scope=request.scope or usual_scope(defaults, grant),
        tenant_id=request.tenant_id or None,
        client_id=(account.client_email if account is not None else request.client_id) or None,
        ca_pem=request.ca_pem,
        client_auth=(request.client_auth or ClientAuth.POST).stored,
        device_endpoint=request.device_endpoint or None,
        key_id=(account.key_id if account is not None else request.key_id) or None,
        delegation_client_id=account.client_id if account is not None else None,
        token_file=request.token_file or None,
        secret_expires_at=request.secret_expires_at,
    )
    check_profile(defaults, profile, fit)
    check_tenant_is_used(defaults, profile)
    _check_expiry(request, has_secret=Proof.CLIENT_SECRET in request.gives or Proof.CLIENT_SECRET in asks)
    return Planned(profile, tuple(asks))


def changed_profile(before: OAuthProfile, request: OAuthRequest, defaults: OAuthDefaults) -> PlannedChange:
    """Change what was asked for and leave the rest. Raises UsageError."""
    account = request.service_account
    old_grant = GrantType(before.grant_type)
    grant = old_grant if request.grant is None else _grant_at(request.grant, defaults)
    fit = fit_of(OAuthProvider(before.provider), grant)
    check_what_is_given(fit, grant, gives=request.gives, extras=request.extras, title=defaults.title)
    asks = () if grant is old_grant else what_is_missing(fit, request.gives | _stored(before))
    gives = request.gives | set(asks)
    forgets = forgotten_proofs(before, replace(before, grant_type=grant.value), gives)
    gives_secret = Proof.CLIENT_SECRET in gives
    # What was known of the old secret's end does not hold for another one.
    forgets_expiry = request.forget_secret_expiry or gives_secret or Proof.CLIENT_SECRET in forgets
    # Another key has another id.
    is_other_key = Proof.PRIVATE_KEY in gives | forgets
    key_id, delegation_client_id = (None, None) if is_other_key else (before.key_id, before.delegation_client_id)
    if account is not None:
        key_id, delegation_client_id = account.key_id, account.client_id
    usual_before = usual_scope(defaults, old_grant)
    scope = usual_scope(defaults, grant) if before.scope == usual_before else before.scope
    after = replace(
        before,
        grant_type=grant.value,
        token_endpoint=request.token_endpoint or before.token_endpoint,
        scope=_changed(scope, request.scope),
        tenant_id=_changed(before.tenant_id, request.tenant_id),
        client_id=account.client_email if account is not None else _changed(before.client_id, request.client_id),
        ca_pem=None if request.forget_ca else request.ca_pem or before.ca_pem,
        client_auth=before.client_auth if request.client_auth is None else request.client_auth.stored,
        device_endpoint=_kept(fit, Extra.DEVICE_ENDPOINT, _changed(before.device_endpoint, request.device_endpoint)),
        token_file=_kept(fit, Extra.TOKEN_FILE, _changed(before.token_file, request.token_file)),
        key_id=_changed(key_id, request.key_id),
        delegation_client_id=delegation_client_id,
        secret_expires_at=request.secret_expires_at or (None if forgets_expiry else before.secret_expires_at),
    )
    check_profile(defaults, after, fit)
    if request.tenant_id:
        check_tenant_is_used(defaults, after)
    check_no_stored_secret_moves(before, after, gives)
    _check_expiry(request, has_secret=Proof.CLIENT_SECRET in (stored_proofs(before) | gives) - forgets)
    return PlannedChange(after, tuple(asks), forgets)


def check_takes_secret(profile: OAuthProfile) -> None:
    """Refuse to replace a client secret that is not used. Raises UsageError."""
    grant = GrantType(profile.grant_type)
    fit = fit_of(OAuthProvider(profile.provider), grant)
    if Proof.CLIENT_SECRET not in fit.takes:
        raise UsageError(
            f"The OAuth profile {profile.name!r} has no use for a client secret (grant: {grant}).",
            fix=_instead_of_a_secret(profile, grant),
            scope=Scope.OAUTH_PROFILE,
        )

    if fit.needs_certificate and profile.private_key_set_at is not None:
        raise UsageError(
            f"The OAuth profile {profile.name!r} proves itself with its certificate and has no client secret.",
            fix=f"To use a secret instead: `tocsin oauth set {profile.name} --client-secret-file F`.",
            scope=Scope.OAUTH_PROFILE,
        )


def _instead_of_a_secret(profile: OAuthProfile, grant: GrantType) -> str:
    if grant is GrantType.DEVICE_CODE:
        return f"Sign in anew with `tocsin oauth acquire {profile.name}`."
    if grant is GrantType.JWT_BEARER:
        file = "--service-account-file" if profile.provider == OAuthProvider.GOOGLE else "--private-key-file"
        return f"Give it another key with `tocsin oauth set {profile.name} {file} F`."
    return "It proves itself by where it runs; there is nothing to replace."


def _grant_at(grant: GrantType, defaults: OAuthDefaults) -> GrantType:
    # Whatever is missing of it is asked for, or refused, afterwards.
    return checked_grant(grant, frozenset({Proof.PRIVATE_KEY}), defaults)


def _stored(profile: OAuthProfile) -> frozenset[Proof]:
    """Give what the profile has; sign-ins are no part of it, and can be added at any time."""
    return stored_proofs(profile) | {Proof.REFRESH_TOKEN}


def _check_expiry(request: OAuthRequest, *, has_secret: bool) -> None:
    if request.secret_expires_at is not None and not has_secret:
        raise UsageError(
            "--secret-expires is of no use: the OAuth profile has no client secret.",
            fix="Leave it out. Of a certificate the end is read from the certificate.",
            scope=Scope.OAUTH_PROFILE,
        )


def _changed(before: str | None, asked: str | None) -> str | None:
    return before if asked is None else asked or None


def _kept(fit: Fit, extra: Extra, value: str | None) -> str | None:
    return value if extra in fit.extras else None


def _endpoint(url: str | None) -> str:
    if not url:
        raise UsageError(
            "There is no token endpoint, and this provider has no default.",
            fix="Give --token-endpoint URL.",
            scope=Scope.OAUTH_PROFILE,
        )
    return url
