"""A token endpoint over HTTPS that can misbehave: client credentials, Microsoft's paths and discovery.

It knows one tenant, one client and one secret or certificate, and gives numbered tokens. `misbehave` says how it
answers requests other than discovery instead, one behaviour a request, the last one from then on.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import jwt
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

TENANT = "11111111-2222-4333-8444-555555555555"
CLIENT_ID = "99999999-8888-4777-8666-555555555555"
CLIENT_SECRET = "s3cret~Value/with+signs"
_TRACES = "\r\nTrace ID: 0f-aa\r\nCorrelation ID: 1e-bb\r\nTimestamp: 2026-11-21 12:00:00Z"


@dataclass(frozen=True)
class Reply:
    """A whole answer, sent at once or a byte every `drip_seconds`."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    drip_seconds: float = 0.0


@dataclass(frozen=True)
class Hang:
    """No answer, until the client goes away."""


@dataclass(frozen=True)
class Close:
    """The connection closed without an answer."""


Behaviour = Reply | Hang | Close


def json_reply(status: int, content: object, **headers: str) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


@dataclass(frozen=True)
class Request:
    path: str
    form: dict[str, str]
    at: float
    headers: dict[str, str] = field(default_factory=dict)


class TokenEndpoint:
    """Listens on loopback under the name `localhost`, with a certificate of an authority of its own."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes().decode()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)
        self.lifetime: object = 3600
        #: Instead of the secret.
        self.certificate_pem: str | None = None
        self.seconds_to_answer = 0.0
        self.requests: list[Request] = []
        self.discoveries = 0
        self.most_at_once = 0
        self.abandoned = asyncio.Event()
        self.asked = asyncio.Event()
        self.port = 0
        self._at_once = 0
        self._behaviours: list[Behaviour] = []
        self._discovery_reply: Reply | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def token_requests(self) -> int:
        return len(self.requests)

    @property
    def custom_url(self) -> str:
        return f"https://localhost:{self.port}/{{tenantId}}/token"

    @property
    def microsoft_url(self) -> str:
        return f"https://localhost:{self.port}/{{tenantId}}/oauth2/v2.0/token"

    def misbehave(self, *behaviours: Behaviour) -> None:
        self._behaviours = list(behaviours)

    def discover_as(self, reply: Reply) -> None:
        self._discovery_reply = reply

    def behave(self) -> None:
        self._behaviours = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            try:
                await self._serve(reader, writer)
            finally:
                self._open.discard(writer)
                writer.close()
                await writer.wait_closed()

    async def stop(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        _, path, _ = lines[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if path.endswith("/.well-known/openid-configuration"):
            self.discoveries += 1
            return await send_reply(writer, self._discovery(path.split("/")[1]))
        form = {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=bool(body)).items()}
        self.requests.append(Request(path, form, asyncio.get_running_loop().time(), headers))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.asked.set()
        try:
            await self._answer(reader, writer, self._next_behaviour(path.split("/")[1], form))
        finally:
            self._at_once -= 1
        return None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behaviour: Behaviour) -> None:
        match behaviour:
            case Hang():
                await reader.read()
                self.abandoned.set()
            case Close():
                pass
            case Reply():
                await asyncio.sleep(self.seconds_to_answer)
                await send_reply(writer, behaviour)

    def _next_behaviour(self, tenant: str, form: dict[str, str]) -> Behaviour:
        if self._behaviours:
            return self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
        if tenant != TENANT:
            return _unknown_tenant(tenant)
        if form.get("grant_type") != "client_credentials":
            return json_reply(400, {"error": "unsupported_grant_type"})
        if self.certificate_pem is not None:
            if not _signed_by(self.certificate_pem, form, f"https://localhost:{self.port}/{tenant}/oauth2/v2.0/token"):
                return json_reply(401, {"error": "invalid_client", "error_description": "AADSTS700027: No."})
        elif (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            description = f"AADSTS7000215: Invalid client secret provided: {form.get('client_secret')}.{_TRACES}"
            return json_reply(401, {"error": "invalid_client", "error_description": description})
        token = f"tokentext-{self.token_requests}"
        return json_reply(200, {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": token})

    def _discovery(self, tenant: str) -> Reply:
        if self._discovery_reply is not None:
            return self._discovery_reply
        if tenant != TENANT:
            return _unknown_tenant(tenant)
        base = f"https://localhost:{self.port}/{tenant}"
        return json_reply(
            200,
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            },
        )

    @property
    def context(self) -> ssl.SSLContext:
        return self._context


@asynccontextmanager
async def token_endpoint() -> AsyncGenerator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, ssl=endpoint.context)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        async with server:
            yield endpoint
    finally:
        await endpoint.stop()


def _signed_by(certificate_pem: str, form: dict[str, str], audience: str) -> bool:
    """Check a client assertion as Microsoft does: RFC 7523 section 3, and the certificate's thumbprint."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assertion = form["client_assertion"]
    thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).decode().rstrip("=")
    if jwt.get_unverified_header(assertion)["x5t#S256"].rstrip("=") != thumbprint:
        return False
    try:
        claims = jwt.decode(assertion, key, algorithms=["PS256"], audience=audience)
    except jwt.PyJWTError:
        return False
    return claims["iss"] == claims["sub"] == CLIENT_ID and "jti" in claims


def _unknown_tenant(tenant: str) -> Reply:
    description = f"AADSTS90002: Tenant '{tenant}' not found. Check to make sure you have the correct id.{_TRACES}"
    return json_reply(400, {"error": "invalid_tenant", "error_description": description})


async def send_reply(writer: asyncio.StreamWriter, reply: Reply) -> None:
    headers = {"Content-Length": str(len(reply.body)), "Connection": "close", **reply.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = f"HTTP/1.1 {reply.status} Whatever\r\n{head}\r\n".encode() + reply.body
    if not reply.drip_seconds:
        writer.write(answer)
        await writer.drain()
        return
    for byte in answer:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(reply.drip_seconds)
