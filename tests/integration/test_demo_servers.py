"""The demo's mail sink and token endpoint, spoken to by real clients over TLS."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import aiosmtplib
import httpx
import msal
import pytest
import requests

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_console.demo.certificates import DemoCertificates
from tocsin_console.demo.mail_sink import MailSink, SinkOptions, read_received
from tocsin_console.demo.servers import DemoServers, ServersConfiguration, decode_running_servers
from tocsin_console.demo.sink_script import DROP, AuthFailure, RecipientScript, Step
from tocsin_console.demo.token_endpoint import (
    BROKEN_JSON,
    SERVER_ERROR,
    Hang,
    TokenEndpoint,
    read_token_requests,
    too_many_requests,
)
from tocsin_schema.errors import TocsinError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CLIENT, SECRET, USER = "11111111-demo", "s3cret: +&%", "notices@example.org"
LONG_TOKEN = "t" * 6000
MESSAGE = b"From: a@example.org\r\nMessage-ID: <one@example.org>\r\n\r\nHello\r\n.dot\r\n"


@pytest.fixture
def certificates(tmp_path: Path) -> DemoCertificates:
    return DemoCertificates(tmp_path / "tls")


@asynccontextmanager
async def sink_with(
    certificates: DemoCertificates, recipients: RecipientScript | None = None, **options: Any
) -> AsyncIterator[MailSink]:
    settings: dict[str, Any] = {
        "tls": certificates.server_context(),
        "check_token": lambda token: token == LONG_TOKEN,
        **options,
    }
    sink = MailSink(SinkOptions(**settings), recipients=recipients)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()


@asynccontextmanager
async def client_of(
    sink: MailSink, certificates: DemoCertificates, *, token: str | None = LONG_TOKEN, implicit: bool = False
) -> AsyncIterator[aiosmtplib.SMTP]:
    client = aiosmtplib.SMTP(
        hostname="localhost",
        port=sink.address[1],
        local_hostname="client",
        tls_context=certificates.client_context(),
        start_tls=not implicit,
        use_tls=implicit,
        timeout=10,
    )
    async with client:
        await client.ehlo()
        if token is not None:
            await client.auth_xoauth2(USER, token)
        yield client


class RawClient:
    """A client that sends bytes as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def reply(self) -> str:
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            line = await asyncio.wait_for(self.reader.readline(), PATIENCE_SECONDS)
            if not line:
                return "closed"
            lines.append(line.decode().rstrip("\r\n"))
        return "\n".join(lines)

    async def ask(self, command: str | bytes) -> str:
        self.send(command)
        return await self.reply()

    def send(self, command: str | bytes) -> None:
        self.writer.write((command.encode() if isinstance(command, str) else command) + b"\r\n")


@asynccontextmanager
async def raw_client_of(
    sink: MailSink, certificates: DemoCertificates, *, tls: bool = True
) -> AsyncIterator[RawClient]:
    client = RawClient(*await asyncio.open_connection(*sink.address))
    await client.reply()
    await client.ask("EHLO client")
    if tls:
        await client.ask("STARTTLS")
        await client.writer.start_tls(certificates.client_context(), server_hostname="localhost")
        await client.ask("EHLO client")
    try:
        yield client
    finally:
        client.writer.transport.abort()


def xoauth2(user: str = USER, token: str = LONG_TOKEN) -> str:
    return base64.b64encode(f"user={user}\x01auth=Bearer {token}\x01\x01".encode()).decode()


# --- certificates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_the_certificate_holds_for_this_machines_names_and_no_other(
    certificates: DemoCertificates, name: str
) -> None:
    async with sink_with(certificates, implicit_tls=True) as sink:
        context = certificates.client_context()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        port = sink.address[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        writer.transport.abort()
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="smtp.example.org")


async def test_a_client_that_does_not_know_the_authority_refuses_the_certificate(
    certificates: DemoCertificates,
) -> None:
    async with sink_with(certificates) as sink:
        client = aiosmtplib.SMTP(
            hostname="localhost", port=sink.address[1], local_hostname="c", start_tls=True, timeout=10
        )
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError), match="certificate verify failed"):
            await client.connect()
        client.close()
    assert sink.sessions_open == 0


def test_the_private_key_is_for_its_owner_only_and_the_authoritys_is_kept_nowhere(
    certificates: DemoCertificates,
) -> None:
    assert certificates.key_file.stat().st_mode & 0o777 == 0o600
    keys = [file for file in certificates.key_file.parent.iterdir() if b"PRIVATE KEY" in file.read_bytes()]
    assert keys == [certificates.key_file]


# --- the mail sink ----------------------------------------------------------------------------------------------


async def test_an_authenticated_message_is_taken_and_recorded_byte_for_byte(
    certificates: DemoCertificates, tmp_path: Path
) -> None:
    record_file = tmp_path / "received.jsonl"
    async with sink_with(certificates, record_file=record_file, keep_content=True) as sink:
        async with client_of(sink, certificates) as client:
            refused, reply = await client.sendmail(USER, ["b@example.org", "c@example.org"], MESSAGE)
        [received] = sink.received

        assert refused == {}
        assert reply == f"2.0.0 OK queued as {received.queue_id}"
        assert received.mail_from == received.user == USER
        assert received.recipients == ("b@example.org", "c@example.org")
        assert received.message_id == "<one@example.org>"
        assert received.sha256 == hashlib.sha256(MESSAGE).hexdigest()
        assert received.size == len(MESSAGE)
        assert received.tls
        assert sink.contents == {received.queue_id: MESSAGE}
        assert read_received(record_file) == [received]  # while the sink still runs


async def test_everything_but_starttls_is_refused_in_clear(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates, tls=False) as client:
        greeting = await client.ask("EHLO client")
        assert "STARTTLS" in greeting
        assert "AUTH" not in greeting
        assert (await client.ask(f"AUTH XOAUTH2 {xoauth2()}")).startswith("530 ")
        assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("530 ")


async def test_commands_smuggled_in_behind_starttls_are_dropped(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates, tls=False) as client:
        client.send("STARTTLS\r\nEHLO smuggler\r\nQUIT")
        assert (await client.reply()).startswith("220 ")
        await client.writer.start_tls(certificates.client_context(), server_hostname="localhost")
        assert (await client.ask("NOOP")).startswith("250 ")
        assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("503 ")


async def test_mail_without_authentication_is_refused(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("530 5.7.0")


async def test_ehlo_offers_what_the_sink_can_do(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink, client_of(sink, certificates) as client:
        for extension in ("pipelining", "8bitmime", "smtputf8", "enhancedstatuscodes", "size"):
            assert client.supports_extension(extension)
        assert not client.supports_extension("starttls")
        assert client.server_auth_methods == ["xoauth2"]
    async with sink_with(certificates, pipelining=False) as sink, client_of(sink, certificates) as client:
        assert not client.supports_extension("pipelining")


async def test_a_token_is_taken_with_the_command_or_after_the_challenge(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink:
        async with raw_client_of(sink, certificates) as client:
            assert (await client.ask(f"AUTH XOAUTH2 {xoauth2()}")).startswith("235 2.7.0")
        async with raw_client_of(sink, certificates) as client:
            assert await client.ask("AUTH XOAUTH2") == "334 "
            assert (await client.ask(xoauth2())).startswith("235 2.7.0")
            assert (await client.ask("AUTH XOAUTH2")).startswith("503 ")


async def test_microsoft_refuses_a_token_at_once(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        reply = await client.ask(f"AUTH XOAUTH2 {xoauth2(token='old')}")
        assert reply == "535 5.7.3 Authentication unsuccessful"
        assert (await client.ask(f"AUTH XOAUTH2 {xoauth2()}")).startswith("235 ")


async def test_google_says_why_before_it_refuses_a_token(certificates: DemoCertificates) -> None:
    async with sink_with(certificates, auth_failure=AuthFailure.GOOGLE) as sink:
        async with raw_client_of(sink, certificates) as client:
            challenge = await client.ask(f"AUTH XOAUTH2 {xoauth2(token='old')}")
            assert json.loads(base64.b64decode(challenge.removeprefix("334 ")))["status"] == "400"
            assert (await client.ask("")).startswith("535-5.7.8 ")
        async with client_of(sink, certificates, token=None) as client:
            with pytest.raises(aiosmtplib.SMTPAuthenticationError) as failure:
                await client.auth_xoauth2(USER, "old")
            assert failure.value.code == 535


@pytest.mark.parametrize(
    ("response", "expected"),
    [("!", "501 5.5.2"), ("bm9uc2Vuc2U=", "501 5.5.2"), ("*", "501 5.7.0"), ("x" * 20_000, "500 5.5.6")],
)
async def test_a_malformed_authentication_is_refused_and_the_session_goes_on(
    certificates: DemoCertificates, response: str, expected: str
) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        await client.ask("AUTH XOAUTH2")
        assert (await client.ask(response)).startswith(expected)
        if expected.startswith("501"):
            assert (await client.ask(f"AUTH XOAUTH2 {xoauth2()}")).startswith("235 ")


async def test_passwords_are_offered_only_where_there_are_any(certificates: DemoCertificates) -> None:
    async with sink_with(certificates, passwords={USER: "pass"}) as sink:
        for method in ("auth_login", "auth_plain"):
            async with client_of(sink, certificates, token=None) as client:
                with pytest.raises(aiosmtplib.SMTPAuthenticationError):
                    await getattr(client, method)(USER, "wrong")
                await getattr(client, method)(USER, "pass")
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        assert (await client.ask("AUTH PLAIN")).startswith("504 ")


async def test_pipelined_commands_are_answered_one_by_one_and_in_order(certificates: DemoCertificates) -> None:
    script = RecipientScript({"gone@example.org": ["550 5.1.1 No such user"]})
    async with sink_with(certificates, script) as sink, raw_client_of(sink, certificates) as client:
        await client.ask(f"AUTH XOAUTH2 {xoauth2()}")
        envelope = ["MAIL FROM:<a@example.org>", *(f"RCPT TO:<r{n}@example.org>" for n in range(98))]
        envelope += ["RCPT TO:<gone@example.org>", "DATA"]
        client.send("\r\n".join(envelope))
        replies = [(await client.reply())[:3] for _ in envelope]
        assert replies == ["250"] * 99 + ["550", "354"]
        # The body and the next envelope in one flight (RFC 2920 section 3.1).
        client.send(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n" + "\r\n".join(envelope).encode())
        replies = [(await client.reply())[:3] for _ in range(len(envelope) + 1)]
        assert replies == ["250"] + ["250"] * 99 + ["550", "354"]
        assert (await client.ask(MESSAGE + b".")).startswith("250 ")

        assert [len(message.recipients) for message in sink.received] == [98, 98]
        assert sink.received[0].sha256 == hashlib.sha256(MESSAGE).hexdigest()


async def test_when_every_recipient_is_refused_there_is_no_message(certificates: DemoCertificates) -> None:
    script = RecipientScript({"gone@": ["550 5.1.1 No such user"]})
    async with sink_with(certificates, script) as sink, raw_client_of(sink, certificates) as client:
        await client.ask(f"AUTH XOAUTH2 {xoauth2()}")
        client.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<gone@example.org>\r\nDATA\r\nRSET")
        assert [(await client.reply())[:3] for _ in range(4)] == ["250", "550", "503", "250"]
        assert sink.received == []


async def test_a_recipient_gets_the_replies_of_its_script_try_by_try(certificates: DemoCertificates) -> None:
    script = RecipientScript({"slow@example.org": ["451 4.7.1 Greylisted, try again", "250 2.1.5 OK"]})
    async with sink_with(certificates, script) as sink, client_of(sink, certificates) as client:
        refused, _ = await client.sendmail(USER, ["slow@EXAMPLE.org", "b@example.org"], MESSAGE)
        assert refused == {"slow@EXAMPLE.org": (451, "4.7.1 Greylisted, try again")}
        assert (await client.sendmail(USER, ["slow@example.org"], MESSAGE))[0] == {}
        assert [message.recipients for message in sink.received] == [("b@example.org",), ("slow@example.org",)]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("MAIL FROM:<a@example.org> SIZE=99999999999", "552 5.3.4"),
        ("MAIL FROM:<a@example.org> SIZE=big", "552 5.3.4"),
        ("MAIL FROM:<a@example.org> RET=HDRS", "555 5.5.4"),
        ("MAIL FROM:a@example.org", "501 5.1.7"),
        ("MAIL FROM:<jörg@example.org>", "553 5.6.7"),
        ("MAIL FROM:<jörg@example.org> SMTPUTF8", "250 2.1.0"),
        ("MAIL FROM:<>", "250 2.1.0"),
        ("MAIL FROM:<a@example.org> BODY=8BITMIME SIZE=100", "250 2.1.0"),
        ("RCPT TO:<b@example.org>", "503 5.5.1"),
        ("MAIL", "501 5.1.7"),
    ],
)
async def test_the_envelope_is_checked(certificates: DemoCertificates, command: str, expected: str) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        await client.ask(f"AUTH XOAUTH2 {xoauth2()}")
        assert (await client.ask(command)).startswith(expected)


@pytest.mark.parametrize("recipient", ["b", "<b>", "<b@x.org", "<b@x.org,c@x.org> x", "<b c@x.org>"])
async def test_a_malformed_recipient_is_refused(certificates: DemoCertificates, recipient: str) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        await client.ask(f"AUTH XOAUTH2 {xoauth2()}")
        await client.ask("MAIL FROM:<a@example.org>")
        assert (await client.ask(f"RCPT TO:{recipient}"))[:3] in {"501", "555"}


async def test_recipients_beyond_the_servers_limit_are_put_off(certificates: DemoCertificates) -> None:
    async with sink_with(certificates, max_recipients=2) as sink, client_of(sink, certificates) as client:
        refused, _ = await client.sendmail(USER, [f"r{n}@example.org" for n in range(3)], MESSAGE)
        assert [code for code, _ in refused.values()] == [452]


@pytest.mark.parametrize(
    ("body", "expected"), [(b"a\nb", "550 5.6.11"), (b"x" * 999, "500 5.6.0"), (b"x" * 998, "250")]
)
async def test_a_body_that_real_servers_refuse_is_refused(
    certificates: DemoCertificates, body: bytes, expected: str
) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        await client.ask(f"AUTH XOAUTH2 {xoauth2()}")
        for command in ("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>", "DATA"):
            await client.ask(command)
        assert (await client.ask(b"Subject: x\r\n\r\n" + body + b"\r\n.")).startswith(expected)
        assert len(sink.received) == (expected == "250")


async def test_a_planned_reply_is_given_once_and_at_its_step(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink:
        sink.script.plan(Step.DATA, "432 4.3.2 Concurrent connections limit exceeded")
        sink.script.plan(Step.DOT, "554 5.2.0 Refused after the dot", "250 Ok 0100-abc")
        async with client_of(sink, certificates) as client:
            for code in (432, 554):
                with pytest.raises(aiosmtplib.SMTPDataError) as failure:
                    await client.sendmail(USER, ["b@example.org"], MESSAGE)
                assert failure.value.code == code
            assert (await client.sendmail(USER, ["b@example.org"], MESSAGE))[1] == "Ok 0100-abc"
        assert len(sink.received) == 1


async def test_a_421_closes_the_connection(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        sink.script.plan(Step.MAIL, "421 4.4.2 Message submission rate exceeded")
        await client.ask(f"AUTH XOAUTH2 {xoauth2()}")
        client.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>")
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.reply() == "closed"


async def test_a_connection_dropped_after_the_dot_has_delivered_its_message(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink:
        sink.script.plan(Step.DOT, DROP)
        async with client_of(sink, certificates) as client:
            with pytest.raises(aiosmtplib.SMTPServerDisconnected):
                await client.sendmail(USER, ["b@example.org"], MESSAGE)
        assert len(sink.received) == 1


async def test_sessions_are_counted(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink:
        async with client_of(sink, certificates), client_of(sink, certificates):
            assert sink.sessions_open == 2
        async with client_of(sink, certificates, token=None):
            pass
        assert sink.sessions_max == 2
        assert sink.sessions_total == 3


async def test_stopping_breaks_open_sessions(certificates: DemoCertificates) -> None:
    async with sink_with(certificates) as sink, raw_client_of(sink, certificates) as client:
        await client.ask(f"AUTH XOAUTH2 {xoauth2()}")
        await sink.stop()
        assert sink.sessions_open == 0
        assert await client.reply() == "closed"
        with pytest.raises(OSError):
            await asyncio.open_connection(*sink.address)


async def test_a_client_that_leaves_in_the_middle_of_tls_is_no_longer_counted(
    certificates: DemoCertificates,
) -> None:
    async with sink_with(certificates) as sink:
        async with raw_client_of(sink, certificates, tls=False) as client:
            assert (await client.ask("STARTTLS")).startswith("220 ")
            client.writer.write(b"\x16\x03\x01")
            client.writer.close()
            await client.writer.wait_closed()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await sink.idle()


@pytest.mark.parametrize("option", ["implicit", "none"])
async def test_implicit_tls_and_no_tls_at_all_work_too(certificates: DemoCertificates, option: str) -> None:
    implicit = option == "implicit"
    options: dict[str, Any] = {"implicit_tls": True} if implicit else {"tls": None, "auth_required": False}
    async with sink_with(certificates, **options) as sink:
        client = aiosmtplib.SMTP(
            hostname="localhost",
            port=sink.address[1],
            local_hostname="client",
            use_tls=implicit,
            start_tls=False,
            tls_context=certificates.client_context() if implicit else None,
            timeout=10,
        )
        async with client:
            if implicit:
                await client.auth_xoauth2(USER, LONG_TOKEN)
            message = EmailMessage()
            message["From"], message["To"] = USER, "b@example.org"
            await client.send_message(message)
        assert [received.tls for received in sink.received] == [implicit]


# --- the token endpoint -----------------------------------------------------------------------------------------


@asynccontextmanager
async def endpoint_with(certificates: DemoCertificates, **options: Any) -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint(tls=certificates.server_context(), clients={CLIENT: SECRET}, **options)
    await endpoint.start()
    try:
        yield endpoint
    finally:
        await endpoint.stop()


def http_client(certificates: DemoCertificates) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=certificates.client_context(), trust_env=False, timeout=PATIENCE_SECONDS)


def form(**changes: str) -> dict[str, str]:
    fields = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET, "scope": "s/.default"}
    return {name: value for name, value in {**fields, **changes}.items() if value}


async def test_a_client_with_its_secret_gets_a_token_that_the_endpoint_knows(
    certificates: DemoCertificates, tmp_path: Path
) -> None:
    record_file = tmp_path / "requests.jsonl"
    async with endpoint_with(certificates, record_file=record_file) as endpoint, http_client(certificates) as client:
        in_body = (await client.post(endpoint.token_url("t1"), data=form())).json()
        in_header = await client.post(
            endpoint.token_url("t2"),
            data=form(client_id="", client_secret=""),
            auth=(CLIENT, SECRET.replace("%", "%25").replace("+", "%2B")),
        )

        for answer in (in_body, in_header.json()):
            assert answer["token_type"] == "Bearer"
            assert answer["expires_in"] == 3600
            assert len(answer["access_token"]) > 1500
            assert endpoint.check(answer["access_token"])
        assert not endpoint.check("another")
        assert endpoint.requests == 2
        endpoint.revoke_all()
        assert not endpoint.check(in_body["access_token"])

        records = read_token_requests(record_file)
        assert records == endpoint.records
        assert [(record.tenant, record.status) for record in records] == [("t1", 200), ("t2", 200)]
        assert SECRET not in record_file.read_text()
        assert in_body["access_token"] not in record_file.read_text()


async def test_a_token_ends_with_its_lifetime(certificates: DemoCertificates) -> None:
    async with endpoint_with(certificates, lifetime_seconds=0) as endpoint, http_client(certificates) as client:
        token = (await client.post(endpoint.token_url("t"), data=form())).json()["access_token"]
        assert not endpoint.check(token)


@pytest.mark.parametrize(
    ("changes", "status", "error", "number"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": ""}, 401, "invalid_client", 7000215),
        ({"client_id": "nobody"}, 400, "unauthorized_client", 700016),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"scope": ""}, 400, "invalid_request", 900144),
    ],
)
async def test_a_refusal_says_why_as_microsoft_does(
    certificates: DemoCertificates, changes: dict[str, str], status: int, error: str, number: int
) -> None:
    async with endpoint_with(certificates) as endpoint, http_client(certificates) as client:
        response = await client.post(endpoint.token_url("t"), data=form(**changes))
        assert response.status_code == status
        assert response.json()["error"] == error
        assert response.json()["error_codes"] == [number]
        assert response.json()["error_description"].startswith(f"AADSTS{number}: ")


async def test_a_tenant_that_is_not_known_is_refused(certificates: DemoCertificates) -> None:
    tenants = frozenset({"known"})
    async with endpoint_with(certificates, tenants=tenants) as endpoint, http_client(certificates) as client:
        assert (await client.post(endpoint.token_url("known"), data=form())).status_code == 200
        refused = await client.post(endpoint.token_url("{tenantId}"), data=form())
        assert refused.json()["error_codes"] == [90002]


async def test_planned_failures_are_given_once_each(certificates: DemoCertificates) -> None:
    async with endpoint_with(certificates) as endpoint, http_client(certificates) as client:
        endpoint.fail_next = [SERVER_ERROR, too_many_requests("7"), BROKEN_JSON, Hang(0)]
        url = endpoint.token_url("t")
        assert (await client.post(url, data=form())).status_code == 500
        throttled = await client.post(url, data=form())
        assert (throttled.status_code, throttled.headers["retry-after"]) == (429, "7")
        with pytest.raises(json.JSONDecodeError):
            (await client.post(url, data=form())).json()
        with pytest.raises(httpx.TransportError):
            await client.post(url, data=form())
        assert (await client.post(url, data=form())).status_code == 200
        assert [record.status for record in endpoint.records] == [500, 429, 200, None, 200]


async def test_an_endpoint_that_hangs_can_be_stopped(certificates: DemoCertificates) -> None:
    async with endpoint_with(certificates) as endpoint, http_client(certificates) as client:
        endpoint.fail_next = [Hang()]
        with pytest.raises(httpx.ReadTimeout):
            await client.post(endpoint.token_url("t"), data=form(), timeout=0.2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await endpoint.stop()


async def test_nonsense_on_the_wire_is_answered_and_harms_nobody_else(certificates: DemoCertificates) -> None:
    async with endpoint_with(certificates) as endpoint, http_client(certificates) as client:
        port = int(endpoint.url.rsplit(":", 1)[1])
        for nonsense in (b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST /"):
            reader, writer = await asyncio.open_connection("localhost", port, ssl=certificates.client_context())
            writer.write(nonsense)
            writer.write_eof() if writer.can_write_eof() else writer.close()
            await reader.read()
            writer.transport.abort()
        assert (await client.post(endpoint.token_url("t"), content=b"\xff=%zz&a")).status_code == 400
        assert (await client.post(endpoint.token_url("t"), content=b"x" * 100_000)).status_code == 413
        assert (await client.get(endpoint.url + "/")).status_code == 404
        assert (await client.post(endpoint.token_url("t"), data=form())).status_code == 200


@pytest.mark.parametrize("kind", ["authority", "oidc_authority"])
async def test_msal_takes_the_endpoint_for_an_authority(
    certificates: DemoCertificates, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def acquire(base: str) -> dict[str, Any]:
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(certificates.ca_file)
            authority = {"authority": base, "instance_discovery": False}
            where: dict[str, Any] = authority if kind == "authority" else {"oidc_authority": f"{base}/v2.0"}
            application = msal.ConfidentialClientApplication(
                CLIENT, client_credential=SECRET, http_client=session, **where
            )
            return application.acquire_token_for_client(["https://outlook.office365.com/.default"]) or {}

    async with endpoint_with(certificates) as endpoint:
        answer = await asyncio.to_thread(acquire, f"{endpoint.url}/contoso")
        assert endpoint.check(answer["access_token"])
        assert [record.tenant for record in endpoint.records] == ["contoso"]


# --- both in a process of their own -------------------------------------------------------------------------------


CONFIGURATION = ServersConfiguration(
    client_id=CLIENT, client_secret=SECRET, recipients={"gone@example.org": ["550 5.1.1 No such user"]}
)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_the_process_gives_tokens_takes_mail_and_ends(tmp_path: Path) -> None:
    with DemoServers(tmp_path / "servers", CONFIGURATION) as running:
        assert decode_running_servers((tmp_path / "servers" / "servers.json").read_bytes()) == running
        context = ssl.create_default_context(cafile=str(running.ca_file))
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            url = running.token_endpoint.replace("{tenantId}", "contoso")
            token = (await client.post(url, data=form())).json()["access_token"]
        smtp = aiosmtplib.SMTP(
            hostname=running.smtp_host,
            port=running.smtp_port,
            local_hostname="client",
            tls_context=context,
            start_tls=True,
        )
        async with smtp:
            await smtp.auth_xoauth2(USER, token)
            refused, _ = await smtp.sendmail(USER, ["gone@example.org", "b@example.org"], MESSAGE)
        assert list(refused) == ["gone@example.org"]
        [received] = read_received(running.received_file)
        assert received.recipients == ("b@example.org",)
        assert [record.status for record in read_token_requests(running.token_requests_file)] == [200]
    assert is_gone(running.process_id)


@pytest.mark.parametrize("request_", [signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_at_a_signal(tmp_path: Path, request_: signal.Signals) -> None:
    servers = DemoServers(tmp_path, CONFIGURATION)
    running = servers.start()
    os.kill(running.process_id, request_)
    os.waitid(os.P_PID, running.process_id, os.WEXITED | os.WNOWAIT)
    servers.stop()
    assert is_gone(running.process_id)


def test_the_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = """
import sys, os, signal
from pathlib import Path
from tocsin_console.demo.servers import DemoServers, ServersConfiguration
running = DemoServers(Path(sys.argv[1]), ServersConfiguration(client_id="a", client_secret="b")).start()
print(running.smtp_port, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, check=False, timeout=PATIENCE_SECONDS
    )
    with socket.socket() as client:
        # The port is closed, or is about to be: then the connection is broken and reads end.
        client.settimeout(10)
        try:
            client.connect(("127.0.0.1", int(parent.stdout)))
            while client.recv(1000):
                pass
        except ConnectionError:
            pass


def test_servers_that_cannot_start_say_where_to_look(tmp_path: Path) -> None:
    (tmp_path / "received.jsonl").mkdir()
    with pytest.raises(TocsinError, match=r"do not start\. See .*servers\.log"):
        DemoServers(tmp_path, CONFIGURATION).start()
    assert "IsADirectoryError" in (tmp_path / "servers.log").read_text()


def test_no_secret_shows_in_a_repr() -> None:
    assert SECRET not in repr(CONFIGURATION)
