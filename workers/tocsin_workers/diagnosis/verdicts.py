"""From an error, a reply or a token's claims to a verdict: pure functions, for the check and for senders alike."""

from __future__ import annotations

import json
import shlex
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from tocsin_schema.errors import Scope
from tocsin_workers.classification import Kind, classify
from tocsin_workers.diagnosis import google, microsoft
from tocsin_workers.diagnosis.causes import Cause, Verdict
from tocsin_workers.diagnosis.connecting import WAIT, explain_failed_session, use_oauth
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.refusal_causes import Cause as TokenCause
from tocsin_workers.tokens.refusal_fixes import for_sending_profile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tocsin_schema.errors import TocsinError, TokenError
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.classification import Outcome
    from tocsin_workers.smtp.errors import SmtpAuthError
    from tocsin_workers.smtp.replies import Reply
    from tocsin_workers.tokens.token_facts import TokenFacts


def provider_of(profile: SenderProfile, oauth_profile: OAuthProfile | None) -> str:
    """Say whose tokens and replies they are; an OAuth profile tells where the sending profile is a custom one."""
    if profile.provider == "custom" and oauth_profile is not None:
        return oauth_profile.provider
    return profile.provider


# Getting a token.


def explain_no_token(error: TokenError, oauth_profile: OAuthProfile, *, profile_name: str, login: str) -> Verdict:
    """Say why there is no token for a sending profile and its mailbox.

    The error has its own words and mostly its fix; the cause is what is added, and the names that it lacks.
    """
    fix = for_sending_profile(error.fix or f"See `tocsin oauth show {oauth_profile.name}`.", profile_name, login)
    if not error.permanent:
        return Verdict(Cause.TOKEN_ENDPOINT_AWAY, error.problem, fix if error.fix else WAIT)
    cause = refusals.cause_of(oauth_profile, error.code or "", error.problem)
    if cause is not TokenCause.UNKNOWN:
        return Verdict(cause, error.problem, fix)
    match error.code:
        case "not_signed_in":
            return Verdict(Cause.SIGN_IN_NEEDED, error.problem, fix)
        case None:
            return Verdict(Cause.NO_CREDENTIALS, error.problem, fix)
        case _:
            return Verdict(Cause.TOKEN_REFUSED_BY_ENDPOINT, error.problem, fix)


def doubt_token(
    provider: str,
    facts: TokenFacts | None,
    *,
    now: datetime,
    oauth_profile: OAuthProfile | None,
    login: str,
    host: str | None = None,
) -> Verdict | None:
    """Say what a token's own claims show to be wrong, before any server has seen it; None where nothing.

    `login` is the mailbox that it is for, `host` the mail server.
    """
    if microsoft.is_microsoft(provider) and facts is not None:
        return microsoft.doubt_token(provider, facts, now=now, oauth_profile=oauth_profile, login=login, host=host)
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
    host: str | None = None,
) -> Verdict | None:
    """Say why a server refused a log-in; None where it did not: a throttle, a failure of its own.

    What the server said stands in `error.problem`, and is not said again.
    `provider` is whose token or mail server it is, `login` the mailbox, `token_facts` what the refused token says
    of itself: None with a password and where it is no JWT. `oauth_profile` is where the token came from, None with
    a password. `profile_name` is the sending profile's, `host` its mail server.
    """
    uses_oauth = error.mechanism in ("XOAUTH2", "OAUTHBEARER") or oauth_profile is not None
    if error.reply is None:
        return explain_failed_session(error, profile_name=profile_name, uses_oauth=uses_oauth)
    outcome = classify(error.phase, error.reply)
    if outcome.kind is not Kind.NOT_AUTHENTICATED:
        return None
    named = _named(outcome, login, profile_name, uses_oauth=uses_oauth)
    if named is not None:
        return named
    if not uses_oauth:
        return _wrong_password(provider, login, profile_name)
    doubt = doubt_token(provider, token_facts, now=now, oauth_profile=oauth_profile, login=login, host=host)
    if doubt is not None:
        return doubt
    if microsoft.is_microsoft(provider):
        return microsoft.refused_for_no_reason(login, token_facts, oauth_profile)
    if google.is_google(provider):
        return google.refused_token(login, oauth_profile, profile_name)
    return _refused_token(error, oauth_profile, profile_name)


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


def _named(outcome: Outcome, login: str, profile_name: str, *, uses_oauth: bool) -> Verdict | None:  # noqa: PLR0911  # one answer a cause
    cause = BY_RULE.get(outcome.rule)
    meaning = outcome.meaning or "The server refuses the log-in."
    match cause:
        case None:
            return None
        case Cause.SMTP_AUTH_OFF_FOR_MAILBOX:
            return microsoft.smtp_auth_off_for_mailbox(login)
        case Cause.SMTP_AUTH_OFF_FOR_TENANT:
            return microsoft.smtp_auth_off_for_tenant(login)
        case Cause.APP_PASSWORD_NEEDED:
            return google.app_password_needed(profile_name)
        case Cause.WRONG_USER_NAME:
            fix = f"Give the mailbox's full address: `tocsin profile set {profile_name} --user ADDRESS` (now {login})."
            return Verdict(cause, meaning, fix)
        case Cause.WRONG_PASSWORD:
            return Verdict(cause, meaning, _replace_password(profile_name))
        case Cause.SECURITY_DEFAULTS | Cause.BASIC_AUTH_OFF if not uses_oauth:
            return Verdict(cause, meaning, f"Let the profile log in by OAuth: {use_oauth(profile_name)}.")
        case Cause.NOT_LOGGED_IN:
            # The standards' row advises what is told with its command here.
            advice = None if outcome.rule == "relaying denied" else outcome.advice
            return _not_logged_in(meaning, advice, login, profile_name, uses_oauth=uses_oauth)
        case _:
            return Verdict(cause, meaning, outcome.advice or WAIT)


def _not_logged_in(meaning: str, advice: str | None, login: str, profile_name: str, *, uses_oauth: bool) -> Verdict:
    how = (
        f"Let the profile log in as {login}: {use_oauth(profile_name)}, or with a password: `tocsin profile set "
        f"{profile_name} --auth basic --password-file FILE`."
    )
    own = advice or f"See to it that SMTP AUTH is on for {login}."
    return Verdict(Cause.NOT_LOGGED_IN, meaning, own if uses_oauth else f"{how} {own}")


def _replace_password(profile_name: str) -> str:
    return f"Give the right one: `tocsin profile replace-password {profile_name}`."


def _wrong_password(provider: str, login: str, profile_name: str) -> Verdict:
    fix = _replace_password(profile_name)
    if google.is_google(provider):
        fix = (
            f"{fix} Google takes an app password only, not the account's own; or use OAuth: {use_oauth(profile_name)}."
        )
    elif microsoft.is_microsoft(provider):
        fix = f"{fix} Microsoft is ending passwords for SMTP: better use OAuth: {use_oauth(profile_name)}."
    return Verdict(Cause.WRONG_PASSWORD, f"The server does not take {login} with this password.", fix)


def _refused_token(error: SmtpAuthError, oauth_profile: OAuthProfile | None, profile_name: str) -> Verdict:
    """Answer a server of no known provider, which may say why in JSON (RFC 7628 section 3.2.2)."""
    told = _told(error.detail)
    name = "NAME" if oauth_profile is None else oauth_profile.name
    said = "The server refuses the token."
    wanted = told.get("scope", "")
    asked: set[str] = set() if oauth_profile is None else set(_scopes(oauth_profile))
    if "scope" in told.get("status", "") or (wanted and asked and not set(wanted.split()) <= asked):
        # Somebody else's words, for a person to type.
        scope = shlex.quote(wanted or "SCOPE")
        return Verdict(Cause.WRONG_SCOPE, said, f"Set the scope: `tocsin oauth set {name} --scope {scope}`.")
    return Verdict(
        Cause.TOKEN_REFUSED,
        said,
        f"Look at whom the profile logs in as (`tocsin profile show {profile_name}`), and at the OAuth profile's scope "
        f"and token endpoint (`tocsin oauth show {name}`).",
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
    phase: Phase,
    reply: Reply,
    *,
    login: str,
    from_address: str,
    token_facts: TokenFacts | None,
    profile_name: str,
    uses_oauth: bool = False,
) -> Verdict:
    """Say why a server does not take a sender (at MAIL) or a message (later); `profile_name` is whose sender it is."""
    outcome = classify(phase, reply)
    meaning = outcome.meaning or f"The server refuses it ({phase}): {reply}."
    match outcome.kind:
        case Kind.SENDER_REFUSED if outcome.rule in ("microsoft send as denied", "microsoft 5.7.60"):
            return microsoft.send_as_denied(login, from_address, token_facts, profile_name)
        case Kind.SENDER_REFUSED if outcome.scope is Scope.MAILBOX:
            return Verdict(Cause.SENDER_BLOCKED, meaning, outcome.advice or "Ask the provider to unblock the sender.")
        case Kind.SENDER_REFUSED:
            own = (
                f"Check that {login} may send as {from_address}, or send from another address: "
                f"`tocsin profile set {profile_name} --from ADDRESS`."
            )
            return Verdict(Cause.SENDER_REFUSED, meaning, outcome.advice or own)
        case Kind.NOT_AUTHENTICATED:
            named = _named(outcome, login, profile_name, uses_oauth=uses_oauth)
            return named or _not_logged_in(meaning, None, login, profile_name, uses_oauth=uses_oauth)
        case Kind.QUOTA | Kind.TENANT_QUOTA:
            return Verdict(Cause.QUOTA_USED_UP, meaning, outcome.advice or "Wait, or ask the provider for more.")
        case Kind.REFUSED if phase is Phase.RCPT:
            return Verdict(
                Cause.RECIPIENT_REFUSED,
                meaning,
                outcome.advice or f"Try another recipient: `tocsin profile check {profile_name} --to ADDRESS`.",
            )
        case Kind.REFUSED:
            own = "The server refuses the message itself, not the profile: read its reply."
            return Verdict(Cause.MESSAGE_REFUSED, meaning, outcome.advice or own)
        case _ if outcome.rule == "microsoft own mailbox full":
            return Verdict(Cause.MAILBOX_FULL, meaning, outcome.advice or WAIT)
        case _:
            return Verdict(Cause.SERVER_BUSY, f"Not now: {reply}.", outcome.advice or WAIT)


# Credentials of our own.


def explain_no_credentials(error: TocsinError, *, profile_name: str) -> Verdict:
    """Say why a password or a key cannot be used."""
    return Verdict(
        Cause.NO_CREDENTIALS,
        error.problem,
        error.fix or f"Give the profile its password again: `tocsin profile replace-password {profile_name}`.",
    )
