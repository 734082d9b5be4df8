"""Microsoft 365: client credentials with a secret, through MSAL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import msal  # pyright: ignore[reportMissingTypeStubs]  # MSAL has no type information

from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.bounded_http import EndpointSession, with_session
from tocsin_workers.tokens.endpoint import token_endpoint
from tocsin_workers.tokens.grants.seam import GrantSecrets, ObtainedToken, read_token_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

_ENDPOINT_PATH = "/oauth2/v2.0/token"


class _Application(Protocol):
    """What we use of MSAL's application."""

    def acquire_token_for_client(self, scopes: list[str]) -> dict[str, object] | None: ...


_application = cast("Callable[..., _Application]", msal.ConfidentialClientApplication)


class MicrosoftClientCredentials:
    """An application's own token: one for all mailboxes that it was given access to."""

    per_mailbox = False
    lives_on_sign_in = False

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        del subject  # an application's token has none
        authority = _authority(profile)
        if not profile.client_id:
            raise refusals.misconfigured(profile, "it has no client id", f"set {profile.name} --client-id ID")
        secret = secrets.client_secret
        if secret is None:
            raise refusals.misconfigured(profile, "it has no client secret", f"replace-secret {profile.name}")
        scopes = (profile.scope or "").split()
        if not scopes:
            raise refusals.misconfigured(profile, "it has no scope", f"set {profile.name} --scope SCOPE")

        def ask(session: EndpointSession) -> ObtainedToken:
            return _ask(profile, authority, secret, scopes, session)

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)


def _ask(
    profile: OAuthProfile, authority: str, secret: SecretStr, scopes: list[str], session: EndpointSession
) -> ObtainedToken:
    try:
        application = _application(
            profile.client_id,
            authority=authority,
            client_credential=secret.get_secret_value(),
            # Kept, it would hand back the token that a mail server has just refused.
            token_cache=msal.TokenCache(),
            http_client=session,
            # The profile says whom to trust; Microsoft's list of clouds is not asked, and no region is guessed.
            instance_discovery=False,
            azure_region=False,
        )
        answer = application.acquire_token_for_client(scopes)
    except (ValueError, LookupError, TypeError, AttributeError):
        answer = None
    if session.refusal is not None:
        raise refusals.refused(profile, session.refusal, (secret.get_secret_value(),))
    if answer is None:
        raise refusals.unusable_token(profile, "cannot be read out of its answer")
    return read_token_answer(profile, answer)


def _authority(profile: OAuthProfile) -> str:
    endpoint = token_endpoint(profile)
    if not endpoint.endswith(_ENDPOINT_PATH):
        raise refusals.misconfigured(
            profile,
            f"Microsoft's token endpoint ends in {_ENDPOINT_PATH}, and this one does not",
            f"set {profile.name} --token-endpoint URL",
        )
    return endpoint.removesuffix(_ENDPOINT_PATH)
