"""From what an operator asked for, and the provider's defaults, to a sending profile: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, assert_never

from tocsin_console.reading.addresses import read_address
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.sending_profile_rules import (
    NO_TENANT_ASKED,
    AskedLimits,
    AskedTenant,
    Auth,
    Copies,
    PasswordSource,
    ProfileDraft,
    ProfilePipelining,
    Tls,
    checked_host,
    checked_name,
)

if TYPE_CHECKING:
    from tocsin_schema.ledger.installation_settings import SharedLogin
    from tocsin_schema.ledger.sending_profiles import SendingDefaults

_LONGEST_LOGIN = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """What an operator asked for; None is what they said nothing about. The password travels beside it."""

    host: str | None = None
    port: int | None = None
    tls: Tls | None = None
    from_address: str | None = None
    auth: Auth | None = None
    oauth_profile: str | None = None
    login: str | None = None
    ca_pem: str | None = None
    forget_ca: bool = False
    allow_plaintext_auth: bool | None = None
    batch_size: int | None = None
    copies: Copies | None = None
    pipelining: ProfilePipelining | None = None
    tenant: AskedTenant = NO_TENANT_ASKED
    limits: AskedLimits = field(default_factory=AskedLimits)
    gives_password: bool = False

    @property
    def is_anything(self) -> bool:
        """Whether anything was asked for at all."""
        return self != ProfileRequest()


def new_draft(name: str, request: ProfileRequest, defaults: SendingDefaults) -> ProfileDraft:
    """Make a new profile of what was asked for, and of the provider's defaults for the rest. Raises UsageError."""
    host = request.host or defaults.host
    if host is None:
        raise UsageError(
            f"There is no mail server, and the provider {defaults.provider} has no default.",
            fix="Give --host H.",
            scope=Scope.PROFILE,
        )
    if request.from_address is None:
        raise UsageError("There is no sender.", fix="Give --from ADDRESS.", scope=Scope.PROFILE)
    from_address = read_address(request.from_address, "--from")
    default_tls = Tls(defaults.tls)
    tls = request.tls or default_tls
    return ProfileDraft(
        name=checked_name(name, "a sending profile"),
        provider=defaults.provider,
        host=checked_host(host),
        port=request.port or (defaults.port if tls is default_tls else usual_port(tls)),
        tls=tls,
        auth=_implied_auth(request) or Auth(defaults.auth),
        from_address=from_address,
        oauth_profile=request.oauth_profile,
        login=checked_login(request.login or from_address),
        ca_pem=request.ca_pem,
        allow_plaintext_auth=bool(request.allow_plaintext_auth),
        batch_size=request.batch_size or defaults.batch_size,
        copies=request.copies or Copies.REFERENCE,
        pipelining=request.pipelining or ProfilePipelining.ENVELOPE,
    )


def changed_draft(before: ProfileDraft, request: ProfileRequest) -> ProfileDraft:
    """Change what was asked for and leave the rest. Raises UsageError."""
    tls = request.tls or before.tls
    auth = _implied_auth(request) or before.auth
    kept_oauth = before.oauth_profile if auth is Auth.OAUTH else None
    allow = before.allow_plaintext_auth if request.allow_plaintext_auth is None else request.allow_plaintext_auth
    return replace(
        before,
        host=before.host if request.host is None else checked_host(request.host),
        port=request.port or (before.port if tls is before.tls else usual_port(tls)),
        tls=tls,
        auth=auth,
        from_address=before.from_address
        if request.from_address is None
        else read_address(request.from_address, "--from"),
        oauth_profile=request.oauth_profile or kept_oauth,
        login=before.login if request.login is None else checked_login(request.login),
        ca_pem=None if request.forget_ca else request.ca_pem or before.ca_pem,
        allow_plaintext_auth=allow,
        batch_size=request.batch_size or before.batch_size,
        copies=request.copies or before.copies,
        pipelining=request.pipelining or before.pipelining,
    )


def check_tokens_stay(
    before: ProfileDraft, after: ProfileDraft, request: ProfileRequest, *, usual_host: str | None
) -> None:
    """Refuse a change by which access tokens would silently go to another server. Raises UsageError.

    `usual_host` is the provider's own, where they may go. Naming the OAuth profile again is saying that it is meant.
    """
    if before.auth is not Auth.OAUTH or after.auth is not Auth.OAUTH or request.oauth_profile is not None:
        return
    if after.host not in (before.host, usual_host):
        raise UsageError(
            f"Its access tokens would go to {after.host}.",
            fix=f"If that is meant, say so with --oauth {after.oauth_profile}.",
            scope=Scope.PROFILE,
        )


def password_source(draft: ProfileDraft, *, has_own: bool, shared: SharedLogin | None) -> PasswordSource:
    """Say where the password of a profile with basic authentication comes from."""
    if draft.auth is not Auth.BASIC:
        return PasswordSource.NOWHERE
    if has_own:
        return PasswordSource.OWN
    if shared is not None and shared.bound_to == draft.host:
        return PasswordSource.INSTALLATION
    return PasswordSource.NOWHERE


def with_shared_login(draft: ProfileDraft, shared: SharedLogin, *, asked_login: str | None) -> ProfileDraft:
    """Log in as EmailUsername, since EmailPassword belongs to it. Raises UsageError where --user says otherwise."""
    if asked_login is not None and asked_login != shared.username:
        raise UsageError(
            f"Without a password of its own the profile logs in as EmailUsername ({shared.username}), "
            f"not as {asked_login}.",
            fix="Give --password-file for that login, or leave --user out.",
            scope=Scope.PROFILE,
        )
    return replace(draft, login=shared.username)


def usual_port(tls: Tls) -> int:
    """Give the port at which servers offer this: 587 (RFC 6409), 465 (RFC 8314 section 7.3), 25 (RFC 5321)."""
    match tls:
        case Tls.STARTTLS:
            return 587
        case Tls.IMPLICIT:
            return 465
        case Tls.NONE:
            return 25
        case _:
            assert_never(tls)


def _implied_auth(request: ProfileRequest) -> Auth | None:
    """Say which authentication was asked for, by name or by what only makes sense with it. Raises UsageError."""
    implied = Auth.OAUTH if request.oauth_profile else Auth.BASIC if request.gives_password else None
    if request.oauth_profile and request.gives_password:
        raise UsageError("A profile logs in by OAuth or with a password, not both.", fix="Leave one out.")
    if request.auth is not None and implied is not None and request.auth is not implied:
        flag = "--oauth" if implied is Auth.OAUTH else "--password-file"
        raise UsageError(
            f"{flag} is of no use with --auth {request.auth}.", fix="Leave one of them out.", scope=Scope.PROFILE
        )
    return request.auth or implied


def checked_login(login: str) -> str:
    """Give the login if a server can be told it. Raises UsageError."""
    if login and len(login) <= _LONGEST_LOGIN and login.isprintable():
        return login
    raise UsageError(
        "--user is empty, too long, or holds a control character.", fix="Give the login name.", scope=Scope.PROFILE
    )
