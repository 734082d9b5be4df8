"""How a client proves itself at a token endpoint with its secret (RFC 6749 section 2.3.1)."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pydantic import SecretStr

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile


@dataclass(frozen=True, slots=True)
class ClientLogin:
    """What Authlib is given. `method` is in its words, which are those of OpenID Connect Core section 9."""

    client_id: str
    client_secret: str | None = field(repr=False)
    method: str

    @property
    def header(self) -> str:
        """What a Basic header holds, for masking."""
        return b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()


def login_of(profile: OAuthProfile, client_id: str, client_secret: SecretStr | None) -> ClientLogin:
    """Say how the client logs in: not at all without a secret, else as the profile has it."""
    if client_secret is None:
        return ClientLogin(client_id, None, "none")
    secret = client_secret.get_secret_value()
    if profile.client_auth == "client_secret_basic":
        # The RFC wants them encoded first, which Authlib leaves to its users.
        return ClientLogin(quote(client_id, safe=""), quote(secret, safe=""), profile.client_auth)
    return ClientLogin(client_id, secret, "client_secret_post")
