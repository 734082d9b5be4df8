"""Any token endpoint, through Authlib: client credentials, refresh token and JWT bearer.

Authlib's transport-free client is used, and not its httpx one, which takes whichever of httpx and httpx2 is
installed and warns of the former.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from authlib.oauth2 import OAuth2Client, OAuth2Error  # pyright: ignore[reportMissingTypeStubs]  # Authlib has none

from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.bounded_http import EndpointSession, with_session
from tocsin_workers.tokens.endpoint import token_endpoint
from tocsin_workers.tokens.grants.assertions import signed_assertion
from tocsin_workers.tokens.grants.client_login import login_of
from tocsin_workers.tokens.grants.seam import GrantSecrets, ObtainedToken, read_token_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class _Client(Protocol):
    """What we use of Authlib's client."""

    def fetch_token(self, url: str, *, grant_type: str, **parameters: str) -> dict[str, object]: ...


_client = cast("Callable[..., _Client]", OAuth2Client)


class CustomClientCredentials:
    """A client's own token (RFC 6749 section 4.4): one for all mailboxes that it was given access to."""

    per_mailbox = False
    lives_on_sign_in = False

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        inquiry = _Inquiry(profile, secrets, subject, token_endpoint(profile), _client_id(profile))
        if secrets.client_secret is None:
            raise refusals.misconfigured(profile, "it has no client secret", f"replace-secret {profile.name}")

        def ask(session: EndpointSession) -> ObtainedToken:
            return inquiry.ask(session, "client_credentials")

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)


class CustomRefreshToken:
    """A token in the name of a person who signed in (RFC 6749 section 6), by device code or elsewhere.

    A client without a secret is a public one.
    """

    per_mailbox = True
    lives_on_sign_in = True

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        inquiry = _Inquiry(profile, secrets, subject, token_endpoint(profile), _client_id(profile))
        if secrets.refresh_token is None:
            raise refusals.nobody_signed_in(profile, subject)
        refresh_token = secrets.refresh_token.get_secret_value()

        def ask(session: EndpointSession) -> ObtainedToken:
            return inquiry.ask(session, "refresh_token", refresh_token=refresh_token)

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)


class CustomJwtBearer:
    """A token in a mailbox's name for an assertion that we sign (RFC 7523 section 2.1).

    Where the profile has a client secret, the client proves itself with that as well.
    """

    per_mailbox = True
    lives_on_sign_in = False

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        inquiry = _Inquiry(profile, secrets, subject, token_endpoint(profile), _client_id(profile))

        def ask(session: EndpointSession) -> ObtainedToken:
            assertion = signed_assertion(
                profile,
                secrets.private_key,
                issuer=inquiry.client_id,
                subject=subject,
                audience=inquiry.endpoint,
            )
            return inquiry.ask(session, JWT_BEARER, assertion=assertion)

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)


@dataclass(frozen=True, slots=True)
class _Inquiry:
    """Who asks, whom, and for whom."""

    profile: OAuthProfile
    secrets: GrantSecrets
    subject: str
    endpoint: str
    client_id: str

    def ask(self, session: EndpointSession, grant_type: str, **parameters: str) -> ObtainedToken:
        """Ask once, and read what comes. Raises TokenError."""
        login = login_of(self.profile, self.client_id, self.secrets.client_secret)
        try:
            client = _client(
                session,
                client_id=login.client_id,
                client_secret=login.client_secret,
                token_endpoint_auth_method=login.method,
                scope=self.profile.scope,
            )
            answer = client.fetch_token(self.endpoint, grant_type=grant_type, **parameters)
        except (OAuth2Error, ValueError, TypeError, ArithmeticError):
            answer = None
        if session.refusal is not None:
            hidden = (*self.secrets.texts(), *parameters.values(), login.header)
            raise refusals.refused(self.profile, session.refusal, hidden, mailbox=self.subject)
        if answer is None:
            raise refusals.unusable_token(self.profile, "cannot be read out of its answer")
        return read_token_answer(self.profile, answer)


def _client_id(profile: OAuthProfile) -> str:
    if not profile.client_id:
        raise refusals.misconfigured(profile, "it has no client id", f"set {profile.name} --client-id ID")
    return profile.client_id
