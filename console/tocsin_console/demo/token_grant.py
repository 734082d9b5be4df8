"""What the token endpoint decides about a request: pure functions from a request to a grant or a refusal.

The refusals have the shape and the codes of Microsoft Entra's, so that what reads those can be shown here.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote_plus, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKEN_PATH: Final = re.compile(r"/([^/]+)/oauth2/v2\.0/token")
# MSAL looks for an `authority` with the version and for an `oidc_authority` without.
_METADATA_PATH: Final = re.compile(r"/([^/]+)(?:/v2\.0)?/\.well-known/openid-configuration")
_FIELDS: Final = 50


@dataclass(frozen=True, slots=True)
class Place:
    """A path that the endpoint serves."""

    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A request for a token, RFC 6749 section 4.4.2. What is missing is empty."""

    tenant: str
    grant_type: str
    client_id: str
    client_secret: str
    scope: str

    def __repr__(self) -> str:
        return f"TokenRequest(tenant={self.tenant!r}, client_id={self.client_id!r}, client_secret=…)"


@dataclass(frozen=True, slots=True)
class Granted:
    """The client gets a token."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The client gets an error, RFC 6749 section 5.2, with one of Entra's numbers."""

    status: int
    error: str
    number: int
    description: str

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What a 401 must carry."""
        return (("WWW-Authenticate", 'Basic realm="tocsin-demo"'),) if self.status == 401 else ()  # noqa: PLR2004  # HTTP

    def body(self) -> bytes:
        """Return the JSON of the error."""
        return msgspec.json.encode(
            {
                "error": self.error,
                "error_description": f"AADSTS{self.number}: {self.description}",
                "error_codes": [self.number],
            }
        )


def route(method: str, target: str) -> Place | None:
    """Find what a request line asks for; None where there is nothing."""
    pattern = {"POST": _TOKEN_PATH, "GET": _METADATA_PATH}.get(method)
    match = pattern.fullmatch(urlsplit(target).path) if pattern else None
    return Place(match[1]) if match else None


def parse_token_request(tenant: str, authorization: str | None, body: bytes) -> TokenRequest:
    """Read the form and the client's credentials, from a Basic header (RFC 6749 section 2.3.1) or the form."""
    try:
        form = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        form = {}
    fields = {name: values[0] for name, values in form.items()}
    client_id, client_secret = _basic(authorization) or (
        fields.get("client_id", ""),
        fields.get("client_secret", ""),
    )
    return TokenRequest(
        tenant=tenant,
        grant_type=fields.get("grant_type", ""),
        client_id=client_id,
        client_secret=client_secret,
        scope=fields.get("scope", ""),
    )


def decide(asked: TokenRequest, clients: Mapping[str, str], tenants: frozenset[str] | None) -> Granted | Refused:
    """Grant or refuse. `tenants` None knows every tenant."""
    if tenants is not None and asked.tenant not in tenants:
        return Refused(400, "invalid_request", 90002, f"Tenant '{asked.tenant}' not found.")
    if asked.grant_type != "client_credentials":
        return Refused(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
    if not asked.scope:
        return Refused(
            400,
            "invalid_request",
            900144,
            "The request body must contain the following parameter: 'scope'.",
        )
    if asked.client_id not in clients:
        return Refused(
            400,
            "unauthorized_client",
            700016,
            f"Application with identifier '{asked.client_id}' was not found in the directory.",
        )
    if not hmac.compare_digest(clients[asked.client_id].encode(), asked.client_secret.encode()):
        return Refused(
            401,
            "invalid_client",
            7000215,
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
            f"value, not the client secret ID, for a secret added to app '{asked.client_id}'.",
        )
    return Granted()


def _basic(authorization: str | None) -> tuple[str, str] | None:
    kind, _, credentials = (authorization or "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(client_id), unquote_plus(secret)
