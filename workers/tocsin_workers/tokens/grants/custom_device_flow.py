"""Any provider: signing in by device code (RFC 8628), at the endpoints that the profile names."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from authlib.oauth2 import ClientAuth  # pyright: ignore[reportMissingTypeStubs]  # Authlib has none

from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.endpoint import device_endpoint, token_endpoint
from tocsin_workers.tokens.grants.client_login import login_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.bounded_http import EndpointSession, Signature
    from tocsin_workers.tokens.grants.client_login import ClientLogin

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"


class CustomDeviceFlow:
    """A device flow by the standard. Raises TokenError where the profile lacks something."""

    def __init__(self, profile: OAuthProfile, client_secret: SecretStr | None) -> None:
        if not profile.client_id:
            raise refusals.misconfigured(profile, "it has no client id", f"set {profile.name} --client-id ID")
        self._device_endpoint = device_endpoint(profile)
        self._token_endpoint = token_endpoint(profile)
        self._scope = profile.scope
        self._login = login_of(profile, profile.client_id, client_secret)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The Basic header's content, whether or not it is used."""
        return (self._login.header,)

    def ask_code(self, session: EndpointSession) -> Mapping[str, object] | None:
        """Ask for a code (section 3.1). Raises TokenError."""
        form = {"scope": self._scope} if self._scope else {}
        return _post(session, self._device_endpoint, form, self._login)

    def ask_token(self, session: EndpointSession, device_code: str) -> Mapping[str, object] | None:
        """Ask once for the tokens (section 3.4). Raises TokenError."""
        form = {"grant_type": _GRANT_TYPE, "device_code": device_code}
        return _post(session, self._token_endpoint, form, self._login)


def _post(session: EndpointSession, url: str, form: Mapping[str, str], login: ClientLogin) -> Mapping[str, object]:
    signature = cast("Signature", ClientAuth(login.client_id, login.client_secret, login.method))
    # The session has seen to it that this is an object.
    return cast("Mapping[str, object]", session.post(url, data=form, auth=signature).json())
