"""What Microsoft 365 says when it lets nobody in, and what a token's claims tell beyond it. Pure.

Exchange Online answers most mistakes with the one text `535 5.7.3 Authentication unsuccessful`. But an application's
own token says who it is: its `oid` is the object id of the service principal under Enterprise applications, the one
that `New-ServicePrincipal` wants, so the commands that mend it can be given word for word.

Source: learn.microsoft.com, "Authenticate an IMAP, POP or SMTP connection using OAuth"; for the replies see
`classification.microsoft`.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, OAuthProvider
from tocsin_workers.diagnosis.causes import Candidate, Cause, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.token_facts import TokenFacts

ROLE = "SMTP.SendAsApp"
SCOPE = "SMTP.Send"

#: Exchange Online's own application id, which stands as the audience where a token was asked for by it.
_EXCHANGE_ONLINE = "00000002-0000-0ff1-ce00-000000000000"
_AUDIENCES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        OAuthProvider.MICROSOFT365: ("https://outlook.office365.com", "https://outlook.office.com"),
        OAuthProvider.MICROSOFT365_GCC_HIGH: ("https://outlook.office365.us",),
        OAuthProvider.MICROSOFT365_DOD: ("https://outlook-dod.office365.us",),
        OAuthProvider.MICROSOFT365_CHINA: ("https://partner.outlook.cn",),
    }
)
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_microsoft(provider: str) -> bool:
    """Whether a provider is Microsoft's worldwide or one of its national clouds."""
    return provider in MICROSOFT_CLOUDS


def doubt_token(
    provider: str, facts: TokenFacts, *, now: datetime, oauth_profile: OAuthProfile | None
) -> Verdict | None:
    """Say what is wrong with a token by its own claims; None where they are as they should be."""
    name = "NAME" if oauth_profile is None else oauth_profile.name
    if facts.audience and not _is_for_exchange(provider, facts):
        return _wrong_audience(provider, facts, name)
    if oauth_profile is not None and _is_of_another_tenant(facts, oauth_profile):
        return _wrong_tenant(facts, oauth_profile)
    if facts.expires_at is not None and facts.expires_at <= now:
        return Verdict(
            Cause.TOKEN_EXPIRED,
            f"The token says that it expired at {facts.expires_at:%Y-%m-%d %H:%M:%S} UTC.",
            "Set the clocks of this machine and of Postgres right (NTP).",
        )
    if facts.is_delegated:
        return None if _has_delegated_scope(facts) else _scope_missing(provider, facts, name)
    return None if ROLE in facts.roles else _role_missing(facts)


def refused_for_no_reason(login: str, facts: TokenFacts | None) -> Verdict:
    """Answer `535 5.7.3` with a token whose claims are as they should be, or cannot be read."""
    if facts is not None and facts.is_delegated:
        return _refused_person(login, facts)
    application = (facts.application if facts else None) or "<client id>"
    known = facts is not None and facts.object_id is not None
    object_id = facts.object_id if facts is not None and facts.object_id else "<object id>"
    whose = "the token says so" if known else "Entra, Enterprise applications, not App registrations"
    register = f"`New-ServicePrincipal -AppId {application} -ObjectId {object_id}`"
    return Verdict.one_of(
        Cause.NOT_REGISTERED_OR_NO_PERMISSION,
        f"Microsoft does not let the application send for {login}, and says the same for several causes. "
        "The commands are for Exchange Online PowerShell; a change may take up to an hour.",
        Candidate(
            Cause.SERVICE_PRINCIPAL_NOT_REGISTERED,
            f"`Get-ServicePrincipal -Identity {application}` finds nothing",
            f"register the application: {register} (the object id of the Enterprise application: {whose}).",
        ),
        Candidate(
            Cause.WRONG_OBJECT_ID,
            f"its ObjectId is not {object_id}",
            f"`Remove-ServicePrincipal -Identity {application}`, then {register}.",
        ),
        Candidate(
            Cause.MAILBOX_PERMISSION_MISSING,
            f"`Get-MailboxPermission -Identity {login}` does not list it",
            f"`Add-MailboxPermission -Identity {login} -User {object_id} -AccessRights FullAccess`.",
        ),
        *_smtp_auth_off(login),
    )


def smtp_auth_off_for_mailbox(login: str) -> Verdict:
    """Answer `SmtpClientAuthentication is disabled for the Mailbox`."""
    mailbox, _ = _smtp_auth_off(login)
    return Verdict(mailbox.cause, f"SMTP AUTH is switched off for the mailbox {login}.", _sentence(mailbox.fix))


def smtp_auth_off_for_tenant(login: str) -> Verdict:
    """Answer `SmtpClientAuthentication is disabled for the Tenant`: one mailbox may be let through all the same."""
    mailbox, tenant = _smtp_auth_off(login)
    return Verdict(
        tenant.cause,
        "SMTP AUTH is switched off for the whole organisation.",
        f"For this mailbox alone: {mailbox.fix.rstrip('.')}; for every mailbox: {tenant.fix}",
    )


def send_as_denied(login: str, from_address: str, facts: TokenFacts | None) -> Verdict:
    """Answer SendAsDenied and 5.7.60."""
    trustee = login
    if facts is not None and not facts.is_delegated and facts.object_id:
        trustee = facts.object_id
    return Verdict(
        Cause.SEND_AS_DENIED,
        f"The login {login} may not send as {from_address}.",
        f"`Add-RecipientPermission -Identity {from_address} -Trustee {trustee} -AccessRights SendAs` in Exchange "
        "Online PowerShell (it may take up to an hour), or send from the login's own address with --from.",
    )


def _refused_person(login: str, facts: TokenFacts) -> Verdict:
    user = facts.user or "<user>"
    if facts.user is None or facts.user.lower() == login.lower():
        return Verdict.one_of(
            Cause.NOT_REGISTERED_OR_NO_PERMISSION,
            f"The token of {user} is in order, and Microsoft does not take it for {login}.",
            *_smtp_auth_off(login),
            Candidate(
                Cause.CONDITIONAL_ACCESS,
                "Entra's sign-in log of the person shows a policy",
                "ask an administrator to except this application.",
            ),
        )
    return Verdict.one_of(
        Cause.TOKEN_OF_ANOTHER_ACCOUNT,
        f"{user} signed in, and the profile logs in as {login}.",
        Candidate(
            Cause.TOKEN_OF_ANOTHER_ACCOUNT,
            f"{login} is the person's own mailbox",
            f"sign in again as {login}: `tocsin oauth acquire`.",
        ),
        Candidate(
            Cause.MAILBOX_PERMISSION_MISSING,
            f"{login} is a shared mailbox",
            f"`Add-MailboxPermission -Identity {login} -User {user} -AccessRights FullAccess`.",
        ),
        *_smtp_auth_off(login),
    )


def _smtp_auth_off(login: str) -> tuple[Candidate, Candidate]:
    return (
        Candidate(
            Cause.SMTP_AUTH_OFF_FOR_MAILBOX,
            f"`Get-CASMailbox -Identity {login}` has SmtpClientAuthenticationDisabled True",
            f"`Set-CASMailbox -Identity {login} -SmtpClientAuthenticationDisabled $false`.",
        ),
        Candidate(
            Cause.SMTP_AUTH_OFF_FOR_TENANT,
            "it has nothing there, and `Get-TransportConfig` has SmtpClientAuthenticationDisabled True",
            "`Set-TransportConfig -SmtpClientAuthenticationDisabled $false`.",
        ),
    )


def _is_for_exchange(provider: str, facts: TokenFacts) -> bool:
    wanted = {*_AUDIENCES.get(provider, ()), _EXCHANGE_ONLINE}
    return any(audience.lower().rstrip("/") in wanted for audience in facts.audience)


def _wrong_audience(provider: str, facts: TokenFacts, name: str) -> Verdict:
    service = _service(provider, delegated=facts.is_delegated)
    scope = f"{service}/{SCOPE}" if facts.is_delegated else f"{service}/.default"
    return Verdict(
        Cause.WRONG_SCOPE,
        f"The token is for {', '.join(facts.audience)}, not for Exchange Online ({service}).",
        f"Set the scope: `tocsin oauth set {name} --scope {scope}`.",
    )


def _is_of_another_tenant(facts: TokenFacts, profile: OAuthProfile) -> bool:
    """Compare ids only: a profile may name its tenant by a domain."""
    told, wanted = facts.tenant or "", profile.tenant_id or ""
    return bool(_GUID.fullmatch(told) and _GUID.fullmatch(wanted)) and told.lower() != wanted.lower()


def _wrong_tenant(facts: TokenFacts, profile: OAuthProfile) -> Verdict:
    return Verdict(
        Cause.WRONG_TENANT,
        f"The token is of tenant {facts.tenant}, the OAuth profile of tenant {profile.tenant_id}.",
        f"Set the tenant that the mailbox is in: `tocsin oauth set {profile.name} --tenant-id ID`.",
    )


def _has_delegated_scope(facts: TokenFacts) -> bool:
    return any(scope.lower() == SCOPE.lower() for scope in facts.scopes)


def _scope_missing(provider: str, facts: TokenFacts, name: str) -> Verdict:
    has = ", ".join(facts.scopes) or "nothing"
    return Verdict(
        Cause.PERMISSION_MISSING,
        f"The token lacks the scope {SCOPE}; it has {has}.",
        f"Give the app registration the delegated permission {SCOPE}, "
        f"`tocsin oauth set {name} --scope {_service(provider, delegated=True)}/{SCOPE}`, and sign in again: "
        f"`tocsin oauth acquire {name}`.",
    )


def _role_missing(facts: TokenFacts) -> Verdict:
    has = ", ".join(facts.roles) or "none"
    return Verdict(
        Cause.PERMISSION_MISSING,
        f"The token lacks the role {ROLE}; it has {has}.",
        f'In Entra, give the app registration the application permission {ROLE} of "Office 365 Exchange Online" '
        "(not Microsoft Graph's), and grant admin consent.",
    )


def _service(provider: str, *, delegated: bool) -> str:
    """Give the address of Exchange Online: for applications the first, for people the last of its names."""
    return _AUDIENCES.get(provider, _AUDIENCES[OAuthProvider.MICROSOFT365])[-1 if delegated else 0]


def _sentence(command: str) -> str:
    return f"{command.rstrip('.')} in Exchange Online PowerShell; it may take up to an hour."
