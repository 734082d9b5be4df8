"""The ways to the mail sink: straight, over a long way, or through Dovecot with STARTTLS and XOAUTH2."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from bench.contestants.contestant import MailServer, SignIn
from bench.servers import required
from tests.servers import dovecot
from tests.servers.delaying_proxy import DelayingProxy
from tests.servers.dovecot import DovecotSubmission
from tests.servers.oauth_server import (
    CLIENT_CREDENTIALS,
    CLIENT_SECRET,
    CUSTOM_SCOPE,
    MAILBOX,
    POST_CLIENT_ID,
    OAuthServer,
)

if TYPE_CHECKING:
    from bench.servers import Servers


class Route(StrEnum):
    """What stands before the sink."""

    SINK = "sink"
    DOVECOT = "dovecot"


class Submission(DovecotSubmission):
    """Dovecot, and which process it is."""

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid


def mail_server(servers: Servers, route: Route, *, round_trip_seconds: float = 0.0) -> MailServer:
    """Start what is needed, and say where the mail goes; a round trip takes so much longer."""
    match route:
        case Route.SINK:
            server = MailServer(servers.sink.host, servers.sink.port)
        case Route.DOVECOT:
            server = _behind_dovecot(servers)
    if round_trip_seconds == 0.0:
        return server
    proxy = servers.enter(DelayingProxy((server.host, server.port), seconds=round_trip_seconds / 2))
    servers.roots["proxy"] = [proxy.process_id]
    return MailServer(server.host, proxy.port, server.sign_in)


def _behind_dovecot(servers: Servers) -> MailServer:
    """Start Dovecot's submission service, which asks an OAuth server about tokens and relays to the sink."""
    issuer = servers.enter(required(OAuthServer.obtain()))
    submission = servers.enter(
        Submission(
            required(dovecot.from_debian()),
            relay=(servers.sink.host, servers.sink.port),
            tokeninfo_url=issuer.tokeninfo_url,
        )
    )
    servers.roots["dovecot"] = [submission.process_id]
    servers.roots["issuer"] = [issuer.process_id]
    sign_in = SignIn(
        MAILBOX, submission.ca_pem, issuer.token_url, issuer.ca_pem, CUSTOM_SCOPE, POST_CLIENT_ID, CLIENT_SECRET,
        lambda: _token(issuer),
    )  # fmt: skip
    return MailServer(submission.host, submission.port, sign_in)


def _token(issuer: OAuthServer) -> str:
    request = {"grant_type": CLIENT_CREDENTIALS, "client_id": POST_CLIENT_ID, "client_secret": CLIENT_SECRET}
    return str(issuer.client.post(issuer.token_url, data={**request, "scope": CUSTOM_SCOPE}).json()["access_token"])
