"""Microsoft 365: tokens in a person's name, for the refresh token that they left (RFC 6749 section 6).

Microsoft gives another refresh token at each use and lets the old one live; either way the newest is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.ledger.oauth_providers import GrantType
from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.bounded_http import EndpointSession, with_session
from tocsin_workers.tokens.grants.microsoft_credential import credential_of
from tocsin_workers.tokens.grants.msal_client import (
    answer_to,
    confidential_application,
    public_application,
    scopes_of,
)
from tocsin_workers.tokens.grants.seam import GrantSecrets, ObtainedToken, read_token_answer

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile


class MicrosoftSignIn:
    """A mailbox's own token, wherever its refresh token came from."""

    per_mailbox = True
    lives_on_sign_in = True

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        scopes = scopes_of(profile)
        # A device code is a public client's way, and Microsoft refuses one that comes with a secret (AADSTS700025).
        is_public = profile.grant_type == GrantType.DEVICE_CODE
        credential = None if is_public else credential_of(profile, secrets)
        if secrets.refresh_token is None:
            raise refusals.nobody_signed_in(profile, subject)
        refresh_token = secrets.refresh_token.get_secret_value()

        def ask(session: EndpointSession) -> ObtainedToken:
            def acquire() -> object:
                application = (
                    public_application(profile, session)
                    if credential is None
                    else confidential_application(profile, credential, session)
                )
                return application.acquire_token_by_refresh_token(refresh_token, scopes)

            return read_token_answer(profile, answer_to(profile, session, acquire, secrets, mailbox=subject))

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)
