"""Why a mail server lets nobody in or takes no sender, as a check tells it, against real servers."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.servers.checked_profiles import (
    EXCHANGE,
    MAILBOX,
    OBJECT_ID,
    PASSWORD,
    UNSUCCESSFUL,
    CheckedInstallation,
    gives,
    mail_server,
    microsoft_token,
)
from tests.servers.token_endpoint import CLIENT_ID, json_reply
from tocsin_schema.ledger.sending_profile_rules import Tls
from tocsin_workers.checking.steps import Step, StepVerdict
from tocsin_workers.diagnosis.causes import Cause
from tocsin_workers.tokens.refusal_causes import Cause as TokenCause

# Signing in.


async def test_a_password_does_not_go_without_tls(installation: CheckedInstallation):
    async with mail_server(passwords={"u": PASSWORD}) as server:
        name = await installation.add_profile(server, password=PASSWORD, tls=Tls.NONE)
        seen = await installation.check(name)
        seen.failed(Step.AUTH, Cause.PLAINTEXT, f"`tocsin profile set {name} --tls starttls`")
        assert server.connections == 0


@pytest.mark.parametrize(
    ("claims", "reply", "cause", "words"),
    [
        (
            {},
            UNSUCCESSFUL,
            Cause.NOT_REGISTERED_OR_NO_PERMISSION,
            [
                f"Get-ServicePrincipal -Identity {CLIENT_ID}",
                f"New-ServicePrincipal -AppId {CLIENT_ID} -ObjectId {OBJECT_ID}",
                f"-User {OBJECT_ID} -AccessRights FullAccess",
            ],
        ),
        ({"aud": "https://graph.microsoft.com"}, UNSUCCESSFUL, Cause.WRONG_SCOPE, ["5.7.3", "token step"]),
        ({"roles": []}, UNSUCCESSFUL, Cause.PERMISSION_MISSING, ["5.7.3", "token step"]),
        (
            {},
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit x",
            Cause.SMTP_AUTH_OFF_FOR_MAILBOX,
            ["Set-CASMailbox -Identity"],
        ),
        (
            {},
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit x",
            Cause.SMTP_AUTH_OFF_FOR_TENANT,
            ["Set-TransportConfig"],
        ),
        ({}, "501 5.5.124 Invalid XOAUTH2 auth data", Cause.WRONG_USER_NAME, ["--user"]),
        ({}, "454 4.7.0 Temporary authentication failure", Cause.SERVER_BUSY, []),
    ],
)
async def test_what_microsoft_refuses_is_told_with_its_cause_and_the_commands_that_mend_it(
    installation: CheckedInstallation, claims: dict[str, Any], reply: str, cause: Cause, words: list[str]
):
    token = microsoft_token(**claims)
    installation.endpoint.misbehave(gives(token))
    async with mail_server(extensions=EXCHANGE, answers={"AUTH": reply}) as server:
        oauth = await installation.add_oauth_profile(provider="microsoft365")
        seen = await installation.check(await installation.add_profile(server, oauth=oauth))
        seen.failed(Step.AUTH, cause, *words)
        # It was obtained in this check: another one would fare no better.
        assert server.verbs().count("AUTH") == 1
    if claims:
        seen.says(Step.TOKEN, StepVerdict.WARNING, cause, "The token")
        assert seen[Step.TOKEN].fix != seen[Step.AUTH].fix
    else:
        assert seen[Step.TOKEN].verdict is StepVerdict.OK
    assert installation.endpoint.token_requests == 1
    assert token not in str(seen.report)


async def test_a_token_from_before_a_permission_was_granted_is_replaced_once(installation: CheckedInstallation):
    old, new = microsoft_token(roles=[]), microsoft_token()
    installation.endpoint.misbehave(gives(old), gives(new))
    login = f"{uuid4().hex}@campus.example"
    async with mail_server(tokens={login: old}) as server:
        oauth = await installation.add_oauth_profile(provider="microsoft365")
        name = await installation.add_profile(server, oauth=oauth, login=login)
        assert (await installation.check(name))[Step.AUTH].verdict is StepVerdict.OK
        server.tokens[login] = new
        seen = await installation.check(name)
        assert seen[Step.AUTH].verdict is StepVerdict.OK
        assert "SMTP.SendAsApp" in seen[Step.TOKEN].detail
        assert installation.endpoint.token_requests == 2
        server.tokens[login] = "neither"
        (await installation.check(name)).failed(Step.AUTH, Cause.NOT_REGISTERED_OR_NO_PERMISSION)
        assert installation.endpoint.token_requests == 3


@pytest.mark.parametrize(
    ("scope", "cause", "words"),
    [
        ("https://mail.google.com/", Cause.TOKEN_OF_ANOTHER_ACCOUNT, ["primary address", "Admin console"]),
        ("https://www.googleapis.com/auth/gmail.send", Cause.WRONG_SCOPE, ["token step"]),
    ],
)
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
async def test_what_google_refuses_is_told_with_its_cause_and_its_json(
    installation: CheckedInstallation, mechanism: str, scope: str, cause: Cause, words: list[str]
):
    async with mail_server(extensions=(f"AUTH {mechanism}",), tokens={"nobody": "x"}) as server:
        oauth = await installation.add_oauth_profile(scope=scope)
        seen = await installation.check(await installation.add_profile(server, oauth=oauth, provider="google"))
    seen.failed(Step.AUTH, cause, '"status":"400"', *words)


async def test_delegation_that_google_was_not_told_of_is_named_with_its_place(
    installation: CheckedInstallation,
):
    answer = {"error": "unauthorized_client", "error_description": "Client is unauthorized to retrieve access tokens."}
    installation.endpoint.misbehave(json_reply(401, answer))
    oauth = await installation.add_google_profile()
    async with mail_server(extensions=("AUTH XOAUTH2",)) as server:
        seen = await installation.check(await installation.add_profile(server, oauth=oauth, provider="google"))
    seen.failed(Step.TOKEN, TokenCause.DELEGATION_MISSING, "Admin console", "104857600000000000001")


async def test_an_endpoint_out_of_reach_is_told_in_plain_words_with_the_command(installation: CheckedInstallation):
    oauth = await installation.add_oauth_profile()
    async with installation.pool.connection() as connection:
        await connection.execute(
            "UPDATE oauth_profiles SET token_endpoint = 'https://localhost:1/token' WHERE id = %s", (oauth.id,)
        )
    async with mail_server(extensions=EXCHANGE) as server:
        seen = await installation.check(await installation.add_profile(server, oauth=oauth))
    command = f"`tocsin oauth set {oauth.name} --token-endpoint URL`"
    seen.failed(Step.TOKEN, Cause.TOKEN_ENDPOINT_AWAY, "localhost:1 cannot be reached: connection refused.", command)


async def test_an_account_that_is_no_mailbox_is_told_with_both_names(installation: CheckedInstallation):
    installation.endpoint.misbehave(
        json_reply(400, {"error": "invalid_grant", "error_description": "Invalid email or User ID"})
    )
    oauth = await installation.add_google_profile()
    async with mail_server(extensions=("AUTH XOAUTH2",)) as server:
        name = await installation.add_profile(server, oauth=oauth, provider="google", login="alias@campus.example")
        seen = await installation.check(name)
    command = f"`tocsin profile set {name} --user ADDRESS` (now alias@campus.example)"
    seen.failed(Step.TOKEN, TokenCause.NO_SUCH_MAILBOX, command)


async def test_what_a_server_does_not_offer_is_named(installation: CheckedInstallation):
    async with mail_server() as server:
        name = await installation.add_profile(server, password=PASSWORD)
        seen = await installation.check(name)
        seen.failed(Step.AUTH, Cause.AUTH_NOT_OFFERED, f"`tocsin profile set {name} --auth none`")
        server.extensions = ("AUTH PLAIN LOGIN",)
        oauth = await installation.add_oauth_profile()
        name = await installation.add_profile(server, oauth=oauth)
        seen = await installation.check(name)
        command = f"`tocsin profile set {name} --auth basic --password-file FILE`"
        seen.failed(Step.AUTH, Cause.MECHANISM_NOT_OFFERED, "LOGIN, PLAIN", command)


async def test_a_wrong_password_is_named_and_not_shown(installation: CheckedInstallation):
    async with mail_server(passwords={"u@campus.example": PASSWORD}) as server:
        name = await installation.add_profile(server, password="wrong-secret-9", login="u@campus.example")
        seen = await installation.check(name)
    seen.failed(Step.AUTH, Cause.WRONG_PASSWORD, f"tocsin profile replace-password {name}")
    assert "wrong-secret-9" not in str(seen.report)


# The sender.


async def test_a_sender_refused_at_mail_or_only_after_data_is_told_the_command(
    installation: CheckedInstallation,
):
    token = microsoft_token()
    installation.endpoint.misbehave(gives(token))
    login = f"{uuid4().hex}@campus.example"
    answers: dict[str, Any] = {"MAIL": "550 5.7.60 SMTP; Client does not have permissions to send as this sender"}
    async with mail_server(tokens={login: token}, answers=answers) as server:
        oauth = await installation.add_oauth_profile(provider="microsoft365")
        name = await installation.add_profile(server, oauth=oauth, login=login)
        command = f"Add-RecipientPermission -Identity {MAILBOX} -Trustee {OBJECT_ID}"
        (await installation.check(name)).failed(Step.MAIL_FROM, Cause.SEND_AS_DENIED, command)
        del answers["MAIL"]
        answers["dot"] = "554 5.2.252 SendAsDenied; a@campus.example not allowed to send as news@campus.example"
        seen = await installation.check(name, to="ada@campus.example")
        assert seen[Step.MAIL_FROM].verdict is StepVerdict.OK
        seen.failed(Step.MESSAGE, Cause.SEND_AS_DENIED, command)


async def test_a_server_that_does_not_take_the_question_back_is_named(installation: CheckedInstallation):
    async with mail_server(answers={"RSET": "502 5.5.1 what?"}) as server:
        seen = await installation.check(await installation.add_profile(server), to="ada@campus.example")
        seen.failed(Step.RSET, Cause.RESET_REFUSED, "502")
        assert server.messages == []
