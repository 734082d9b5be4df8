"""A profile tried step by step, against real servers: what each step tells, and what is wrong on the way to AUTH."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner

from tests.servers.checked_profiles import (
    EXCHANGE,
    MAILBOX,
    OBJECT_ID,
    PASSWORD,
    CheckedInstallation,
    gives,
    mail_server,
    microsoft_token,
)
from tests.servers.ledger_rows import add_worker
from tests.servers.smtp import Cut, ScriptedMailServer, Wait, authority_pem, certificate_authority, server_context
from tests.servers.token_endpoint import TENANT, json_reply
from tocsin_console.commands import profile_check
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger import mailboxes, oauth_profiles, pausing
from tocsin_schema.ledger.pausing import PauseCause
from tocsin_schema.ledger.sending_profile_rules import Limits, Tls
from tocsin_workers.checking.checker import CheckDesk
from tocsin_workers.checking.steps import Step, StepResult, StepVerdict
from tocsin_workers.diagnosis.causes import Cause
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.tokens.refusal_causes import Cause as TokenCause

if TYPE_CHECKING:
    from pathlib import Path


# All is well.


async def test_every_step_tells_its_good_news_and_no_mail_is_sent(installation: CheckedInstallation):
    token = microsoft_token()
    installation.endpoint.misbehave(gives(token))
    login = f"{uuid4().hex}@campus.example"
    async with mail_server(tokens={login: token}) as server:
        oauth = await installation.add_oauth_profile(provider="microsoft365")
        name = await installation.add_profile(server, oauth=oauth, login=login, limits=Limits(3, 30, 100))
        seen = await installation.check(name)
    assert seen.report.is_complete
    assert seen.verdicts() == {**dict.fromkeys(map(str, Step), "ok"), "message": "skipped"}
    for step, words in {
        Step.PROFILE: [login],
        Step.NAME: ["localhost is", "127.0.0.1"],
        Step.BUDGET: ["1 of 3"],
        Step.TCP: ["127.0.0.1", str(server.port), " ms"],
        Step.TLS: ["TLSv1.", "localhost", "issued by", "until 3000-01-01"],
        Step.EHLO: ["SIZE 1000000", "PIPELINING", "AUTH XOAUTH2"],
        Step.TOKEN: ["obtained 20", "expires 20", "outlook.office365.com", "SMTP.SendAsApp", TENANT, OBJECT_ID],
        Step.AUTH: [login, "XOAUTH2"],
        Step.MAIL_FROM: [MAILBOX, "only after a message"],
        Step.MESSAGE: ["--to"],
    }.items():
        for word in words:
            assert word in seen[step].detail, step
    assert token not in str(seen.report)
    assert server.messages == []
    assert "RCPT" not in server.verbs()
    assert server.verbs()[-3:] == ["MAIL", "RSET", "QUIT"]
    assert await installation.count("SELECT count(*) FROM mailbox_connections") == 0
    assert await installation.count("SELECT count(*) FROM mailbox_usage") == 0


async def test_a_test_message_goes_to_whom_a_person_says_within_the_mailboxs_budget(installation: CheckedInstallation):
    answers: dict[str, Any] = {"dot": "250 2.0.0 Ok: queued as 4RzA1b2C3d"}
    async with mail_server(passwords={"u@campus.example": PASSWORD}, answers=answers) as server:
        name = await installation.add_profile(
            server, password=PASSWORD, login="u@campus.example", limits=Limits(1, 600, 10)
        )
        seen = await installation.check(name, to="ada@campus.example")
        assert seen.report.is_ok
        assert "4RzA1b2C3d" in seen[Step.MESSAGE].detail
        [message] = server.messages
        assert (message.mail_from, message.recipients) == (MAILBOX, ("ada@campus.example",))
        assert b"Subject: Tocsin test message\r\n" in message.body
        assert name.encode() in message.body.replace(b"=\r\n", b"")
        profile, _ = await installation.read(name)
        usage = f"SELECT sum(recipients) FROM mailbox_usage WHERE mailbox_id = {profile.mailbox_id}"
        assert await installation.count(usage) == 1


async def test_a_day_that_is_used_up_lets_no_test_message_out(installation: CheckedInstallation):
    async with mail_server() as server:
        name = await installation.add_profile(server, limits=Limits(None, None, 1))
        assert (await installation.check(name, to="ada@campus.example"))[Step.MESSAGE].verdict is StepVerdict.OK
        seen = await installation.check(name, to="ada@campus.example")
        seen.says(Step.MESSAGE, StepVerdict.WARNING, Cause.QUOTA_USED_UP, "used up")
        assert len(server.messages) == 1


async def test_a_paused_profile_is_checked_and_stays_paused(installation: CheckedInstallation):
    async with mail_server() as server:
        name = await installation.add_profile(server)
        profile, _ = await installation.read(name)
        async with installation.pool.connection() as connection:
            await pausing.pause_profile(connection, profile.id, "535 no", cause=PauseCause.CREDENTIALS)
            await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=60, reason="throttled")
        seen = await installation.check(name, to="ada@campus.example")
    seen.says(Step.PROFILE, StepVerdict.WARNING, Cause.PAUSED, "535 no", f"tocsin profile resume {name}")
    assert seen[Step.MAIL_FROM].verdict is StepVerdict.OK
    assert seen[Step.MESSAGE].verdict is StepVerdict.SKIPPED
    profile, _ = await installation.read(name)
    assert profile.paused_reason == "535 no"


async def test_a_mailbox_that_rests_is_checked_and_says_why_it_rests(installation: CheckedInstallation):
    async with mail_server() as server:
        name = await installation.add_profile(server)
        profile, _ = await installation.read(name)
        async with installation.pool.connection() as connection:
            await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=60, reason="throttled")
        seen = await installation.check(name)
    seen.says(Step.PROFILE, StepVerdict.WARNING, Cause.RESTING, "throttled", "by itself")
    assert seen[Step.RSET].verdict is StepVerdict.OK


# The mailbox's budget.


async def test_no_test_message_leaves_where_workers_have_every_minute(installation: CheckedInstallation):
    async with mail_server() as server:
        name = await installation.add_profile(server, limits=Limits(None, 1, None))
        profile, _ = await installation.read(name)
        async with installation.pool.connection() as connection:
            assert await mailboxes.reserve_messages(connection, profile.mailbox_id, 3, horizon_seconds=5)
        seen = await installation.check(name, to="ada@campus.example")
        seen.says(Step.MESSAGE, StepVerdict.WARNING, Cause.NO_TIME_SLOT, "1 messages a minute")
        assert server.messages == []


async def test_a_mailbox_whose_connections_are_all_in_use_is_not_logged_into(installation: CheckedInstallation):
    async with mail_server(passwords={"busy@campus.example": PASSWORD}) as server:
        name = await installation.add_profile(
            server, password=PASSWORD, login="busy@campus.example", limits=Limits(1, None, None)
        )
        profile, _ = await installation.read(name)
        async with installation.pool.connection() as connection:
            worker = await add_worker(connection, lease_seconds=60)
            assert await mailboxes.take_connection(connection, profile.mailbox_id, worker) == 1
        seen = await installation.check(name)
        assert seen.report.is_ok
        assert not seen.report.is_complete
        seen.says(Step.BUDGET, StepVerdict.WARNING, Cause.CONNECTIONS_IN_USE, "All 1 connections")
        assert seen[Step.AUTH].verdict is StepVerdict.SKIPPED
        assert server.connections == 0


async def test_a_check_that_is_called_off_gives_its_connection_back(installation: CheckedInstallation):
    wait = Wait(asyncio.Event())
    async with mail_server(answers={"EHLO": wait}) as server:
        name = await installation.add_profile(server, limits=Limits(1, None, None))
        checking = asyncio.create_task(installation.check(name))
        await wait.reached.wait()
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        assert await installation.count("SELECT count(*) FROM workers WHERE role = 'check'") == 0
        wait.event.set()
        await server.all_gone.wait()


# The way to the server.


async def test_independent_causes_are_all_told_at_once(installation: CheckedInstallation):
    oauth = await installation.add_oauth_profile()
    async with installation.pool.connection() as connection:
        sealed = installation.sealer.seal("another", purpose=oauth_profiles.CLIENT_SECRET_PURPOSE, row_id=str(oauth.id))
        await oauth_profiles.replace_client_secret(connection, oauth, sealed_client_secret=sealed)
    name = await installation.add_profile(ScriptedMailServer(port=587), oauth=oauth, host="no-such-host.invalid")
    seen = await installation.check(name)
    seen.failed(Step.NAME, Cause.UNKNOWN_HOST, "no-such-host.invalid", f"tocsin profile set {name} --host HOST")
    seen.failed(Step.TOKEN, TokenCause.SECRET_WRONG, "replace-secret")
    assert seen[Step.TCP] == StepResult(Step.TCP, StepVerdict.SKIPPED, "not tried: name failed")


async def test_a_server_is_looked_at_where_there_is_no_token(installation: CheckedInstallation):
    answer = {"error": "invalid_client", "error_description": "AADSTS7000222: The provided client secret keys expired."}
    installation.endpoint.misbehave(json_reply(401, answer))
    async with mail_server(extensions=EXCHANGE) as server:
        oauth = await installation.add_oauth_profile(provider="microsoft365")
        seen = await installation.check(await installation.add_profile(server, oauth=oauth))
        seen.failed(Step.TOKEN, TokenCause.SECRET_EXPIRED, "replace-secret")
        assert seen[Step.EHLO].verdict is StepVerdict.OK
        assert seen[Step.AUTH].verdict is StepVerdict.SKIPPED
        assert "MAIL" not in server.verbs()


async def test_nobody_listening_and_a_hang_up_are_told_apart(installation: CheckedInstallation):
    async with mail_server(answers={"greeting": Cut()}) as server:
        seen = await installation.check(await installation.add_profile(server))
        seen.failed(Step.TCP, Cause.CONNECTION_LOST)
    name = await installation.add_profile(server)
    seen = await installation.check(name)
    seen.failed(Step.TCP, Cause.CONNECTION_REFUSED, "firewall", f"`tocsin profile set {name} --host HOST --port PORT`")


async def test_a_server_that_takes_the_connection_and_says_nothing_is_told_from_a_firewall(
    installation: CheckedInstallation,
):
    installation.desk = CheckDesk(installation.pool, installation.sealer, Deadlines(connect=0.2))
    async with mail_server(answers={"greeting": ""}) as server:
        seen = await installation.check(await installation.add_profile(server))
    seen.failed(Step.TCP, Cause.NO_GREETING, "--tls implicit")


# TLS.


async def test_a_server_without_starttls_gets_no_credentials(installation: CheckedInstallation):
    async with mail_server(tls=None, passwords={"u": PASSWORD}) as server:
        name = await installation.add_profile(server, password=PASSWORD)
        seen = await installation.check(name)
        seen.failed(Step.TLS, Cause.STARTTLS_NOT_OFFERED, f"`tocsin profile set {name} --port 465 --tls implicit`")
        assert "AUTH" not in server.verbs()


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
async def test_a_certificate_for_another_name_tells_its_names_and_nothing_is_said_over_it(
    installation: CheckedInstallation, tls: Tls
):
    context = server_context("mail.other.test", "smtp.other.test")
    async with mail_server(tls=context, implicit_tls=tls is Tls.IMPLICIT, passwords={"u": PASSWORD}) as server:
        name = await installation.add_profile(server, password=PASSWORD, tls=tls)
        seen = await installation.check(name)
        command = f"`tocsin profile set {name} --host mail.other.test`"
        seen.failed(Step.TLS, Cause.CERTIFICATE_FOR_ANOTHER_NAME, command, "smtp.other.test", "trustme")
        assert seen[Step.TCP].verdict is StepVerdict.OK
        assert server.verbs() == ([] if tls is Tls.IMPLICIT else ["EHLO", "STARTTLS", "EHLO", "STARTTLS"])


@pytest.mark.parametrize(
    ("days", "ca_pem", "cause", "words"),
    [
        ((-9, -1), True, Cause.CERTIFICATE_EXPIRED, ["renewed", "localhost"]),
        ((2, 9), True, Cause.CERTIFICATE_NOT_YET_VALID, ["clock"]),
        (
            (-1, 90),
            False,
            Cause.CERTIFICATE_OF_UNKNOWN_AUTHORITY,
            ["`tocsin profile set {name} --ca-file FILE`", "trustme"],
        ),
    ],
)
async def test_a_certificate_that_is_not_to_be_trusted_tells_why(
    installation: CheckedInstallation, days: tuple[int, int], ca_pem: bool, cause: Cause, words: list[str]
):
    async with mail_server(tls=context_for_days(*days)) as server:
        trusted = authority_pem() if ca_pem else None
        name = await installation.add_profile(server, ca_pem=trusted)
        seen = await installation.check(name)
    seen.failed(Step.TLS, cause, *(word.format(name=name) for word in words))


async def test_a_certificate_that_ends_soon_is_a_warning(installation: CheckedInstallation):
    async with mail_server(tls=context_for_days(-1, 5)) as server:
        seen = await installation.check(await installation.add_profile(server))
    seen.says(Step.TLS, StepVerdict.WARNING, Cause.CERTIFICATE_EXPIRES_SOON, "TLSv1.", "renewed")
    assert seen.report.is_ok


def context_for_days(first: int, last: int) -> ssl.SSLContext:
    now = datetime.now(UTC)
    certificate = certificate_authority().issue_cert(
        "localhost", not_before=now + timedelta(days=first), not_after=now + timedelta(days=last)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_a_ca_file_without_a_certificate_is_named(installation: CheckedInstallation):
    async with mail_server() as server:
        name = await installation.add_profile(server, ca_pem="not a certificate")
        seen = await installation.check(name)
    seen.failed(Step.TLS, Cause.BAD_CA_FILE, f"`tocsin profile set {name} --ca-file FILE`")


# The command.


async def test_the_command_prints_a_checklist_or_one_object_and_its_exit_code_tells(
    installation: CheckedInstallation, ledger_url: str, key_file: Path
):
    app = typer.Typer()
    app.command()(profile_check.check)
    environment = {"TOCSIN_DATABASE_URL": ledger_url, "TOCSIN_MASTER_KEY_FILE": str(key_file)}

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)

    async with mail_server() as server:
        name = await installation.add_profile(server)
        good = await run(name)
        assert good.exit_code == 0
        assert good.stdout.splitlines()[0].split()[:2] == ["profile", "ok"]
        assert "message    skipped  no mail is sent" in good.stdout
        assert "works" in good.stderr
        profile, _ = await installation.read(name)
        async with installation.pool.connection() as connection:
            await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=60, reason="throttled")
        unsent = await run(name, "--to", "ada@campus.example")
        assert unsent.exit_code == 1
        assert re.search(r"rests until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: throttled", unsent.stdout)
        assert "the test message was not sent" in unsent.stderr
        server.answers["MAIL"] = "550 5.7.60 \x1b[31mno permissions to send as this sender"
        bad = await run(name, "--json")
        assert bad.exit_code == 1
        answer = json.loads(bad.stdout)
        assert (answer["profile"], answer["ok"]) == (name, False)
        steps = {step["step"]: step for step in answer["steps"]}
        assert (steps["mail_from"]["verdict"], steps["mail_from"]["cause"]) == ("failed", "send_as_denied")
        shown = await run(name)
        assert "cause: send_as_denied" in shown.stdout
        assert "fix:   " in shown.stdout
        assert "\x1b" not in shown.stdout
    assert isinstance((await run(name, "--to", "a@b.test, c@d.test")).exception, UsageError)
