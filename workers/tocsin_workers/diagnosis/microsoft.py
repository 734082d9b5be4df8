"""What Microsoft 365 says when it lets nobody in, and what a token's claims tell beyond it. Pure.

Exchange Online answers most mistakes with the one text `535 5.7.3 Authentication unsuccessful`. But an application's
own token says who it is: its `oid` is the object id of the service principal under Enterprise applications, the one
that `New-ServicePrincipal` wants, so the commands that mend it can be given word for word.

Source: learn.microsoft.com, "Authenticate an IMAP, POP or SMTP connection using OAuth"; for the replies see
`classification.microsoft`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, exchange_online, usual_scope
from tocsin_workers.diagnosis.causes import Candidate, Cause, Verdict
from tocsin_workers.tokens.refusal_fixes import has_usual_scope, how_to_sign_in

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.token_facts import TokenFacts

ROLE = "SMTP.SendAsApp"
SCOPE = "SMTP.Send"
#: High Volume Email takes another role, from an application of the same service (learn.microsoft.com: "OAuth for High
#: Volume Email").
_HVE_HOSTS = frozenset({"smtp-hve.office365.com", "smtp.hve.mx.microsoft"})
_HVE_ROLE = "Mail.Send"

#: Exchange Online's own application id, which stands as the audience where a token was asked for by it.
_EXCHANGE_ONLINE = "00000002-0000-0ff1-ce00-000000000000"
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_microsoft(provider: str) -> bool:
    """Whether a provider is Microsoft's worldwide or one of its national clouds."""
    return provider in MICROSOFT_CLOUDS


def doubt_token(
    provider: str,
    facts: TokenFacts,
    *,
    now: datetime,
    oauth_profile: OAuthProfile | None,
    login: str,
    host: str | None,
) -> Verdict | None:
    """Say what is wrong with a token by its own claims; None where they are as they should be."""
    if facts.audience and not _is_for_exchange(provider, facts):
        return _wrong_audience(provider, facts, oauth_profile)
    if oauth_profile is not None and _is_of_another_tenant(facts, oauth_profile):
        return _wrong_tenant(facts, oauth_profile)
    if facts.expires_at is not None and facts.expires_at <= now:
        return Verdict(
            Cause.TOKEN_EXPIRED,
            f"The token says that it expired at {facts.expires_at:%Y-%m-%dT%H:%M:%SZ}.",
            "Set the clocks of this machine and of Postgres right (NTP).",
        )
    if facts.is_delegated:
        return None if _has_delegated_scope(facts) else _scope_missing(provider, facts, oauth_profile, login)
    is_hve = host is not None and host.lower() in _HVE_HOSTS
    if ROLE in facts.roles or (is_hve and _HVE_ROLE in facts.roles):
        return None
    return _role_missing(facts, _HVE_ROLE if is_hve else ROLE)


def refused_for_no_reason(login: str, facts: TokenFacts | None, oauth_profile: OAuthProfile | None) -> Verdict:
    """Answer `535 5.7.3` with a token whose claims are as they should be, or cannot be read."""
    if facts is not None and facts.is_delegated:
        return _refused_person(login, facts, oauth_profile)
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


def send_as_denied(login: str, from_address: str, facts: TokenFacts | None, profile_name: str) -> Verdict:
    """Answer SendAsDenied and 5.7.60."""
    trustee = _trustee(login, facts)
    allow = (
        f"`Add-RecipientPermission -Identity {from_address} -Trustee {trustee} -AccessRights SendAs` in Exchange "
        "Online PowerShell (it may take up to an hour)"
    )
    if login.lower() != from_address.lower():
        return Verdict(
            Cause.SEND_AS_DENIED,
            f"The login {login} may not send as {from_address}.",
            f"{allow}, or send from the login's own address: `tocsin profile set {profile_name} --from {login}`.",
        )
    if trustee != login:
        return Verdict(
            Cause.SEND_AS_DENIED,
            f"{trustee} may log in to the mailbox {login} and not send as it: FullAccess alone does not do.",
            f"{allow}.",
        )
    return Verdict(
        Cause.SEND_AS_DENIED,
        f"The mailbox that logs in as {login} may not send as it: mostly because that is an alias.",
        f"Use the mailbox's primary address (`Get-EXOMailbox -Identity {login}` shows it as PrimarySmtpAddress): "
        f"`tocsin profile set {profile_name} --user ADDRESS --from ADDRESS`; where it is the primary one: {allow}.",
    )


def _trustee(login: str, facts: TokenFacts | None) -> str:
    """Name who sends: the application, or the person who signed in, which may be another than the mailbox."""
    if facts is None:
        return login
    who = facts.user if facts.is_delegated else facts.object_id
    return login if who is None or who.lower() == login.lower() else who


def _refused_person(login: str, facts: TokenFacts, oauth_profile: OAuthProfile | None) -> Verdict:
    user = facts.user or "<user>"
    sign_in = f"sign in again as {login}"
    if oauth_profile is not None:
        sign_in = how_to_sign_in(oauth_profile, login, again=True)
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
            f"{sign_in}.",
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
    wanted = {*exchange_online(provider), _EXCHANGE_ONLINE}
    return any(audience.lower().rstrip("/") in wanted for audience in facts.audience)


def _wrong_audience(provider: str, facts: TokenFacts, oauth_profile: OAuthProfile | None) -> Verdict:
    service = exchange_online(provider)[-1 if facts.is_delegated else 0]
    meaning = f"The token is for {', '.join(facts.audience)}, not for Exchange Online ({service})."
    if oauth_profile is not None and has_usual_scope(oauth_profile):
        return Verdict(
            Cause.WRONG_SCOPE,
            meaning,
            f"The OAuth profile's scope is right, so the token is older than it: `tocsin oauth check "
            f"{oauth_profile.name}` asks for a new one. Should that be for another service too, the token endpoint is "
            f"the wrong one: `tocsin oauth show {oauth_profile.name}`.",
        )
    return Verdict(Cause.WRONG_SCOPE, meaning, f"Set the scope: {_set_scope(provider, facts, oauth_profile)}.")


def _set_scope(provider: str, facts: TokenFacts, oauth_profile: OAuthProfile | None) -> str:
    name = "NAME" if oauth_profile is None else oauth_profile.name
    return f"`tocsin oauth set {name} --scope {usual_scope(provider, acts_for_person=facts.is_delegated)}`"


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


def _scope_missing(provider: str, facts: TokenFacts, oauth_profile: OAuthProfile | None, login: str) -> Verdict:
    has = ", ".join(facts.scopes) or "nothing"
    steps = [f"Give the app registration the delegated permission {SCOPE}"]
    if oauth_profile is None or not has_usual_scope(oauth_profile):
        steps.append(_set_scope(provider, facts, oauth_profile))
    again = "sign in again" if oauth_profile is None else how_to_sign_in(oauth_profile, login, again=True)
    return Verdict(
        Cause.PERMISSION_MISSING,
        f"The token lacks the scope {SCOPE}; it has {has}.",
        f"{', '.join(steps)}, and {again}.",
    )


def _role_missing(facts: TokenFacts, role: str) -> Verdict:
    has = ", ".join(facts.roles) or "none"
    return Verdict(
        Cause.PERMISSION_MISSING,
        f"The token lacks the role {role}; it has {has}.",
        f'In Entra, give the app registration the application permission {role} of "Office 365 Exchange Online" '
        "(not Microsoft Graph's), and grant admin consent.",
    )


def _sentence(command: str) -> str:
    return f"{command.rstrip('.')} in Exchange Online PowerShell; it may take up to an hour."
