"""Microsoft 365: signing in by device code, through MSAL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_workers.tokens.grants.msal_client import authority_of, call, client_id_of, public_application, scopes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.bounded_http import EndpointSession


class MicrosoftDeviceFlow:
    """A device flow of Microsoft's, always as a public client: MSAL knows no other.

    The constructor raises TokenError where the profile lacks something.
    """

    def __init__(self, profile: OAuthProfile) -> None:
        client_id_of(profile)
        authority_of(profile)
        self._profile = profile
        self._scopes = scopes_of(profile)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Nothing: a public client has no secret."""
        return ()

    def ask_code(self, session: EndpointSession) -> Mapping[str, object] | None:
        """Ask for a code. Raises TokenError."""
        return call(lambda: public_application(self._profile, session).initiate_device_flow(self._scopes))

    def ask_token(self, session: EndpointSession, device_code: str) -> Mapping[str, object] | None:
        """Ask once for the tokens. Raises TokenError."""
        # MSAL leaves its loop of waits only from within a wait, so the interval must not be 0; and it warns of
        # haste only where it is told of an earlier attempt: whoever polls keeps the time.
        flow: dict[str, object] = {"device_code": device_code, "interval": 1}
        return call(
            lambda: public_application(self._profile, session).acquire_token_by_device_flow(
                flow, exit_condition=lambda _: True
            )
        )
