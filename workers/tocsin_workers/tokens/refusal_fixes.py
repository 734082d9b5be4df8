"""What each cause of a refusal means, and how to mend it: words for the operator, filled in from the profile.

Where Microsoft's and Google's consoles have things is told as they name them (learn.microsoft.com: certificate
credentials, grant admin consent, public client applications, workload identity federation; support.google.com:
domain-wide delegation, control which apps access data).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tocsin_schema.ledger.oauth_providers import (
    DEFAULT_TOKEN_FILE,
    SIGN_IN_GRANTS,
    GrantType,
    OAuthProvider,
    usual_scope,
)
from tocsin_workers.tokens.refusal_causes import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile


@dataclass(frozen=True, slots=True)
class Explanation:
    """A clause that says what is wrong, and a sentence that says what to do, or None where it passes by itself."""

    meaning: str
    fix: str | None


def explain(cause: Cause, profile: OAuthProfile, *, mailbox: str | None, aadsts: str | None) -> Explanation:
    """Say what a cause means for a profile. `mailbox` is whom the token is for; `aadsts` Microsoft's code, if any."""
    words = _words(profile, mailbox)
    explanation = _explanation(cause, profile)
    fix = explanation.fix
    if cause is Cause.UNKNOWN and aadsts is not None:
        fix = f"look it up at https://login.microsoftonline.com/error?code={aadsts.removeprefix('AADSTS')}. {fix}"
    return Explanation(explanation.meaning.format_map(words), None if fix is None else sentence(fix.format_map(words)))


def for_sending_profile(fix: str, name: str, login: str) -> str:
    """Fill in which sending profile and mailbox are meant, where those who asked for the token did not know."""
    return fix.replace(f" {_SENDING_PROFILE} ", f" {name} ").replace(f"--user {_MAILBOX}`", f"--user {login}`")


def another_grant(profile: OAuthProfile) -> str:
    """Say what to do where Azure vouches for no machine: for profiles with a managed identity."""
    return (
        "If this machine is one of Azure's, give it an identity there (Identity, System assigned); else choose another"
        f" grant: `tocsin oauth set {profile.name} --grant workload_identity{_asks_id(profile)}`."
    )


def has_usual_scope(profile: OAuthProfile) -> bool:
    """Whether a profile asks for what its provider's SMTP takes, and nothing else."""
    usual = usual_scope(profile.provider, acts_for_person=profile.grant_type in SIGN_IN_GRANTS)
    asked = {scope.lower() for scope in (profile.scope or "").split()} - _BESIDE
    return usual is not None and asked == {usual.lower()}


def how_to_sign_in(profile: OAuthProfile, mailbox: str | None, *, again: bool) -> str:
    """Say how a mailbox's person gives the profile a sign-in: words without a full stop."""
    user = mailbox or _MAILBOX
    if profile.grant_type == GrantType.REFRESH_TOKEN:
        command = f"`tocsin oauth set {profile.name} --refresh-token-file F --user {user}`"
        return f"get a {'new ' if again else ''}refresh token and store it: {command}"
    return f"sign in{' again' if again else ''}: `tocsin oauth acquire {profile.name} --user {user}`"


def key_option(profile: OAuthProfile) -> str:
    """Give the option that sets a signing key."""
    return "--service-account-file F" if profile.provider == OAuthProvider.GOOGLE else "--private-key-file F"


def _words(profile: OAuthProfile, mailbox: str | None) -> dict[str, str]:
    """Give what the templates may name."""
    lives_on_sign_in = profile.grant_type in SIGN_IN_GRANTS
    scope = usual_scope(profile.provider, acts_for_person=lives_on_sign_in)
    sign_in_again = how_to_sign_in(profile, mailbox, again=True)
    has_tenant = profile.tenant_id is not None or "{tenantId}" in profile.token_endpoint
    return {
        "name": profile.name,
        "grant": profile.grant_type,
        "client_id": profile.client_id or "of this profile",
        "ids": "--client-id ID --tenant-id ID" if has_tenant else "--client-id ID",
        "delegation": profile.delegation_client_id
        or "of the service account (the number that Google Cloud calls its unique id)",
        "scope": profile.scope or "of this profile",
        "usual_scope": scope or "SCOPE",
        "permission": "SMTP.Send (delegated)" if lives_on_sign_in else "SMTP.SendAsApp (application)",
        "mailbox": mailbox or "the mailbox",
        "user": mailbox or _MAILBOX,
        "now": f" (now {mailbox})" if mailbox else "",
        "sending_profile": _SENDING_PROFILE,
        "token_file": profile.token_file or DEFAULT_TOKEN_FILE,
        "key_option": key_option(profile),
        "sign_in_again": sign_in_again,
        "then_sign_in": f" Then {sign_in_again}." if lives_on_sign_in else "",
    }


def sentence(words: str) -> str:
    """Begin with a capital."""
    return words[:1].upper() + words[1:]


def _asks_id(profile: OAuthProfile) -> str:
    """Give the options that every grant but a managed identity cannot do without."""
    options = (("--client-id ID", profile.client_id), ("--tenant-id ID", profile.tenant_id))
    return "".join(f" {option}" for option, value in options if not value)


def _explanation(cause: Cause, profile: OAuthProfile) -> Explanation:
    """Give the words for a cause; some need others where the usual fix has been made already."""
    match cause:
        case Cause.SCOPE_WRONG if has_usual_scope(profile):
            is_google = profile.provider == OAuthProvider.GOOGLE
            return Explanation(
                "the scope is the usual one, and the client lacks the permission or the consent for it",
                _GRANT_SCOPE if is_google else _CONSENT,
            )
        case Cause.RESOURCE_MISSING if has_usual_scope(profile):
            return _NO_EXCHANGE
        case Cause.SECRET_UNWANTED if profile.grant_type == GrantType.DEVICE_CODE:
            return _SECRET_OF_DEVICE
        case Cause.SECRET_UNWANTED if profile.grant_type == GrantType.REFRESH_TOKEN:
            return _SECRET_OF_PERSON
        case _:
            return EXPLANATIONS[cause]


_SENDING_PROFILE = "PROFILE"
_MAILBOX = "MAILBOX"
#: What may stand beside the scope that counts (OpenID Connect Core sections 5.4 and 11).
_BESIDE = frozenset({"offline_access", "openid", "profile", "email"})
_SIGN_IN_AGAIN = "{sign_in_again}."
_CONSENT = (
    "An administrator does in Entra: App registrations, {client_id}, API permissions, add {permission} of Office 365"
    " Exchange Online, Grant admin consent.{then_sign_in}"
)
_GRANT_SCOPE = (
    "In the Google Admin console (Security, Access and data control, API controls) let {client_id} have the scope"
    " {scope}.{then_sign_in}"
)
_PUBLIC = "the application is a public client, which takes neither secret nor certificate"
_NOT_PUBLIC = 'In Entra (App registrations, {client_id}, Authentication) set "Allow public client flows" to No'
_SECRET_OF_PERSON = Explanation(
    _PUBLIC,
    _NOT_PUBLIC + "; or use the grant that sends neither: `tocsin oauth set {name} --grant device_code`, then"
    " `tocsin oauth acquire {name} --user {user}`.",
)
_SECRET_OF_DEVICE = Explanation(
    _PUBLIC,
    "The grant device_code sends neither: bring every worker to one release of Tocsin, then {sign_in_again}.",
)
_NO_EXCHANGE = Explanation(
    "the service that the scope names is missing in this tenant, or switched off",
    "The scope is the usual one: have the tenant's Exchange Online subscription looked at, and the tenant id: `tocsin"
    " oauth show {name}`.",
)

EXPLANATIONS: Mapping[Cause, Explanation] = MappingProxyType(
    {
        Cause.SECRET_WRONG: Explanation(
            "the client secret is wrong",
            "Store the secret's value (not its id): `tocsin oauth replace-secret {name}`.",
        ),
        Cause.SECRET_EXPIRED: Explanation(
            "the client secret has expired",
            "Make a new one in Entra (App registrations, {client_id}, Certificates & secrets), and store it:"
            " `tocsin oauth replace-secret {name}`.",
        ),
        Cause.SECRET_UNWANTED: Explanation(
            _PUBLIC,
            _NOT_PUBLIC + "; or let a person sign in: `tocsin oauth set {name} --grant device_code`, then `tocsin oauth"
            " acquire {name} --user {user}`.",
        ),
        Cause.CERTIFICATE_UNKNOWN: Explanation(
            "the certificate that signed is not one of the application's",
            "Upload it in Entra (App registrations, {client_id}, Certificates & secrets), or store one that is there:"
            " `tocsin oauth set {name} --certificate-file F --private-key-file F`.",
        ),
        Cause.PRIVATE_KEY_WRONG: Explanation(
            "the private key that signed is not, or no longer, one of client {client_id}",
            "Make a new key for it, and store that: `tocsin oauth set {name} {key_option}`.",
        ),
        Cause.ASSERTION_REFUSED: Explanation(
            "the signed assertion is refused",
            "Check issuer ({client_id}), audience (the token endpoint) and mailbox ({mailbox}) against what the"
            " provider has registered, and the clock; another key: `tocsin oauth set {name} {key_option}`.",
        ),
        Cause.FEDERATION_MISMATCH: Explanation(
            "no federated credential of the application matches the projected token",
            "In Entra (App registrations, {client_id}, Certificates & secrets, Federated credentials) enter the"
            " token's issuer, subject and audience exactly, in upper and lower case as they are.",
        ),
        Cause.FEDERATED_TOKEN_EXPIRED: Explanation(
            "the projected token is out of date",
            "See to it that the platform renews the file {token_file}, and that this machine's clock is right.",
        ),
        Cause.CLOCK_WRONG: Explanation(
            "the signed assertion is not of this time: this machine's clock is wrong",
            "Set the clocks of the machines that run workers (NTP).",
        ),
        Cause.CLIENT_UNKNOWN: Explanation(
            "no application has this client id there",
            "Correct it: `tocsin oauth set {name} {ids}`; or register the application there, or grant it consent.",
        ),
        Cause.CLIENT_DISABLED: Explanation(
            "the application, or its service account, is disabled or deleted",
            "Have {client_id} enabled where it is registered, or use another: `tocsin oauth set {name} {ids}`.",
        ),
        Cause.CLIENT_NOT_ALLOWED: Explanation(
            "the client may not use the grant {grant}",
            "Allow it for client {client_id} where that is registered; what we ask with: `tocsin oauth show {name}`.",
        ),
        Cause.PUBLIC_CLIENT_OFF: Explanation(
            "the application does not let people sign in without a secret of its own",
            'In Entra (App registrations, {client_id}, Authentication) set "Allow public client flows" to Yes.'
            "{then_sign_in}",
        ),
        Cause.TENANT_UNKNOWN: Explanation(
            "there is no such tenant",
            "Correct the tenant id: `tocsin oauth set {name} --tenant-id ID`.",
        ),
        Cause.WRONG_CLOUD: Explanation(
            "the tenant lives in another of Microsoft's clouds",
            "Make a profile from that cloud's template: `tocsin oauth add {name}-gcc-high --provider"
            " microsoft365-gcc-high`, or microsoft365-dod, or microsoft365-china.",
        ),
        Cause.SCOPE_WRONG: Explanation(
            "the scope is none that this client can get there",
            "Correct it (it is {scope}): `tocsin oauth set {name} --scope {usual_scope}`.",
        ),
        Cause.RESOURCE_MISSING: Explanation(
            "the service that the scope names is missing in this tenant, or switched off",
            "Correct the scope (it is {scope}): `tocsin oauth set {name} --scope {usual_scope}`; or have the tenant's"
            " Exchange Online subscription looked at.",
        ),
        Cause.CONSENT_MISSING: Explanation("nobody has consented to what the application asks for", _CONSENT),
        Cause.DELEGATION_MISSING: Explanation(
            "domain-wide delegation is not granted to the service account for this scope",
            "In the Google Admin console (Security, Access and data control, API controls, Manage domain-wide"
            " delegation) add the client ID {delegation} with the scope {scope}; it can take 24 hours to count.",
        ),
        Cause.NOT_ASSIGNED: Explanation(
            "the account is not assigned to the application",
            "In Entra (Enterprise applications, {client_id}, Users and groups) assign {mailbox}.{then_sign_in}",
        ),
        Cause.NO_SUCH_MAILBOX: Explanation(
            "{mailbox} is not a user there; an alias or a group is none",
            "Give the mailbox's primary address: `tocsin profile set {sending_profile} --user ADDRESS`{now}."
            "{then_sign_in}",
        ),
        Cause.NO_IDENTITY: Explanation(
            "this machine has no such identity in Azure, or several and none is named",
            "Assign it to the machine in Azure, or name another: `tocsin oauth set {name} --client-id ID`.",
        ),
        Cause.USER_DISABLED: Explanation(
            "{mailbox} is disabled or locked",
            "Have an administrator enable or unblock it.{then_sign_in}",
        ),
        Cause.PASSWORD_EXPIRED: Explanation(
            "the password of {mailbox} has to be changed",
            "Change it.{then_sign_in}",
        ),
        Cause.SIGN_IN_REVOKED: Explanation(
            "the sign-in for {mailbox} was revoked, or ended with a changed password",
            _SIGN_IN_AGAIN,
        ),
        Cause.SIGN_IN_EXPIRED: Explanation("the sign-in for {mailbox} has expired", _SIGN_IN_AGAIN),
        Cause.SIGN_IN_OF_OTHER_CLIENT: Explanation(
            "the sign-in for {mailbox} was made for another client id than {client_id}",
            "Correct the client id (`tocsin oauth set {name} --client-id ID`), or {sign_in_again}.",
        ),
        Cause.MFA_REQUIRED: Explanation(
            "{mailbox} has to prove itself with a second factor",
            _SIGN_IN_AGAIN,
        ),
        Cause.CONDITIONAL_ACCESS: Explanation(
            "a Conditional Access policy, or the security defaults, forbid it",
            "An administrator finds the policy in Entra's sign-in logs, and excludes {client_id} from it or meets its"
            " terms.{then_sign_in}",
        ),
        Cause.ADMIN_POLICY: Explanation(
            "the Workspace administrator's policy forbids it",
            "In the Google Admin console (Security, Access and data control, API controls, App access control) trust"
            " {client_id} for the scope {scope}.{then_sign_in}",
        ),
        Cause.ORG_INTERNAL: Explanation(
            "the client serves accounts of its own organisation only, and {mailbox} is none",
            "Use a client of that organisation (`tocsin oauth set {name} --client-id ID`), or make this one External"
            " in Google Cloud (OAuth consent screen, User type).",
        ),
        Cause.GRANT_UNSUPPORTED: Explanation(
            "the endpoint does not know the grant {grant}",
            "Check the token endpoint and the grant: `tocsin oauth show {name}`.",
        ),
        Cause.UNAVAILABLE: Explanation("the endpoint is not available just now", None),
        Cause.THROTTLED: Explanation("the endpoint asks us to slow down", None),
        Cause.UNKNOWN: Explanation(
            "no token was given",
            "Check the profile (`tocsin oauth show {name}`) against what the provider has registered.",
        ),
    }
)
"""Every cause has one."""
