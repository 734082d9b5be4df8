"""Why a profile does not work: every cause with its verdict and its fix."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.builders import THEN, a_sender_profile, an_oauth_profile
from tocsin_schema.errors import SealError, TocsinError, TokenError
from tocsin_workers.checking.steps import Findings, Step
from tocsin_workers.classification import RULES
from tocsin_workers.diagnosis.causes import Cause, Verdict
from tocsin_workers.diagnosis.certificate import Certificate
from tocsin_workers.diagnosis.connecting import BY_TROUBLE, explain_failed_session
from tocsin_workers.diagnosis.naming import fix_for
from tocsin_workers.diagnosis.verdicts import (
    BY_RULE,
    explain_no_credentials,
    explain_no_token,
    explain_refused_login,
    explain_refused_message,
)
from tocsin_workers.smtp.errors import (
    SmtpAuthError,
    SmtpConnectError,
    SmtpDeadline,
    SmtpDisconnected,
    SmtpSessionError,
    SmtpTlsError,
    Trouble,
)
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply
from tocsin_workers.smtp.tls import TlsMode
from tocsin_workers.tokens.refusal_causes import Cause as TokenCause
from tocsin_workers.tokens.refusals import Refusal, refused

MAILBOX = "news@campus.example"
GOOGLE_JSON = '{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}'
NOT_ACCEPTED = Reply(535, "5.7.8", "Username and Password not accepted. - gsmtp")

GOOGLE = an_oauth_profile(
    name="workspace", provider="google", grant_type="jwt_bearer", scope="https://mail.google.com/", tenant_id=None,
    client_id="mailer@project.iam.gserviceaccount.com", delegation_client_id="104857600000000000001",
    token_endpoint="https://oauth2.googleapis.com/token",
)  # fmt: skip


def refusal(reply: Reply, *, mechanism: str = "XOAUTH2", detail: str | None = None) -> SmtpAuthError:
    return SmtpAuthError("The server refused the credentials.", reply=reply, mechanism=mechanism, detail=detail)


def google(reply: Reply, detail: str | None = GOOGLE_JSON, **profile: Any) -> Verdict | None:
    oauth_profile = an_oauth_profile(**{**{name: getattr(GOOGLE, name) for name in GOOGLE.__slots__}, **profile})
    error = refusal(reply, detail=detail)
    return explain_refused_login(
        "google", MAILBOX, None, error, now=THEN, oauth_profile=oauth_profile, profile_name="news"
    )


def password(provider: str, reply: Reply) -> Verdict | None:
    error = refusal(reply, mechanism="LOGIN")
    return explain_refused_login(provider, MAILBOX, None, error, now=THEN, profile_name="news")


def broken(error: SmtpSessionError, **known: Any) -> Verdict:
    return explain_failed_session(error, profile_name="news", **known)


def says(verdict: Verdict | None, cause: Cause | TokenCause, *words: str) -> None:
    assert verdict is not None
    assert verdict.cause == cause
    assert verdict.fix
    for word in words:
        assert word in f"{verdict.meaning}\n{verdict.fix}", word


# Google.


def test_google_says_the_same_for_a_foreign_mailbox_and_a_missing_scope():
    verdict = google(NOT_ACCEPTED)
    says(
        verdict,
        Cause.TOKEN_OF_ANOTHER_ACCOUNT,
        "primary address: `tocsin profile set news --user ADDRESS`",
        "https://mail.google.com/",
    )
    assert verdict is not None
    assert "sign in" not in verdict.fix
    assert [candidate.cause for candidate in verdict.candidates] == [
        Cause.TOKEN_OF_ANOTHER_ACCOUNT,
        Cause.NOT_A_WORKSPACE_MAILBOX,
        Cause.WRONG_SCOPE,
    ]


def test_a_person_signs_in_again_with_the_command_of_the_profiles_grant():
    says(
        google(NOT_ACCEPTED, grant_type="refresh_token"),
        Cause.TOKEN_OF_ANOTHER_ACCOUNT,
        f"`tocsin oauth set workspace --refresh-token-file F --user {MAILBOX}`",
    )


def test_a_scope_that_gmail_does_not_take_over_smtp_is_named():
    verdict = google(NOT_ACCEPTED, scope="https://www.googleapis.com/auth/gmail.send")
    says(verdict, Cause.WRONG_SCOPE, "gmail.send", "tocsin oauth set workspace --scope https://mail.google.com/")


@pytest.mark.parametrize(
    ("reply", "cause", "words"),
    [
        (Reply(534, "5.7.9", "Application-specific password required."), Cause.APP_PASSWORD_NEEDED, ["2-Step"]),
        (
            Reply(534, "5.7.14", "Please log in via your web browser"),
            Cause.APP_PASSWORD_NEEDED,
            ["`tocsin profile set news --oauth OAUTH`"],
        ),
        (NOT_ACCEPTED, Cause.WRONG_PASSWORD, ["replace-password news", "app password"]),
    ],
)
def test_googles_password_refusals_name_the_app_password(reply: Reply, cause: Cause, words: list[str]):
    says(password("google", reply), cause, *words)


def test_a_user_name_that_google_cannot_read_is_named():
    says(
        google(Reply(555, "5.5.2", "Syntax error, cannot decode response"), None),
        Cause.WRONG_USER_NAME,
        "profile set news --user",
    )


# Other servers.


@pytest.mark.parametrize(
    ("detail", "cause", "words"),
    [
        (
            '{"status":"insufficient_scope","scope":"https://mail.example/smtp"}',
            Cause.WRONG_SCOPE,
            ["https://mail.example/smtp"],
        ),
        ('{"status":"401","scope":"mail.send"}', Cause.WRONG_SCOPE, ["--scope mail.send`"]),
        ('{"status":"401","scope":"a b\';rm"}', Cause.WRONG_SCOPE, ["--scope 'a b'\"'\"';rm'`"]),
        ('{"status":"invalid_token","schemes":"bearer"}', Cause.TOKEN_REFUSED, ["tocsin oauth show"]),
        ("no JSON", Cause.TOKEN_REFUSED, []),
        ("[1]", Cause.TOKEN_REFUSED, []),
        ('{"status":5,"scope":null}', Cause.TOKEN_REFUSED, []),
        (None, Cause.TOKEN_REFUSED, []),
    ],
)
def test_the_json_of_a_refusal_is_read_where_there_is_some(detail: str | None, cause: Cause, words: list[str]):
    error = refusal(Reply(535, "5.7.8", "no"), mechanism="OAUTHBEARER", detail=detail)
    verdict = explain_refused_login(
        "custom", MAILBOX, None, error, now=THEN, oauth_profile=an_oauth_profile(provider="custom", scope="openid")
    )
    says(verdict, cause, *words)
    assert verdict is not None
    assert "535" not in verdict.meaning  # the error says it


@pytest.mark.parametrize("provider", ["custom", "ses", "microsoft365"])
def test_a_refused_password_names_the_command_that_replaces_it(provider: str):
    refused = password(provider, Reply(535, None, "no"))
    says(refused, Cause.WRONG_PASSWORD, "tocsin profile replace-password news")
    assert refused is not None
    assert "535" not in refused.meaning  # the error says it


# The way to the server.


@pytest.mark.parametrize("trouble", list(Trouble))
def test_every_trouble_has_its_cause(trouble: Trouble):
    verdict = broken(SmtpConnectError("No.", phase=Phase.CONNECT, trouble=trouble, fix="Set --host."))
    says(verdict, BY_TROUBLE[trouble])
    assert len(set(BY_TROUBLE.values())) == len(Trouble)
    assert "Set --host." not in verdict.fix


@pytest.mark.parametrize(
    ("trouble", "known", "command"),
    [
        (Trouble.UNKNOWN_HOST, {}, "tocsin profile set news --host HOST"),
        (Trouble.CONNECTION_REFUSED, {}, "tocsin profile set news --host HOST --port PORT"),
        (Trouble.NO_ANSWER, {}, "tocsin profile set news --host HOST --port PORT"),
        (Trouble.NO_GREETING, {}, "tocsin profile set news --port 465 --tls implicit"),
        (Trouble.STARTTLS_NOT_OFFERED, {}, "tocsin profile set news --port 465 --tls implicit"),
        (Trouble.HANDSHAKE_FAILED, {"tls": TlsMode.IMPLICIT}, "tocsin profile set news --port 587 --tls starttls"),
        (Trouble.CERTIFICATE_FOR_ANOTHER_NAME, {}, "tocsin profile set news --host HOST"),
        (Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY, {}, "tocsin profile set news --ca-file FILE"),
        (Trouble.CERTIFICATE_NOT_TRUSTED, {}, "tocsin profile set news --ca-file FILE"),
        (Trouble.AUTH_NOT_OFFERED, {}, "tocsin profile set news --auth none"),
        (Trouble.MECHANISM_NOT_OFFERED, {}, "tocsin profile set news --oauth OAUTH"),
        (Trouble.MECHANISM_NOT_OFFERED, {"uses_oauth": True}, "tocsin profile set news --auth basic --password-file F"),
        (Trouble.PLAINTEXT, {}, "tocsin profile set news --tls starttls"),
    ],
)
def test_a_trouble_on_the_way_is_answered_with_the_whole_command(trouble: Trouble, known: Any, command: str):
    error = SmtpConnectError("No.", phase=Phase.CONNECT, trouble=trouble)
    says(broken(error, **known), BY_TROUBLE[trouble], f"`{command}")


@pytest.mark.parametrize("trouble", [Trouble.CONNECTION_REFUSED, Trouble.UNREACHABLE])
def test_a_server_that_does_not_answer_is_first_of_all_taken_to_be_down(trouble: Trouble):
    verdict = broken(SmtpConnectError("No.", phase=Phase.CONNECT, trouble=trouble))
    assert verdict.fix.startswith("The mail server may be down")


def test_credentials_that_were_not_sent_are_told_with_the_profiles_name():
    error = SmtpAuthError("Not sent without TLS.", trouble=Trouble.PLAINTEXT)
    verdict = explain_refused_login("custom", MAILBOX, None, error, now=THEN, profile_name="news")
    says(verdict, Cause.PLAINTEXT, "`tocsin profile set news --tls starttls`")


def test_silence_is_blamed_on_a_firewall():
    error = SmtpDeadline("No answer.", phase=Phase.CONNECT, trouble=Trouble.NO_ANSWER)
    says(broken(error), Cause.FIREWALL, "firewall", "port 25")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (SmtpDeadline("Too slow.", phase=Phase.EHLO), Cause.TOO_SLOW),
        (SmtpDisconnected("Gone.", phase=Phase.AUTH), Cause.CONNECTION_LOST),
        (SmtpTlsError("No TLS.", phase=Phase.TLS), Cause.TLS_FAILED),
        (SmtpConnectError("No.", phase=Phase.GREETING, reply=Reply(554, None, "No service")), Cause.SERVER_REFUSES_US),
        (SmtpConnectError("No.", phase=Phase.GREETING, reply=Reply(421, None, "Later")), Cause.SERVER_BUSY),
    ],
)
def test_what_else_ends_a_session_has_a_cause_too(error: SmtpSessionError, cause: Cause):
    says(broken(error), cause)


def test_a_certificate_for_another_name_is_answered_with_the_names_that_it_holds():
    day = datetime(2026, 1, 1, tzinfo=UTC)
    names = ("*.example.org", "x; reboot", "mail.example.org", "smtp.example.org")
    certificate = Certificate("mail", "Example CA", names, day, day)
    error = SmtpTlsError("Wrong name.", phase=Phase.TLS, trouble=Trouble.CERTIFICATE_FOR_ANOTHER_NAME)
    says(
        broken(error, certificate=certificate),
        Cause.CERTIFICATE_FOR_ANOTHER_NAME,
        "`tocsin profile set news --host mail.example.org` (or another of mail.example.org, smtp.example.org)",
        "Example CA",
    )
    wild = Certificate("mail", "Example CA", ("*.example.org",), day, day)
    says(
        broken(error, certificate=wild),
        Cause.CERTIFICATE_FOR_ANOTHER_NAME,
        "(*.example.org): `tocsin profile set news --host HOST`",
    )


# Getting a token.


@pytest.mark.parametrize(
    ("profile", "answer", "cause", "words"),
    [
        (
            an_oauth_profile(),
            Refusal("invalid_client", "AADSTS7000222: The provided client secret keys for app are expired."),
            TokenCause.SECRET_EXPIRED,
            ["expired", "replace-secret campus"],
        ),
        (
            an_oauth_profile(),
            Refusal("invalid_client", "AADSTS7000215: Invalid client secret provided."),
            TokenCause.SECRET_WRONG,
            ["replace-secret campus"],
        ),
        (
            GOOGLE,
            Refusal("unauthorized_client", "Client is unauthorized to retrieve access tokens using this method."),
            TokenCause.DELEGATION_MISSING,
            ["104857600000000000001", "https://mail.google.com/", "Admin console"],
        ),
        (
            GOOGLE,
            Refusal("invalid_grant", "Invalid email or User ID"),
            TokenCause.NO_SUCH_MAILBOX,
            [f"`tocsin profile set news --user ADDRESS` (now {MAILBOX})"],
        ),
    ],
)
def test_a_token_endpoints_refusal_keeps_its_cause_and_its_fix(
    profile: Any, answer: Refusal, cause: TokenCause, words: list[str]
):
    error = refused(profile, answer, (), mailbox=MAILBOX)
    says(explain_no_token(error, profile, profile_name="news", login=MAILBOX), cause, *words)
    # As the ledger gives it back to whoever asks too early.
    kept = TokenError(error.problem, fix=error.fix, permanent=error.permanent, code=error.code)
    says(explain_no_token(kept, profile, profile_name="news", login=MAILBOX), cause, *words)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TokenError("The endpoint is not available (HTTP 503)."), Cause.TOKEN_ENDPOINT_AWAY),
        (TokenError("Nobody signed in.", permanent=True, code="not_signed_in"), Cause.SIGN_IN_NEEDED),
        (TokenError("It has no scope.", permanent=True), Cause.NO_CREDENTIALS),
        (TokenError("Odd.", permanent=True, code="odd"), Cause.TOKEN_REFUSED_BY_ENDPOINT),
    ],
)
def test_no_token_for_other_reasons_has_a_cause_too(error: TokenError, cause: Cause):
    says(explain_no_token(error, an_oauth_profile(), profile_name="news", login=MAILBOX), cause)


def test_a_secret_that_does_not_open_is_a_cause():
    told = explain_no_credentials(SealError("No master key.", fix="Restore it."), profile_name="news")
    says(told, Cause.NO_CREDENTIALS, "Restore it.")
    told = explain_no_credentials(SealError("It does not open."), profile_name="news")
    says(told, Cause.NO_CREDENTIALS, "`tocsin profile replace-password news`")


# Sending.


@pytest.mark.parametrize(
    ("phase", "reply", "cause"),
    [
        (Phase.MAIL, Reply(550, "5.1.8", "Access denied, bad outbound sender"), Cause.SENDER_BLOCKED),
        (Phase.MAIL, Reply(553, "5.7.1", "Sender address rejected: not owned by user"), Cause.SENDER_REFUSED),
        (Phase.MAIL, Reply(530, "5.7.57", "Client not authenticated to send mail"), Cause.NOT_LOGGED_IN),
        (Phase.MAIL, Reply(530, None, "Authentication required"), Cause.NOT_LOGGED_IN),
        (Phase.FINAL, Reply(550, "5.4.5", "Daily user sending limit exceeded."), Cause.QUOTA_USED_UP),
        (Phase.RCPT, Reply(550, "5.1.1", "No such user"), Cause.RECIPIENT_REFUSED),
        (Phase.FINAL, Reply(554, "5.7.1", "Message content rejected"), Cause.MESSAGE_REFUSED),
        (Phase.FINAL, Reply(554, "5.2.2", "STOREDRV.ClientSubmit; mailbox full"), Cause.MAILBOX_FULL),
        (Phase.MAIL, Reply(451, "4.3.0", "Try again later"), Cause.SERVER_BUSY),
    ],
)
def test_a_refused_sender_or_message_has_a_cause(phase: Phase, reply: Reply, cause: Cause):
    verdict = explain_refused_message(
        phase, reply, login=MAILBOX, from_address=MAILBOX, token_facts=None, profile_name="news"
    )
    says(verdict, cause)
    if cause is Cause.SENDER_REFUSED:
        assert "`tocsin profile set news --from ADDRESS`" in verdict.fix
    if cause is Cause.NOT_LOGGED_IN:
        assert "`tocsin profile set news --oauth OAUTH`" in verdict.fix
        assert "`tocsin profile set news --auth basic --password-file FILE`" in verdict.fix


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (
            SmtpTlsError("No.", phase=Phase.TLS, trouble=Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY, fix="--ca-file"),
            "`tocsin profile set news --ca-file FILE`",
        ),
        (
            SmtpTlsError("No.", phase=Phase.TLS, trouble=Trouble.HANDSHAKE_FAILED),
            "`tocsin profile set news --port 587 --tls starttls`",
        ),
        (
            refused(GOOGLE, Refusal("invalid_grant", "Not a valid email."), ()),
            "`tocsin profile set news --user ADDRESS`",
        ),
        (SealError("No key.", fix="Restore it."), "Restore it."),
    ],
    ids=["certificate", "handshake", "token", "key"],
)
def test_a_sender_gives_the_profiles_names_to_an_error_that_lacks_them(error: TocsinError, fix: str):
    assert fix in str(fix_for(error, a_sender_profile(name="news", tls="implicit")))


def test_what_only_has_to_be_waited_for_keeps_having_no_fix():
    assert fix_for(TokenError("Not available (HTTP 503)."), a_sender_profile()) is None


# The tables.


def test_the_rows_that_name_their_cause_are_in_the_classification():
    assert set(BY_RULE) <= {rule.name for rule in RULES}


# Steps.


def test_a_step_that_was_not_tried_names_what_stood_in_its_way():
    findings = Findings()
    findings.fail(Step.TOKEN, Verdict(Cause.NO_CREDENTIALS, "No key.", "Restore it."))
    findings.fail(Step.TCP, Verdict(Cause.CONNECTION_REFUSED, "No.", "Check it."))
    details = {result.step: result.detail for result in findings.report("news", is_paused=False).steps}
    assert list(details) == list(Step)
    assert details[Step.TLS] == details[Step.MAIL_FROM] == "not tried: tcp failed"
    assert details[Step.NAME] == "not tried: tcp failed"
