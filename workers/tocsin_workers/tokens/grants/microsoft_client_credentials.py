"""Microsoft 365: an application's own token, for a certificate or a client secret (RFC 6749 section 4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.bounded_http import EndpointSession, with_session
from tocsin_workers.tokens.grants.microsoft_credential import credential_of
from tocsin_workers.tokens.grants.msal_client import answer_to, confidential_application, scopes_of
from tocsin_workers.tokens.grants.seam import GrantSecrets, ObtainedToken, read_token_answer

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile


class MicrosoftClientCredentials:
    """An application's own token: one for all mailboxes that it was given access to."""

    per_mailbox = False
    lives_on_sign_in = False

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        del subject  # an application's token has none
        scopes = scopes_of(profile)
        credential = credential_of(profile, secrets)
        if credential is None:
            raise refusals.misconfigured(profile, "it has no client secret", f"replace-secret {profile.name}")

        def ask(session: EndpointSession) -> ObtainedToken:
            def acquire() -> object:
                return confidential_application(profile, credential, session).acquire_token_for_client(scopes)

            return read_token_answer(profile, answer_to(profile, session, acquire, secrets))

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)
