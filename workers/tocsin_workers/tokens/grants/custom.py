"""Any token endpoint: client credentials with the secret in the body (RFC 6749 section 4.4), through Authlib.

Authlib's transport-free client is used, and not its httpx one, which takes whichever of httpx and httpx2 is
installed and warns of the former.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from authlib.oauth2 import OAuth2Client, OAuth2Error  # pyright: ignore[reportMissingTypeStubs]  # Authlib has none

from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.bounded_http import EndpointSession, with_session
from tocsin_workers.tokens.endpoint import token_endpoint
from tocsin_workers.tokens.grants.seam import GrantSecrets, ObtainedToken, read_token_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile


class _Client(Protocol):
    """What we use of Authlib's client."""

    def fetch_token(self, url: str, *, grant_type: str) -> dict[str, object]: ...


_client = cast("Callable[..., _Client]", OAuth2Client)


class CustomClientCredentials:
    """A client's own token: one for all mailboxes that it was given access to."""

    per_mailbox = False
    lives_on_sign_in = False

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        del subject  # a client's token has none
        endpoint = token_endpoint(profile)
        if not profile.client_id:
            raise refusals.misconfigured(profile, "it has no client id", f"set {profile.name} --client-id ID")
        secret = secrets.client_secret
        if secret is None:
            raise refusals.misconfigured(profile, "it has no client secret", f"replace-secret {profile.name}")

        def ask(session: EndpointSession) -> ObtainedToken:
            return _ask(profile, endpoint, secret, session)

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)


def _ask(profile: OAuthProfile, endpoint: str, secret: SecretStr, session: EndpointSession) -> ObtainedToken:
    try:
        client = _client(
            session,
            client_id=profile.client_id,
            client_secret=secret.get_secret_value(),
            token_endpoint_auth_method="client_secret_post",  # noqa: S106  # the name of a method (OIDC Core 9)
            scope=profile.scope,
        )
        answer = client.fetch_token(endpoint, grant_type="client_credentials")
    except (OAuth2Error, ValueError, TypeError, ArithmeticError):
        answer = None
    if session.refusal is not None:
        raise refusals.refused(profile, session.refusal, (secret.get_secret_value(),))
    if answer is None:
        raise refusals.unusable_token(profile, "cannot be read out of its answer")
    return read_token_answer(profile, answer)
