"""Opening sessions: TLS, certificates, log-ins and refusals, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import base64
import socket
from typing import TYPE_CHECKING

import pytest
import trustme
from aiosmtpd.smtp import AuthResult

from tests.servers.smtp import (
    Cut,
    ScriptedMailServer,
    Wait,
    aiosmtpd_server,
    authority_pem,
    on_both_loops,
    scripted_mail_server,
    server_context,
)
from tocsin_schema.errors import ConfigurationError, Scope
from tocsin_workers.classification import Kind, classify
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.connection import SmtpServer, open_session
from tocsin_workers.smtp.credentials import BasicCredentials, Credentials, NoCredentials, OAuthCredentials
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.errors import (
    SmtpAuthError,
    SmtpConnectError,
    SmtpDeadline,
    SmtpDisconnected,
    SmtpProtocolError,
    SmtpSessionError,
    SmtpTlsError,
)
from tocsin_workers.smtp.phases import Phase, TimedPhase
from tocsin_workers.smtp.tls import TlsMode

if TYPE_CHECKING:
    from tocsin_workers.smtp.session import Session

SHORT_TOKEN = "short-token-8d1f"
LONG_TOKEN = "long-token-" + "x" * 2000
PASSWORD = "correct horse battery"


async def open_to(
    server: ScriptedMailServer,
    credentials: Credentials | None = None,
    *,
    tls: TlsMode = TlsMode.STARTTLS,
    host: str = "localhost",
    ca_pem: str | None = "",
    **options,
) -> Session:
    plaintext = options.pop("allow_plaintext_auth", False)
    return await open_session(
        SmtpServer(host, server.port, tls, authority_pem() if ca_pem == "" else ca_pem, plaintext),
        credentials or NoCredentials(),
        local_hostname="client.test",
        **options,
    )


async def refusal(opening) -> SmtpSessionError:
    with pytest.raises(SmtpSessionError) as caught:
        await opening
    return caught.value


async def delivers(session: Session) -> None:
    transaction = await session.transact(Envelope("s@x.test", ("a@y.test",)), to_wire(b"Subject: x\r\n\r\nx"))
    assert judge(transaction).recipients[0].verdict is Verdict.SENT
    await session.quit()


@on_both_loops
@pytest.mark.parametrize("token", [SHORT_TOKEN, LONG_TOKEN], ids=["in one line", "in two steps"])
@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.IMPLICIT])
async def test_xoauth2_logs_in(token, tls):
    server = ScriptedMailServer(tls=server_context(), implicit_tls=tls is TlsMode.IMPLICIT, tokens={"s@x.test": token})
    async with scripted_mail_server(server):
        session = await open_to(server, OAuthCredentials("s@x.test", token), tls=tls)
        assert session.capabilities.auth == {"XOAUTH2"}
        assert session.capabilities.pipelining
        assert session.capabilities.size_limit == 1_000_000
        await delivers(session)
    auth = next(line for line in server.lines if line.startswith("AUTH"))
    assert (auth == "AUTH XOAUTH2") is (token is LONG_TOKEN)


@on_both_loops
@pytest.mark.parametrize("token", [SHORT_TOKEN, LONG_TOKEN], ids=["in one line", "in two steps"])
async def test_a_refused_token_tells_the_servers_reason_and_no_secret(token):
    server = ScriptedMailServer(tls=server_context(), tokens={"s@x.test": "another"})
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, OAuthCredentials("s@x.test", token)))
        await server.all_gone.wait()
    assert isinstance(error, SmtpAuthError)
    assert error.reply is not None
    assert (error.reply.code, error.reply.enhanced) == (535, "5.7.8")
    assert error.detail == '{"status":"400","schemes":"Bearer","scope":"https://mail.example/"}'
    assert error.mechanism == "XOAUTH2"
    assert error.scope is Scope.MAILBOX
    assert error.detail in str(error)
    assert token not in f"{error} {error!r} {error.detail}"


@on_both_loops
async def test_a_refusal_without_json_is_taken_as_well():
    server = ScriptedMailServer(
        ("AUTH XOAUTH2",),
        tls=server_context(),
        answers={"AUTH": "535 5.7.3 Authentication unsuccessful [AM0.eurprd.outlook.test]"},
    )
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, OAuthCredentials("s@x.test", SHORT_TOKEN)))
    assert isinstance(error, SmtpAuthError)
    assert error.detail is None
    assert error.fix is not None
    assert "Add-MailboxPermission" in error.fix


@on_both_loops
async def test_a_server_that_echoes_the_token_does_not_make_us_show_it():
    server = ScriptedMailServer(
        ("AUTH XOAUTH2",), tls=server_context(), answers={"AUTH": lambda line: f"501 5.5.2 Cannot decode {line}"}
    )
    credentials = OAuthCredentials("s@x.test", SHORT_TOKEN)
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, credentials))
    blob = base64.b64encode(f"user=s@x.test\x01auth=Bearer {SHORT_TOKEN}\x01\x01".encode()).decode()
    assert blob in " ".join(server.lines)
    assert blob not in f"{error}{error.reply}"
    assert SHORT_TOKEN not in f"{error}{error.reply}{credentials!r}"


@on_both_loops
@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("token", [SHORT_TOKEN, LONG_TOKEN], ids=["in one line", "in two steps"])
async def test_oauthbearer_is_used_where_it_is_all_there_is(token, good):
    tokens = {"s@x.test": token if good else "another"}
    server = ScriptedMailServer(("AUTH OAUTHBEARER",), tls=server_context(), tokens=tokens)
    async with scripted_mail_server(server):
        opening = open_to(server, OAuthCredentials("s@x.test", token))
        if good:
            await delivers(await opening)
        else:
            error = await refusal(opening)
            assert isinstance(error, SmtpAuthError)
            assert error.detail is not None
            assert token not in f"{error} {error.detail}"
            # RFC 7628 section 3.2.3: a lone %x01 answers the reason.
            assert server.lines[-1] == "AQ=="
    auth = next(line for line in server.lines if line.startswith("AUTH"))
    assert (auth == "AUTH OAUTHBEARER") is (token is LONG_TOKEN)


@on_both_loops
@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN"])
async def test_a_password_logs_in_by_what_is_offered(mechanisms):
    server = ScriptedMailServer((f"AUTH {mechanisms}",), tls=server_context(), passwords={"u": PASSWORD})
    async with scripted_mail_server(server):
        await delivers(await open_to(server, BasicCredentials("u", PASSWORD)))
        error = await refusal(open_to(server, BasicCredentials("u", "wrong-password")))
    assert isinstance(error, SmtpAuthError)
    assert "wrong-password" not in f"{error} {BasicCredentials('u', 'wrong-password')!r}"
    auth = next(line for line in server.lines if line.startswith("AUTH"))
    assert auth.split(" ")[1] == mechanisms.split(" ")[0]


@on_both_loops
async def test_aiosmtpd_logs_us_in():
    def authenticator(_server, _session, _envelope, _mechanism, data):
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    options = {"tls_context": server_context(), "require_starttls": True, "authenticator": authenticator}
    async with aiosmtpd_server(**options, auth_required=True) as (port, kept):
        server = SmtpServer("localhost", port, TlsMode.STARTTLS, authority_pem())
        session = await open_session(server, BasicCredentials("u", PASSWORD), local_hostname="client.test")
        await delivers(session)
        assert len(kept.envelopes) == 1
        error = await refusal(open_session(server, BasicCredentials("u", "no"), local_hostname="client.test"))
    assert error.reply is not None
    assert error.reply.code == 535


@on_both_loops
@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        (OAuthCredentials("u", SHORT_TOKEN), ["XOAUTH2", "CRAM-MD5", "--auth basic"]),
        (BasicCredentials("u", PASSWORD), ["PLAIN", "CRAM-MD5", "--auth oauth"]),
    ],
)
async def test_no_common_mechanism_is_said_plainly(credentials, words):
    server = ScriptedMailServer(("AUTH CRAM-MD5",), tls=server_context())
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, credentials))
    assert isinstance(error, SmtpAuthError)
    for word in words:
        assert word in str(error)


@on_both_loops
@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.IMPLICIT])
async def test_a_certificate_for_another_name_is_refused(tls):
    server = ScriptedMailServer(tls=server_context("mail.other.test"), implicit_tls=tls is TlsMode.IMPLICIT)
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, tls=tls))
    assert isinstance(error, SmtpTlsError)
    assert f"localhost:{server.port}" in str(error)
    assert "another name" in str(error)
    assert error.scope is Scope.PROFILE
    assert "MAIL" not in server.verbs()


@on_both_loops
@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.IMPLICIT])
@pytest.mark.parametrize("ca_pem", [None, ""], ids=["system's authorities", "another authority"])
async def test_an_untrusted_certificate_is_refused(tls, ca_pem):
    context = server_context(authority=trustme.CA())
    server = ScriptedMailServer(tls=context, implicit_tls=tls is TlsMode.IMPLICIT)
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, tls=tls, ca_pem=ca_pem))
    assert isinstance(error, SmtpTlsError)
    assert "not signed by an authority that we trust" in str(error)
    assert "--ca-file" in str(error)


@on_both_loops
async def test_an_expired_certificate_is_refused():
    server = ScriptedMailServer(tls=server_context(expired=True))
    async with scripted_mail_server(server):
        error = await refusal(open_to(server))
    assert isinstance(error, SmtpTlsError)
    assert "has expired" in str(error)


@on_both_loops
async def test_a_server_without_starttls_gets_nothing():
    server = ScriptedMailServer(tokens={"u": SHORT_TOKEN})
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, OAuthCredentials("u", SHORT_TOKEN)))
    assert isinstance(error, SmtpTlsError)
    assert "does not offer STARTTLS" in str(error)
    assert server.verbs() == ["EHLO"]


@on_both_loops
async def test_tls_to_a_plain_port_is_said_plainly():
    server = ScriptedMailServer()
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, tls=TlsMode.IMPLICIT))
    assert isinstance(error, SmtpTlsError)
    assert "port 465" in str(error)


@on_both_loops
async def test_a_refused_starttls_is_not_gone_past():
    server = ScriptedMailServer(tls=server_context(), answers={"STARTTLS": "454 4.7.0 TLS not available"})
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, OAuthCredentials("u", SHORT_TOKEN)))
    assert (error.phase, error.reply and error.reply.code) == (Phase.TLS, 454)
    assert "AUTH" not in server.verbs()


@on_both_loops
@pytest.mark.parametrize("credentials", [OAuthCredentials("u", SHORT_TOKEN), BasicCredentials("u", PASSWORD)])
async def test_credentials_do_not_go_without_tls(credentials):
    server = ScriptedMailServer(tokens={"u": SHORT_TOKEN}, passwords={"u": PASSWORD})
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, credentials, tls=TlsMode.NONE))
        assert isinstance(error, SmtpAuthError)
        assert "without TLS" in str(error)
        assert server.connections == 0
        allowed = {"tls": TlsMode.NONE, "allow_plaintext_auth": True}
        await (await open_to(server, credentials, **allowed)).quit()
        abroad = await refusal(open_to(server, credentials, host="mail.example", **allowed))
        assert "loopback" in str(abroad)


@on_both_loops
async def test_a_throttled_log_in_is_not_taken_for_wrong_credentials():
    server = ScriptedMailServer(
        ("AUTH XOAUTH2",), tls=server_context(), answers={"AUTH": "454 4.7.0 Too many login attempts"}
    )
    async with scripted_mail_server(server):
        error = await refusal(open_to(server, OAuthCredentials("u", SHORT_TOKEN)))
    assert isinstance(error, SmtpAuthError)
    assert error.reply is not None
    assert classify(Phase.AUTH, error.reply).kind is Kind.TOO_FAST
    assert "did not log us in" in str(error)


@on_both_loops
async def test_a_greeting_that_refuses_us_carries_its_reply():
    answers = {"greeting": "421 Too many concurrent SMTP connections"}
    async with scripted_mail_server(ScriptedMailServer(answers=dict(answers))) as server:
        error = await refusal(open_to(server, tls=TlsMode.NONE))
    assert isinstance(error, SmtpConnectError)
    assert (error.phase, error.reply and error.reply.code) == (Phase.GREETING, 421)
    assert error.reply is not None
    assert classify(error.phase, error.reply).kind is Kind.TOO_MANY_CONNECTIONS


@on_both_loops
@pytest.mark.parametrize(
    ("answer", "kind"), [(Cut(), SmtpDisconnected), ("HTTP/1.1 400 Bad Request", SmtpProtocolError)]
)
async def test_a_greeting_that_is_none_is_said_plainly(answer, kind):
    async with scripted_mail_server(ScriptedMailServer(answers={"greeting": answer})) as server:
        assert isinstance(await refusal(open_to(server, tls=TlsMode.NONE)), kind)


@on_both_loops
@pytest.mark.parametrize("step", ["greeting", "EHLO", "AUTH"])
async def test_opening_has_deadlines(step):
    wait = Wait(asyncio.Event())
    server = ScriptedMailServer(("AUTH PLAIN",), answers={step: wait})
    async with scripted_mail_server(server):
        error = await refusal(
            open_to(
                server,
                BasicCredentials("u", PASSWORD),
                tls=TlsMode.NONE,
                host="127.0.0.1",
                allow_plaintext_auth=True,
                deadlines=Deadlines(connect=0.1, command=0.1),
            )
        )
        assert isinstance(error, SmtpDeadline)
        wait.event.set()
        await server.all_gone.wait()


@on_both_loops
@pytest.mark.parametrize("step", ["greeting", "EHLO", "STARTTLS", "AUTH"])
async def test_cancelling_while_opening_leaves_no_connection(step):
    wait = Wait(asyncio.Event())
    server = ScriptedMailServer(("AUTH XOAUTH2",), tls=server_context(), answers={step: wait})
    async with scripted_mail_server(server):
        task = asyncio.create_task(open_to(server, OAuthCredentials("u", SHORT_TOKEN)))
        await wait.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        wait.event.set()
        await server.all_gone.wait()


@on_both_loops
async def test_nobody_listening_is_said_plainly():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = ScriptedMailServer(port=unused.getsockname()[1])
        error = await refusal(open_to(server, tls=TlsMode.NONE, host="127.0.0.1"))
    assert isinstance(error, SmtpConnectError)
    assert "connection refused" in str(error).lower()


@on_both_loops
async def test_an_unknown_host_is_said_plainly():
    error = await refusal(open_to(ScriptedMailServer(port=25), tls=TlsMode.NONE, host="no-such-host.invalid"))
    assert isinstance(error, SmtpConnectError)
    assert "'no-such-host.invalid' is not known" in str(error)


@on_both_loops
async def test_a_server_of_helo_times_is_spoken_to():
    server = ScriptedMailServer(answers={"EHLO": "502 5.5.1 what?"})
    async with scripted_mail_server(server):
        session = await open_to(server, tls=TlsMode.NONE)
        assert not session.capabilities.pipelining
        await delivers(session)


@on_both_loops
async def test_tls_seconds_are_told_apart():
    seen: list[TimedPhase] = []
    server = ScriptedMailServer(tls=server_context())
    async with scripted_mail_server(server):
        session = await open_to(server, observe=lambda phase, _seconds: seen.append(phase))
        assert seen == [TimedPhase.CONNECT, TimedPhase.TLS, TimedPhase.AUTH]
        await session.quit()


@on_both_loops
async def test_a_ca_file_without_certificate_is_a_mistake_of_the_profile():
    with pytest.raises(ConfigurationError, match="--ca-file"):
        await open_to(ScriptedMailServer(port=25), ca_pem="not a certificate")
