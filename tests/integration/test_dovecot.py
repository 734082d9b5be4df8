"""Signing in to a mail server that really checks the token: Dovecot's submission service."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from aiosmtpd.controller import Controller

from tests.servers import dovecot
from tests.servers.availability import or_skip
from tests.servers.dovecot import DovecotSubmission
from tests.servers.ports import free_port
from tests.servers.smtp import KeepingHandler
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.connection import SmtpServer, open_session
from tocsin_workers.smtp.credentials import OAuthCredentials
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.errors import SmtpAuthError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tocsin_workers.smtp.session import Session

MAILBOX = "alerts@campus.example"
STATUS_OF_A_REFUSAL = {"XOAUTH2": "401", "OAUTHBEARER": "invalid_token"}
LONG_TOKEN = "long-token-" + "x" * 2500


class TokeninfoHandler(BaseHTTPRequestHandler):
    """Knows a few tokens and the mailbox of each."""

    mailboxes: ClassVar[dict[str, str]] = {
        "a-right-token": MAILBOX,
        LONG_TOKEN: MAILBOX,
        "a-token-of-another-mailbox": "library@campus.example",
    }

    def do_GET(self) -> None:
        [token] = parse_qs(urlsplit(self.path).query)["access_token"]
        mailbox = self.mailboxes.get(token)
        content = {"error": "invalid_token"} if mailbox is None else {"email": mailbox, "expires_in": 3600}
        body = json.dumps(content).encode()
        self.send_response(400 if mailbox is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing."""


@contextmanager
def tokeninfo_endpoint() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), TokeninfoHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/tokeninfo?access_token="
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def relay() -> Iterator[Controller]:
    controller = Controller(KeepingHandler(), hostname="127.0.0.1", port=free_port())
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture(scope="module", params=["xoauth2", "oauthbearer"])
def submission(request: pytest.FixtureRequest, relay: Controller) -> Iterator[DovecotSubmission]:
    unpacked = or_skip(dovecot.from_debian())
    with (
        tokeninfo_endpoint() as url,
        DovecotSubmission(
            unpacked, tokeninfo_url=url, relay=(relay.hostname, relay.port), mechanisms=(request.param,)
        ) as service,
    ):
        yield service


async def sign_in(submission: DovecotSubmission, token: str) -> Session:
    server = SmtpServer(submission.host, submission.port, ca_pem=submission.ca_pem)
    return await open_session(server, OAuthCredentials(MAILBOX, token), local_hostname="client.test")


@pytest.mark.parametrize("token", ["a-right-token", LONG_TOKEN], ids=["short", "too long for one line"])
async def test_mail_goes_through_with_a_token_that_its_issuer_vouches_for(
    submission: DovecotSubmission, relay: Controller, token: str
) -> None:
    kept = relay.handler.envelopes
    kept.clear()
    session = await sign_in(submission, token)
    for recipient in ("one@campus.example", "two@campus.example"):
        envelope = Envelope(MAILBOX, (recipient,))
        transaction = await session.transact(envelope, to_wire(b"Subject: Water damage\r\n\r\nLeave.\r\n"))
        assert judge(transaction).recipients[0].verdict is Verdict.SENT
    await session.quit()
    assert [(message.mail_from, message.recipients) for message in kept] == [
        (MAILBOX, ("one@campus.example",)),
        (MAILBOX, ("two@campus.example",)),
    ]


@pytest.mark.parametrize("token", ["a-wrong-token", "a-token-of-another-mailbox"])
async def test_a_refused_token_comes_back_as_an_error_with_the_servers_own_json(
    submission: DovecotSubmission, token: str
) -> None:
    with pytest.raises(SmtpAuthError) as caught:
        await sign_in(submission, token)
    assert caught.value.detail is not None
    assert caught.value.mechanism is not None
    assert json.loads(caught.value.detail)["status"] == STATUS_OF_A_REFUSAL[caught.value.mechanism]
    assert caught.value.reply is not None
    assert caught.value.reply.code == 535
    assert token not in str(caught.value)
