"""Google Workspace: a service account with domain-wide delegation, and refresh tokens, through google-auth.

Google's token endpoint has no client credentials grant for mail. google-auth would ask three times with sleeps in
between where an answer sounds as if it might pass; our transport raises before it can, since retries are decided
for the whole fleet.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from google.auth import transport
from google.auth.crypt import RSASigner
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import credentials, service_account

from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.bounded_http import with_session
from tocsin_workers.tokens.endpoint import token_endpoint
from tocsin_workers.tokens.grants.assertions import signing_key
from tocsin_workers.tokens.grants.seam import GrantSecrets, ObtainedToken, read_token_answer
from tocsin_workers.tokens.refusal_fixes import key_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.bounded_http import Answer, EndpointSession


class _Credentials(Protocol):
    """What we use of google-auth's credentials."""

    def refresh(self, request: transport.Request) -> None: ...


_service_account = cast("Callable[..., _Credentials]", service_account.Credentials)
_signed_in_user = cast("Callable[..., _Credentials]", credentials.Credentials)
_signer = cast("Callable[..., object]", RSASigner)


class GoogleJwtBearer:
    """A token in a mailbox's name for the service account's signature: `sub` is the mailbox.

    It works only where a Workspace administrator has delegated the domain to the service account.
    """

    per_mailbox = True
    lives_on_sign_in = False

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        endpoint, scopes = token_endpoint(profile), _scopes(profile)
        if not profile.client_id:
            raise refusals.misconfigured(
                profile,
                "it has no client id (the service account's address)",
                f"set {profile.name} {key_option(profile)}",
            )

        def ask(session: EndpointSession) -> ObtainedToken:
            key = signing_key(profile, secrets.private_key)
            if not isinstance(key, RSAPrivateKey):
                raise refusals.misconfigured(
                    profile,
                    "its private key is not RSA, as Google's service accounts have them",
                    f"set {profile.name} {key_option(profile)}",
                )
            account = _service_account(
                _signer(key, key_id=profile.key_id),
                service_account_email=profile.client_id,
                token_uri=endpoint,
                scopes=scopes,
                subject=subject,
            )
            return _ask(account, profile, secrets, subject, session)

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)


class GoogleRefreshToken:
    """A token in the name of a person who has consented once."""

    per_mailbox = True
    lives_on_sign_in = True

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        endpoint, scopes = token_endpoint(profile), _scopes(profile)
        if not profile.client_id:
            raise refusals.misconfigured(profile, "it has no client id", f"set {profile.name} --client-id ID")
        if secrets.client_secret is None:
            raise refusals.misconfigured(profile, "it has no client secret", f"replace-secret {profile.name}")
        if secrets.refresh_token is None:
            raise refusals.nobody_signed_in(profile, subject)
        person = _signed_in_user(
            None,
            refresh_token=secrets.refresh_token.get_secret_value(),
            token_uri=endpoint,
            client_id=profile.client_id,
            client_secret=secrets.client_secret.get_secret_value(),
            scopes=scopes,
        )

        def ask(session: EndpointSession) -> ObtainedToken:
            return _ask(person, profile, secrets, subject, session)

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)


def _ask(
    account: _Credentials, profile: OAuthProfile, secrets: GrantSecrets, subject: str, session: EndpointSession
) -> ObtainedToken:
    request = _Transport(profile, secrets, subject, session)
    # The answer is read by ourselves: google-auth's reading of it fails on less, and keeps less.
    with suppress(GoogleAuthError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
        account.refresh(request)
    if request.answer is None:
        raise refusals.unusable_token(profile, "cannot be asked for with these credentials")
    return read_token_answer(profile, cast("Mapping[str, object]", request.answer.json()))


class _Transport(transport.Request):
    """google-auth's way to the endpoint. A refusal is raised at once as TokenError, a success kept in `answer`."""

    def __init__(self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, session: EndpointSession) -> None:
        self._profile = profile
        self._secrets = secrets
        self._subject = subject
        self._session = session
        self.answer: Answer | None = None

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_ignored: object,
    ) -> transport.Response:
        """Send a form. Raises TokenError."""
        del method, timeout  # always POST; the session has a deadline
        form = (body or b"").decode()
        answer = self._session.post(url, data=form, headers=headers)
        if self._session.refusal is not None:
            hidden = (*self._secrets.texts(), *(value for name, value in parse_qsl(form) if name == "assertion"))
            raise refusals.refused(self._profile, self._session.refusal, hidden, mailbox=self._subject)
        self.answer = answer
        return _Response(answer)


class _Response(transport.Response):
    """An answer in google-auth's form."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    @property
    def status(self) -> int:
        return self._answer.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    @property
    def data(self) -> bytes:
        return self._answer.text.encode()


def _scopes(profile: OAuthProfile) -> list[str]:
    scopes = (profile.scope or "").split()
    if not scopes:
        raise refusals.misconfigured(profile, "it has no scope", f"set {profile.name} --scope https://mail.google.com/")
    return scopes
