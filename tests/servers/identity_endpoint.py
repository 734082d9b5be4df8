"""Azure's managed identity endpoints over plain HTTP: App Service's and that of virtual machines (IMDS).

Paths, versions, headers, answers and refusals are those of Microsoft's pages "How to use managed identities for App
Service" and "How to use managed identities on a VM to acquire an access token".
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.servers.token_endpoint import Hang, Reply, json_reply, send_reply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

RESOURCE = "https://outlook.office365.com"
IDENTITY_HEADER = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"
#: The user-assigned identity beside the machine's own.
IDENTITY_CLIENT_ID = "77777777-6666-4555-8444-333333333333"


@dataclass(frozen=True)
class IdentityRequest:
    path: str
    parameters: dict[str, str]
    headers: dict[str, str]


class IdentityEndpoint:
    """Listens on loopback. `misbehave` says how every request is answered instead."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[IdentityRequest] = []
        self._behaviour: Reply | Hang | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def imds_host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def app_service_url(self) -> str:
        return f"http://localhost:{self.port}/msi/token"

    def misbehave(self, behaviour: Reply | Hang) -> None:
        self._behaviour = behaviour

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
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
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        assert method == "GET"
        address = urlsplit(target)
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        parameters = {name: values[0] for name, values in parse_qs(address.query).items()}
        request = IdentityRequest(address.path, parameters, headers)
        self.requests.append(request)
        match self._behaviour:
            case Hang():
                await reader.read()
            case Reply() as reply:
                await send_reply(writer, reply)
            case None:
                await send_reply(writer, self._answer(request))

    def _answer(self, request: IdentityRequest) -> Reply:
        match request.path:
            case "/msi/token":
                return self._as_app_service(request)
            case "/metadata/identity/oauth2/token":
                return self._as_imds(request)
            case _:
                return Reply(404, b"")

    def _as_app_service(self, request: IdentityRequest) -> Reply:
        if request.headers.get("x-identity-header") != IDENTITY_HEADER:
            return json_reply(403, {"statusCode": 403, "message": "Forbidden"})
        if request.parameters.get("api-version") != "2019-08-01":
            return json_reply(400, {"statusCode": 400, "message": "UnsupportedApiVersion"})
        if request.parameters.get("client_id", IDENTITY_CLIENT_ID) != IDENTITY_CLIENT_ID:
            told = "No Managed Identity found for specified ClientId/ResourceId/PrincipalId."
            return json_reply(400, {"statusCode": 400, "message": told, "correlationId": "1e-bb"})
        if request.parameters.get("resource") != RESOURCE:
            told = "An unexpected error occurred while fetching the AAD Token."
            return json_reply(500, {"statusCode": 500, "message": told})
        return json_reply(
            200,
            {
                "access_token": f"tokentext-{len(self.requests)}",
                "expires_on": str(int(time.time()) + 3600),
                "resource": RESOURCE,
                "token_type": "Bearer",
                "client_id": IDENTITY_CLIENT_ID,
            },
        )

    def _as_imds(self, request: IdentityRequest) -> Reply:
        if request.headers.get("metadata") != "true":
            told = "Required metadata header not specified"
            return json_reply(400, {"error": "bad_request_102", "error_description": told})
        if request.parameters.get("api-version") != "2018-02-01":
            return json_reply(400, {"error": "bad_request", "error_description": "unknown api-version"})
        if request.parameters.get("client_id", IDENTITY_CLIENT_ID) != IDENTITY_CLIENT_ID:
            return json_reply(400, {"error": "invalid_request", "error_description": "Identity not found"})
        if (resource := request.parameters.get("resource")) != RESOURCE:
            told = f"AADSTS500011: The resource principal named {resource} was not found in the tenant named campus."
            return json_reply(400, {"error": "invalid_resource", "error_description": told})
        return json_reply(
            200,
            {
                "access_token": f"tokentext-{len(self.requests)}",
                "client_id": IDENTITY_CLIENT_ID,
                "expires_in": "86399",
                "expires_on": str(int(time.time()) + 86399),
                "ext_expires_in": "86399",
                "not_before": str(int(time.time())),
                "resource": RESOURCE,
                "token_type": "Bearer",
            },
        )


@asynccontextmanager
async def identity_endpoint() -> AsyncGenerator[IdentityEndpoint]:
    endpoint = IdentityEndpoint()
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        async with server:
            yield endpoint
    finally:
        await endpoint.stop()
