"""Why a profile at Microsoft does not work: the token's own claims, and replies that name their cause or do not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.builders import CLIENT_ID, TENANT, THEN, an_oauth_profile
from tests.unit.test_check_verdicts import MAILBOX, broken, refusal, says
from tocsin_workers.diagnosis.causes import Cause, Verdict
from tocsin_workers.diagnosis.verdicts import (
    doubt_token,
    explain_refused_login,
    explain_refused_message,
)
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply
from tocsin_workers.tokens.token_facts import TokenFacts

CAPITAL = MAILBOX.title()
OBJECT_ID = "77777777-6666-4555-8444-333333333333"
OTHER_TENANT = "22222222-2222-4333-8444-555555555555"
UNSUCCESSFUL = Reply(535, "5.7.3", "Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]")


def app_token(**claims: Any) -> TokenFacts:
    """Give what a right token of an application says, but for the given claims."""
    usual = {
        "audience": ("https://outlook.office365.com",),
        "roles": ("SMTP.SendAsApp",),
        "tenant": TENANT,
        "application": CLIENT_ID,
        "object_id": OBJECT_ID,
        "expires_at": THEN + timedelta(hours=1),
    }
    return TokenFacts(**{**usual, **claims})


def persons_token(**claims: Any) -> TokenFacts:
    usual = {"roles": (), "scopes": ("SMTP.Send",), "user": MAILBOX, "audience": ("https://outlook.office.com",)}
    return app_token(**{**usual, **claims})


def microsoft(reply: Reply, facts: TokenFacts | None = None, **profile: Any) -> Verdict | None:
    return explain_refused_login(
        "microsoft365",
        MAILBOX,
        facts,
        refusal(reply),
        now=THEN,
        oauth_profile=an_oauth_profile(**profile),
        profile_name="news",
    )


def doubt(facts: TokenFacts, provider: str = "microsoft365", host: str | None = None, **profile: Any) -> Verdict | None:
    oauth_profile = an_oauth_profile(provider=provider, **profile)
    return doubt_token(provider, facts, now=THEN, oauth_profile=oauth_profile, login=MAILBOX, host=host)


# What the token says of itself.


@pytest.mark.parametrize(
    ("facts", "cause", "words"),
    [
        (
            app_token(audience=("https://graph.microsoft.com",)),
            Cause.WRONG_SCOPE,
            ["https://graph.microsoft.com", "tocsin oauth set campus --scope https://outlook.office365.com/.default"],
        ),
        (
            persons_token(audience=("00000003-0000-0000-c000-000000000000",)),
            Cause.WRONG_SCOPE,
            ["tocsin oauth set campus --scope https://outlook.office.com/SMTP.Send"],
        ),
        (app_token(tenant=OTHER_TENANT), Cause.WRONG_TENANT, [OTHER_TENANT, TENANT, "--tenant-id"]),
        (app_token(expires_at=THEN - timedelta(seconds=1)), Cause.TOKEN_EXPIRED, ["clocks"]),
        (
            app_token(roles=("IMAP.AccessAsApp",)),
            Cause.PERMISSION_MISSING,
            ["IMAP.AccessAsApp", "SMTP.SendAsApp", "Office 365 Exchange Online", "admin consent"],
        ),
        (app_token(roles=()), Cause.PERMISSION_MISSING, ["has none"]),
        (
            persons_token(scopes=("User.Read", "Mail.Send")),
            Cause.PERMISSION_MISSING,
            ["SMTP.Send", "Mail.Send", "--scope https://outlook.office.com/SMTP.Send", "tocsin oauth acquire campus"],
        ),
    ],
)
def test_a_wrong_claim_of_the_token_is_named_before_any_guess(facts: TokenFacts, cause: Cause, words: list[str]):
    says(microsoft(UNSUCCESSFUL, facts, scope="mail"), cause, *words)
    says(doubt(facts, scope="mail"), cause, *words)


@pytest.mark.parametrize(
    "facts",
    [
        app_token(),
        app_token(audience=("https://outlook.office365.com/",)),
        app_token(audience=("00000002-0000-0ff1-ce00-000000000000",)),
        app_token(tenant=TENANT.upper()),
        app_token(audience=(), expires_at=None, tenant=None),
        persons_token(scopes=("https", "smtp.send")),
    ],
)
def test_a_right_token_raises_no_doubt(facts: TokenFacts):
    assert doubt(facts) is None


def test_a_tenant_that_is_named_by_its_domain_is_not_compared():
    assert doubt(app_token(), tenant_id="campus.onmicrosoft.com") is None


@pytest.mark.parametrize(
    ("provider", "audience"),
    [
        ("microsoft365-gcc-high", "https://outlook.office365.us"),
        ("microsoft365-dod", "https://outlook-dod.office365.us"),
        ("microsoft365-china", "https://partner.outlook.cn"),
    ],
)
def test_each_national_cloud_has_its_own_audience(provider: str, audience: str):
    own = app_token(audience=(audience,))
    assert doubt(own, provider) is None
    foreign = doubt(app_token(), provider)
    says(foreign, Cause.WRONG_SCOPE, f"--scope {audience}/.default")


@pytest.mark.parametrize(
    ("facts", "profile"),
    [
        (app_token(audience=("https://graph.microsoft.com",)), {}),
        (
            persons_token(audience=("https://graph.microsoft.com",)),
            {"grant_type": "device_code", "scope": "offline_access https://outlook.office.com/SMTP.Send"},
        ),
    ],
    ids=["application", "person"],
)
def test_a_token_from_before_the_scope_was_put_right_is_replaced_and_the_scope_is_left(facts: TokenFacts, profile: Any):
    verdict = doubt(facts, **profile)
    says(verdict, Cause.WRONG_SCOPE, "older", "`tocsin oauth check campus`")
    assert verdict is not None
    assert "--scope" not in verdict.fix


def test_a_missing_permission_with_the_right_scope_leaves_the_scope_as_it_is():
    facts = persons_token(scopes=("Mail.Send",))
    verdict = doubt(facts, grant_type="device_code", scope="https://outlook.office.com/SMTP.Send")
    says(verdict, Cause.PERMISSION_MISSING, f"`tocsin oauth acquire campus --user {MAILBOX}`")
    assert verdict is not None
    assert "--scope" not in verdict.fix


@pytest.mark.parametrize("host", ["smtp-hve.office365.com", "smtp.hve.mx.microsoft", "SMTP.hve.mx.microsoft"])
def test_high_volume_email_takes_a_role_of_its_own(host: str):
    assert doubt(app_token(roles=("Mail.Send",)), host=host) is None
    assert doubt(app_token(), host=host) is None
    says(doubt(app_token(roles=()), host=host), Cause.PERMISSION_MISSING, "role Mail.Send")
    says(doubt(app_token(roles=("Mail.Send",)), host="smtp.office365.com"), Cause.PERMISSION_MISSING, "SMTP.SendAsApp")


# 535 5.7.3 with a right token says the same for several causes.


def test_what_microsoft_does_not_tell_apart_is_told_apart_in_order_with_the_tokens_own_ids():
    verdict = microsoft(UNSUCCESSFUL, app_token())
    says(verdict, Cause.NOT_REGISTERED_OR_NO_PERMISSION, MAILBOX)
    assert verdict is not None
    candidates = {candidate.cause: candidate for candidate in verdict.candidates}
    assert list(candidates) == [
        Cause.SERVICE_PRINCIPAL_NOT_REGISTERED,
        Cause.WRONG_OBJECT_ID,
        Cause.MAILBOX_PERMISSION_MISSING,
        Cause.SMTP_AUTH_OFF_FOR_MAILBOX,
        Cause.SMTP_AUTH_OFF_FOR_TENANT,
    ]
    register = f"New-ServicePrincipal -AppId {CLIENT_ID} -ObjectId {OBJECT_ID}"
    unregistered = candidates[Cause.SERVICE_PRINCIPAL_NOT_REGISTERED]
    assert f"Get-ServicePrincipal -Identity {CLIENT_ID}" in unregistered.look
    assert register in unregistered.fix
    wrong_id = candidates[Cause.WRONG_OBJECT_ID]
    assert OBJECT_ID in wrong_id.look
    assert f"Remove-ServicePrincipal -Identity {CLIENT_ID}" in wrong_id.fix
    assert register in wrong_id.fix
    permission = candidates[Cause.MAILBOX_PERMISSION_MISSING]
    assert f"Add-MailboxPermission -Identity {MAILBOX} -User {OBJECT_ID} -AccessRights FullAccess" in permission.fix
    assert all(str(candidate) in verdict.fix for candidate in verdict.candidates)


def test_without_a_readable_token_the_commands_say_where_the_ids_are():
    says(microsoft(UNSUCCESSFUL), Cause.NOT_REGISTERED_OR_NO_PERMISSION, "<object id>", "not App registrations")


def test_a_person_who_signed_in_for_another_mailbox_is_named():
    verdict = microsoft(UNSUCCESSFUL, persons_token(user="ada@campus.example"))
    says(
        verdict,
        Cause.TOKEN_OF_ANOTHER_ACCOUNT,
        "ada@campus.example",
        f"`tocsin oauth acquire campus --user {MAILBOX}`",
        f"Add-MailboxPermission -Identity {MAILBOX} -User ada@campus.example -AccessRights FullAccess",
    )


def test_a_person_with_a_right_token_is_pointed_at_what_is_left():
    verdict = microsoft(UNSUCCESSFUL, persons_token())
    says(verdict, Cause.NOT_REGISTERED_OR_NO_PERMISSION, "Set-CASMailbox", "sign-in log")


# Replies that name their cause.


@pytest.mark.parametrize(
    ("reply", "cause", "words"),
    [
        (
            Reply(535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox."),
            Cause.SMTP_AUTH_OFF_FOR_MAILBOX,
            [f"Set-CASMailbox -Identity {MAILBOX} -SmtpClientAuthenticationDisabled $false"],
        ),
        (
            Reply(535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."),
            Cause.SMTP_AUTH_OFF_FOR_TENANT,
            [f"Set-CASMailbox -Identity {MAILBOX}", "Set-TransportConfig -SmtpClientAuthenticationDisabled $false"],
        ),
        (
            Reply(535, "5.7.139", "user is locked by your organization's security defaults policy."),
            Cause.SECURITY_DEFAULTS,
            ["`tocsin profile set news --oauth OAUTH`"],
        ),
        (
            Reply(535, "5.7.139", "the request did not meet the criteria to be authenticated successfully."),
            Cause.CONDITIONAL_ACCESS,
            ["sign-in log"],
        ),
        (
            Reply(535, "5.7.139", "basic authentication is disabled."),
            Cause.BASIC_AUTH_OFF,
            ["`tocsin profile set news --oauth OAUTH`"],
        ),
        (
            Reply(550, "5.7.30", "Basic authentication is not supported for Client Submission."),
            Cause.BASIC_AUTH_OFF,
            ["`tocsin profile set news --oauth OAUTH`"],
        ),
        (
            Reply(535, "5.7.139", "the user credentials were incorrect."),
            Cause.WRONG_PASSWORD,
            ["`tocsin profile replace-password news`"],
        ),
        (
            Reply(501, "5.5.124", "Invalid XOAUTH2 auth data"),
            Cause.WRONG_USER_NAME,
            ["profile set news --user", MAILBOX],
        ),
        (Reply(530, "5.7.57", "Client not authenticated to send mail."), Cause.NOT_LOGGED_IN, ["SMTP AUTH is on"]),
    ],
)
def test_a_microsoft_reply_that_names_its_cause_is_taken_at_its_word(reply: Reply, cause: Cause, words: list[str]):
    with_password = cause in (Cause.SECURITY_DEFAULTS, Cause.BASIC_AUTH_OFF)
    error = refusal(reply, mechanism="LOGIN" if with_password else "XOAUTH2")
    says(explain_refused_login("microsoft365", MAILBOX, None, error, now=THEN, profile_name="news"), cause, *words)


def test_who_logs_in_by_oauth_already_is_not_told_to():
    verdict = microsoft(Reply(530, "5.7.57", "Client not authenticated to send mail."), app_token())
    assert verdict is not None
    assert "--oauth" not in verdict.fix


@pytest.mark.parametrize(
    ("phase", "reply"),
    [
        (Phase.MAIL, Reply(550, "5.7.60", "SMTP; Client does not have permissions to send as this sender")),
        (Phase.FINAL, Reply(554, "5.2.252", "SendAsDenied; a@x.test not allowed to send as b@x.test")),
        (Phase.FINAL, Reply(554, "5.2.0", "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSend")),
    ],
)
def test_a_login_that_may_not_send_as_the_sender_is_told_the_command(phase: Phase, reply: Reply):
    verdict = explain_refused_message(
        phase, reply, login=MAILBOX, from_address="dean@campus.example", token_facts=app_token(), profile_name="news"
    )
    says(
        verdict,
        Cause.SEND_AS_DENIED,
        f"Add-RecipientPermission -Identity dean@campus.example -Trustee {OBJECT_ID}",
        f"`tocsin profile set news --from {MAILBOX}`",
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (app_token(), ["FullAccess alone", f"Add-RecipientPermission -Identity {CAPITAL} -Trustee {OBJECT_ID}"]),
        (
            persons_token(user="ada@campus.example"),
            ["FullAccess alone", f"Add-RecipientPermission -Identity {CAPITAL} -Trustee ada@campus.example"],
        ),
        (persons_token(user=MAILBOX.upper()), ["alias", "`tocsin profile set news --user ADDRESS --from ADDRESS`"]),
        (None, ["alias", "`tocsin profile set news --user ADDRESS --from ADDRESS`"]),
    ],
    ids=["application", "another person", "the mailbox itself", "a password"],
)
def test_a_mailbox_that_may_not_send_as_itself_is_not_told_to_send_as_itself(
    facts: TokenFacts | None, words: list[str]
):
    reply = Reply(554, "5.2.252", "SendAsDenied")
    verdict = explain_refused_message(
        Phase.FINAL, reply, login=MAILBOX, from_address=CAPITAL, token_facts=facts, profile_name="news"
    )
    says(verdict, Cause.SEND_AS_DENIED, *words)
    assert "own address" not in verdict.fix


@pytest.mark.parametrize(
    "reply",
    [
        Reply(454, "4.7.0", "Temporary authentication failure"),
        Reply(454, "4.7.0", "Too many login attempts"),
        Reply(421, None, "Too many concurrent SMTP connections"),
    ],
)
def test_a_throttled_log_in_is_no_refusal(reply: Reply):
    assert microsoft(reply, app_token()) is None
    says(broken(refusal(reply)), Cause.SERVER_BUSY)
