"""From an error, a reply or a token's claims to a verdict: pure functions, for the check and for senders alike."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from tocsin_schema.errors import Scope
from tocsin_workers.classification import Kind, classify
from tocsin_workers.diagnosis import google, microsoft
from tocsin_workers.diagnosis.causes import Cause, Verdict
from tocsin_workers.smtp.errors import (
    SmtpAuthError,
    SmtpDeadline,
    SmtpDisconnected,
    SmtpSessionError,
    SmtpTlsError,
    Trouble,
)
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.refusal_causes import Cause as TokenCause

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tocsin_schema.errors import TocsinError, TokenError
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.classification import Outcome
    from tocsin_workers.diagnosis.certificate import Certificate
    from tocsin_workers.smtp.replies import Reply
    from tocsin_workers.tokens.token_facts import TokenFacts


def provider_of(profile: SenderProfile, oauth_profile: OAuthProfile | None) -> str:
    """Say whose tokens and replies they are; an OAuth profile tells where the sending profile is a custom one."""
    if profile.provider == "custom" and oauth_profile is not None:
        return oauth_profile.provider
    return profile.provider


# The way to the server.

BY_TROUBLE: Mapping[Trouble, Cause] = MappingProxyType(
    {
        Trouble.UNKNOWN_HOST: Cause.UNKNOWN_HOST,
        Trouble.CONNECTION_REFUSED: Cause.CONNECTION_REFUSED,
        Trouble.UNREACHABLE: Cause.UNREACHABLE,
        Trouble.NO_ANSWER: Cause.FIREWALL,
        Trouble.NO_GREETING: Cause.NO_GREETING,
        Trouble.NOT_SMTP: Cause.NOT_SMTP,
        Trouble.STARTTLS_NOT_OFFERED: Cause.STARTTLS_NOT_OFFERED,
        Trouble.CERTIFICATE_FOR_ANOTHER_NAME: Cause.CERTIFICATE_FOR_ANOTHER_NAME,
        Trouble.CERTIFICATE_EXPIRED: Cause.CERTIFICATE_EXPIRED,
        Trouble.CERTIFICATE_NOT_YET_VALID: Cause.CERTIFICATE_NOT_YET_VALID,
        Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY: Cause.CERTIFICATE_OF_UNKNOWN_AUTHORITY,
        Trouble.CERTIFICATE_NOT_TRUSTED: Cause.CERTIFICATE_NOT_TRUSTED,
        Trouble.HANDSHAKE_FAILED: Cause.TLS_FAILED,
        Trouble.AUTH_NOT_OFFERED: Cause.AUTH_NOT_OFFERED,
        Trouble.MECHANISM_NOT_OFFERED: Cause.MECHANISM_NOT_OFFERED,
        Trouble.PLAINTEXT: Cause.PLAINTEXT,
    }
)
_FIREWALL = (
    "Nothing answers, not even with a refusal: let a firewall pass connections from this machine to that port, "
    "and check host and port. Many networks block port 25."
)
_WAIT = "Try again in a while."


def explain_failed_session(error: SmtpSessionError, certificate: Certificate | None = None) -> Verdict:
    """Say why a session could not be opened, a refused log-in apart; `certificate` is the one that was refused."""
    meaning, fix = error.problem, error.fix or _WAIT
    if error.trouble is not None:
        cause = BY_TROUBLE[error.trouble]
        if cause is Cause.FIREWALL:
            fix = _FIREWALL
        if certificate is not None:
            meaning = f"{meaning} It is {certificate}."
            if cause is Cause.CERTIFICATE_FOR_ANOTHER_NAME and certificate.names:
                fix = f"Set the profile's host to one of the names that the certificate holds: {certificate.listed}."
        return Verdict(cause, meaning, fix)
    match error:
        case SmtpDeadline():
            return Verdict(Cause.TOO_SLOW, meaning, fix)
        case SmtpDisconnected():
            return Verdict(Cause.CONNECTION_LOST, meaning, error.fix or "Check host, port and --tls, and try again.")
        case SmtpTlsError():
            return Verdict(Cause.TLS_FAILED, meaning, fix)
        case _ if error.reply is None or not classify(error.phase, error.reply).permanent:
            return Verdict(Cause.SERVER_BUSY, meaning, fix)
        case _:
            own = "Ask whoever runs the server whether it serves this machine's network address."
            return Verdict(Cause.SERVER_REFUSES_US, meaning, error.fix or own)


# Getting a token.


def explain_no_token(error: TokenError, oauth_profile: OAuthProfile) -> Verdict:
    """Say why there is no token. The error has its own words and mostly its fix; the cause is what is added."""
    cause = refusals.cause_of(oauth_profile, error.code or "", error.problem)
    if error.permanent and cause is not TokenCause.UNKNOWN:
        return Verdict(cause, error.problem, error.fix or f"See `tocsin oauth show {oauth_profile.name}`.")
    if not error.permanent:
        return Verdict(Cause.TOKEN_ENDPOINT_AWAY, error.problem, error.fix or _WAIT)
    match error.code:
        case "not_signed_in":
            by_rest = Cause.SIGN_IN_NEEDED
        case None:
            by_rest = Cause.NO_CREDENTIALS
        case _:
            by_rest = Cause.TOKEN_REFUSED_BY_ENDPOINT
    return Verdict(by_rest, error.problem, error.fix or f"See `tocsin oauth show {oauth_profile.name}`.")


def doubt_token(
    provider: str, facts: TokenFacts | None, *, now: datetime, oauth_profile: OAuthProfile | None
) -> Verdict | None:
    """Say what a token's own claims show to be wrong, before any server has seen it; None where nothing."""
    if microsoft.is_microsoft(provider) and facts is not None:
        return microsoft.doubt_token(provider, facts, now=now, oauth_profile=oauth_profile)
    if google.is_google(provider) and oauth_profile is not None and google.SCOPE not in _scopes(oauth_profile):
        return google.wrong_scope(oauth_profile)
    return None


def _scopes(oauth_profile: OAuthProfile) -> list[str]:
    return (oauth_profile.scope or "").split()


# Signing in.


def explain_refused_login(  # noqa: PLR0911  # one answer a cause
    provider: str,
    login: str,
    token_facts: TokenFacts | None,
    error: SmtpAuthError,
    *,
    now: datetime,
    oauth_profile: OAuthProfile | None = None,
    profile_name: str = "NAME",
) -> Verdict | None:
    """Say why a server refused a log-in; None where it did not: a throttle, a failure of its own.

    `provider` is whose token or mail server it is, `login` the mailbox, `token_facts` what the refused token says
    of itself: None with a password and where it is no JWT. `oauth_profile` is where the token came from, None with
    a password.
    """
    if error.reply is None:
        return explain_failed_session(error)
    outcome = classify(error.phase, error.reply)
    if outcome.kind is not Kind.NOT_AUTHENTICATED:
        return None
    named = _named(outcome, login, profile_name)
    if named is not None:
        return named
    with_token = error.mechanism in ("XOAUTH2", "OAUTHBEARER") or oauth_profile is not None
    if not with_token:
        return _wrong_password(error.reply, provider, login, profile_name)
    doubt = doubt_token(provider, token_facts, now=now, oauth_profile=oauth_profile)
    if doubt is not None:
        return doubt
    if microsoft.is_microsoft(provider):
        return microsoft.refused_for_no_reason(login, token_facts)
    if google.is_google(provider):
        return google.refused_token(login, oauth_profile)
    return _refused_token(error, error.reply, oauth_profile)


#: Rows of the classification that name their cause by themselves.
BY_RULE: Mapping[str, Cause] = MappingProxyType(
    {
        "microsoft smtp auth off for tenant": Cause.SMTP_AUTH_OFF_FOR_TENANT,
        "microsoft smtp auth off for mailbox": Cause.SMTP_AUTH_OFF_FOR_MAILBOX,
        "microsoft security defaults": Cause.SECURITY_DEFAULTS,
        "microsoft basic off": Cause.BASIC_AUTH_OFF,
        "microsoft conditional access": Cause.CONDITIONAL_ACCESS,
        "microsoft wrong password": Cause.WRONG_PASSWORD,
        "microsoft bad xoauth2 data": Cause.WRONG_USER_NAME,
        "microsoft not authenticated": Cause.NOT_LOGGED_IN,
        "google app password": Cause.APP_PASSWORD_NEEDED,
        "google bad xoauth2 data": Cause.WRONG_USER_NAME,
        "google relay credentials": Cause.NOT_LOGGED_IN,
        "relaying denied": Cause.NOT_LOGGED_IN,
    }
)


def _named(outcome: Outcome, login: str, profile_name: str) -> Verdict | None:
    cause = BY_RULE.get(outcome.rule)
    match cause:
        case None:
            return None
        case Cause.SMTP_AUTH_OFF_FOR_MAILBOX:
            return microsoft.smtp_auth_off_for_mailbox(login)
        case Cause.SMTP_AUTH_OFF_FOR_TENANT:
            return microsoft.smtp_auth_off_for_tenant(login)
        case Cause.APP_PASSWORD_NEEDED:
            return google.app_password_needed()
        case Cause.WRONG_USER_NAME:
            fix = f"Give the mailbox's full address: `tocsin profile set {profile_name} --user ADDRESS` (now {login})."
            return Verdict(cause, outcome.meaning or "The user name is not one that the server can read.", fix)
        case _:
            return Verdict(cause, outcome.meaning or "The server refuses the log-in.", outcome.advice or _WAIT)


def _wrong_password(reply: Reply, provider: str, login: str, profile_name: str) -> Verdict:
    fix = f"Give the right one: `tocsin profile replace-password {profile_name}`."
    if google.is_google(provider):
        fix = f"{fix} Google takes an app password only, not the account's own; or use --auth oauth."
    elif microsoft.is_microsoft(provider):
        fix = f"{fix} Microsoft is ending passwords for SMTP: better use --auth oauth."
    return Verdict(Cause.WRONG_PASSWORD, f"The server does not take {login} with this password: {reply}.", fix)


def _refused_token(error: SmtpAuthError, reply: Reply, oauth_profile: OAuthProfile | None) -> Verdict:
    """Answer a server of no known provider, which may say why in JSON (RFC 7628 section 3.2.2)."""
    told = _told(error.detail)
    name = "NAME" if oauth_profile is None else oauth_profile.name
    said = f"The server refuses the token: {reply}" + (f" ({error.detail})." if error.detail else ".")
    wanted = told.get("scope", "")
    asked: set[str] = set() if oauth_profile is None else set(_scopes(oauth_profile))
    if "scope" in told.get("status", "") or (wanted and asked and not set(wanted.split()) <= asked):
        scope = wanted or "SCOPE"
        return Verdict(Cause.WRONG_SCOPE, said, f"Set the scope: `tocsin oauth set {name} --scope '{scope}'`.")
    return Verdict(
        Cause.TOKEN_REFUSED,
        said,
        f"Check --user, and the OAuth profile's scope and token endpoint: `tocsin oauth show {name}`.",
    )


def _told(detail: str | None) -> dict[str, str]:
    """Read the JSON of a SASL refusal; what is not as it should be is left out."""
    try:
        told: object = json.loads(detail or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {
        str(key): value[:200] for key, value in cast("dict[object, object]", told).items() if isinstance(value, str)
    }


# Sending.


def explain_refused_message(  # noqa: PLR0911  # one answer a cause
    phase: Phase, reply: Reply, *, login: str, from_address: str, token_facts: TokenFacts | None
) -> Verdict:
    """Say why a server does not take a sender (at MAIL) or a message (later)."""
    outcome = classify(phase, reply)
    meaning = outcome.meaning or f"The server refuses it ({phase}): {reply}."
    match outcome.kind:
        case Kind.SENDER_REFUSED if outcome.rule in ("microsoft send as denied", "microsoft 5.7.60"):
            return microsoft.send_as_denied(login, from_address, token_facts)
        case Kind.SENDER_REFUSED if outcome.scope is Scope.MAILBOX:
            return Verdict(Cause.SENDER_BLOCKED, meaning, outcome.advice or "Ask the provider to unblock the sender.")
        case Kind.SENDER_REFUSED:
            own = f"Check that {login} may send as {from_address}, or change --from."
            return Verdict(Cause.SENDER_REFUSED, meaning, outcome.advice or own)
        case Kind.NOT_AUTHENTICATED:
            named = _named(outcome, login, "NAME")
            own = "Check the profile's --auth, and that SMTP AUTH is on for the mailbox."
            return named or Verdict(Cause.NOT_LOGGED_IN, meaning, outcome.advice or own)
        case Kind.QUOTA | Kind.TENANT_QUOTA:
            return Verdict(Cause.QUOTA_USED_UP, meaning, outcome.advice or "Wait, or ask the provider for more.")
        case Kind.REFUSED if phase is Phase.RCPT:
            return Verdict(Cause.RECIPIENT_REFUSED, meaning, outcome.advice or "Give another address to --to.")
        case Kind.REFUSED:
            own = "The server refuses the message itself, not the profile: read its reply."
            return Verdict(Cause.MESSAGE_REFUSED, meaning, outcome.advice or own)
        case _ if outcome.rule == "microsoft own mailbox full":
            return Verdict(Cause.MAILBOX_FULL, meaning, outcome.advice or _WAIT)
        case _:
            return Verdict(Cause.SERVER_BUSY, f"Not now: {reply}.", outcome.advice or _WAIT)


# Credentials of our own.


def explain_no_credentials(error: TocsinError) -> Verdict:
    """Say why a password or a key cannot be used."""
    return Verdict(Cause.NO_CREDENTIALS, error.problem, error.fix or "Give the profile its password again.")
