"""An OAuth 2.0 token endpoint on this machine, which talks like Microsoft's and knows the tokens it gave out."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

import h11
import msgspec

from tocsin_console.demo.token_grant import (
    Granted,
    Refused,
    TokenRequest,
    decide,
    parse_token_request,
    route,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

_BODY_BYTES: Final = 65_536
_READ_BYTES: Final = 65_536
_TOKEN_OCTETS: Final = 1_800
"""As long as Microsoft's are, so that whoever cannot take long tokens finds out here."""


class TokenRequestRecord(msgspec.Struct, frozen=True):
    """One request for a token: one line of the endpoint's JSONL file. It holds no secret."""

    tenant: str
    client_id: str
    grant_type: str
    scope: str
    status: int | None
    """What was answered; None where nothing was."""
    received_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the endpoint answers instead of the usual."""

    status: int
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer at all for so many seconds, and then a closed connection."""

    seconds: float = 3600


SERVER_ERROR: Final = Response(500, b'{"error":"server_error","error_description":"AADSTS90033: try again"}')
BROKEN_JSON: Final = Response(200, b'{"access_token": ')


def too_many_requests(retry_after: str) -> Response:
    """Build a 429 with a `Retry-After` of seconds, an HTTP date, or nonsense."""
    body = b'{"error":"temporarily_unavailable","error_description":"AADSTS50196: too many requests"}'
    return Response(429, body, (("Retry-After", retry_after),))


class TokenEndpoint:
    """The server. It gives every client whose secret is right a random token for its scope.

    `fail_next` holds what the next token requests get instead; each entry is used once.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext,
        clients: Mapping[str, str],
        lifetime_seconds: int = 3600,
        tenants: frozenset[str] | None = None,
        record_file: Path | None = None,
    ) -> None:
        self.clients = dict(clients)
        self.lifetime_seconds = lifetime_seconds
        self.fail_next: list[Response | Hang] = []
        self.records: list[TokenRequestRecord] = []
        self.url = ""
        self._tls = tls
        self._tenants = tenants
        self._record_file = record_file
        self._file: BinaryIO | None = None
        self._tokens: dict[str, float] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def requests(self) -> int:
        """How many requests for a token came, answered or not."""
        return len(self.records)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL. Raises OSError."""
        if self._record_file is not None:
            self._file = self._record_file.open("ab")
        self._server = await asyncio.start_server(self._serve, host, port, ssl=self._tls)
        self.url = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"
        return self.url

    async def stop(self) -> None:
        """Stop listening, break every connection and close the file."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._server.wait_closed()
        self._server = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def token_url(self, tenant: str) -> str:
        """Return where this tenant gets its tokens."""
        return f"{self.url}/{tenant}/oauth2/v2.0/token"

    def check(self, token: str) -> bool:
        """Whether this endpoint gave the token out and it has not ended."""
        return self._tokens.get(token, 0) > time.monotonic()

    def revoke_all(self) -> None:
        """End every token given out so far, as when an administrator revokes sessions."""
        self._tokens.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # Only `stop` cancels, and a client that goes away is no concern of ours.
            with contextlib.suppress(ConnectionError, TimeoutError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            try:
                request = await _next_event(connection, reader)
                if not isinstance(request, h11.Request):
                    return
                body = await _body(connection, reader)
            except h11.RemoteProtocolError as error:
                await _send(connection, writer, Response(error.error_status_hint, b"{}"))
                return
            response = self._answer(request, body)
            match response:
                case Hang():
                    await asyncio.sleep(response.seconds)
                    return
                case Response():
                    await _send(connection, writer, response)
                case _:
                    assert_never(response)
            try:
                connection.start_next_cycle()
            except h11.LocalProtocolError:  # it does not want to be kept alive
                return

    def _answer(self, request: h11.Request, body: bytes) -> Response | Hang:
        method, target = request.method.decode(), request.target.decode("ascii")
        place = route(method, target)
        if place is None:
            return Response(404, b'{"error":"not_found"}')
        if method == "GET":
            return self._metadata(place.tenant)
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        asked = parse_token_request(place.tenant, headers.get("authorization"), body)
        response = self.fail_next.pop(0) if self.fail_next else self._grant(asked)
        self._record(asked, response)
        return response

    def _metadata(self, tenant: str) -> Response:
        base = f"{self.url}/{tenant}"
        metadata = {
            "issuer": f"{base}/v2.0",
            "token_endpoint": self.token_url(tenant),
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        }
        return Response(200, msgspec.json.encode(metadata))

    def _grant(self, asked: TokenRequest) -> Response:
        decision = decide(asked, self.clients, self._tenants)
        match decision:
            case Granted():
                token = secrets.token_urlsafe(_TOKEN_OCTETS * 3 // 4)
                self._tokens[token] = time.monotonic() + self.lifetime_seconds
                answer = {
                    "token_type": "Bearer",
                    "expires_in": self.lifetime_seconds,
                    "ext_expires_in": self.lifetime_seconds,
                    "access_token": token,
                }
                return Response(200, msgspec.json.encode(answer))
            case Refused():
                return Response(decision.status, decision.body(), decision.headers)
            case _:
                assert_never(decision)

    def _record(self, asked: TokenRequest, response: Response | Hang) -> None:
        record = TokenRequestRecord(
            tenant=asked.tenant,
            client_id=asked.client_id,
            grant_type=asked.grant_type,
            scope=asked.scope,
            status=response.status if isinstance(response, Response) else None,
            received_at=time.time(),
        )
        self.records.append(record)
        if self._file is not None:
            self._file.write(msgspec.json.encode(record) + b"\n")
            self._file.flush()


def read_token_requests(record_file: Path) -> list[TokenRequestRecord]:
    """Read what an endpoint has recorded so far. Raises OSError."""
    lines = record_file.read_bytes().split(b"\n")
    return [msgspec.json.decode(line, type=TokenRequestRecord) for line in lines[:-1]]


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Event | None:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Event):
            return event
        else:
            return None


async def _body(connection: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while isinstance(event := await _next_event(connection, reader), h11.Data):
        body += event.data
        if len(body) > _BODY_BYTES:
            raise h11.RemoteProtocolError("the body is too long", error_status_hint=413)
    return bytes(body)


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, response: Response) -> None:
    headers = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),  # RFC 6749 section 5.1
        *response.headers,
    ]
    for event in (
        h11.Response(status_code=response.status, headers=headers),
        h11.Data(data=response.body),
        h11.EndOfMessage(),
    ):
        writer.write(connection.send(event) or b"")
    await writer.drain()
