"""The seam between token requests and the ways to ask: one small adapter a provider and grant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import SecretStr

from tocsin_schema.errors import TokenError
from tocsin_workers.tokens import refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

#: Where the endpoint does not say (RFC 6749 section 5.1 only recommends that it does).
DEFAULT_LIFETIME_SECONDS = 300.0
MAX_LIFETIME_SECONDS = 24 * 3600.0
MAX_REFRESH_LIFETIME_SECONDS = 10 * 365 * 24 * 3600.0
MAX_TOKEN_LENGTH = 16 * 1024


@dataclass(frozen=True, slots=True)
class GrantSecrets:
    """What a grant proves itself with, as far as the profile has it. Masked until `.get_secret_value()`."""

    client_secret: SecretStr | None = None
    private_key: SecretStr | None = None
    """PEM (PKCS #8), not encrypted."""
    refresh_token: SecretStr | None = None

    def texts(self) -> tuple[str, ...]:
        """Give every text that must never show."""
        secrets = (self.client_secret, self.private_key, self.refresh_token)
        return tuple(secret.get_secret_value() for secret in secrets if secret is not None)


@dataclass(frozen=True, slots=True)
class Renewal:
    """The refresh token that comes in place of the one that was used, and its life, where the endpoint tells."""

    refresh_token: SecretStr
    lifetime_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ObtainedToken:
    """A token as it came, with its life in seconds from the request on, and the next refresh token if one came."""

    token: SecretStr
    lifetime_seconds: float
    renewal: Renewal | None = None

    @property
    def refresh_token(self) -> SecretStr | None:
        """The next refresh token, if one came."""
        return None if self.renewal is None else self.renewal.refresh_token


class UnusableTokenError(TokenError):
    """An answer came whose access token cannot be used; a refresh token that came along is good all the same."""

    def __init__(self, problem: str, *, renewal: Renewal | None) -> None:
        super().__init__(problem)
        self.renewal = renewal


class Grant(Protocol):
    """One way to ask a provider for a token."""

    @property
    def per_mailbox(self) -> bool:
        """Whether a token is one mailbox's own (its subject), or the profile's for every mailbox."""
        ...

    @property
    def lives_on_sign_in(self) -> bool:
        """Whether it asks with a refresh token that somebody's sign-in left."""
        ...

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. `deadline_seconds` is a hard total. Raises TokenError and nothing else."""
        ...


def read_token_answer(profile: OAuthProfile, answer: Mapping[str, object]) -> ObtainedToken:
    """Read a success answer (RFC 6749 section 5.1).

    Raises UnusableTokenError where there is no usable token in it.
    """
    renewal = _renewal(answer)
    try:
        return ObtainedToken(_access_token(profile, answer), _lifetime(profile, answer.get("expires_in")), renewal)
    except TokenError as error:
        raise UnusableTokenError(error.problem, renewal=renewal) from None


def _access_token(profile: OAuthProfile, answer: Mapping[str, object]) -> SecretStr:
    token = answer.get("access_token")
    if not isinstance(token, str) or not token:
        raise refusals.unusable_token(profile, "is missing in its answer")
    # It goes into a SASL response between control characters.
    if len(token) > MAX_TOKEN_LENGTH or not token.isascii() or not token.isprintable():
        raise refusals.unusable_token(profile, "is too long or holds characters that no token may hold")
    kind = answer.get("token_type")
    if kind is not None and str(kind).lower() != "bearer":
        raise refusals.unusable_token(profile, "is not a bearer token")
    return SecretStr(token)


def _renewal(answer: Mapping[str, object]) -> Renewal | None:
    """Read the next refresh token; what could not be one is left out, and the one that was used stays."""
    token = answer.get("refresh_token")
    if not isinstance(token, str) or not token or len(token) > MAX_TOKEN_LENGTH or not token.isprintable():
        return None
    return Renewal(SecretStr(token), _refresh_lifetime(answer))


def _refresh_lifetime(answer: Mapping[str, object]) -> float | None:
    """Read what no RFC names: Google and Microsoft say refresh_token_expires_in, Keycloak refresh_expires_in."""
    for name in ("refresh_token_expires_in", "refresh_expires_in"):
        told = answer.get(name)
        if isinstance(told, int | float) and 0 < told < MAX_REFRESH_LIFETIME_SECONDS:
            return float(told)
    return None


def _lifetime(profile: OAuthProfile, expires_in: object) -> float:
    if expires_in is None:
        return DEFAULT_LIFETIME_SECONDS
    try:
        seconds = float(str(expires_in))
    except ValueError:
        seconds = 0.0
    if not seconds > 0:  # NaN too
        raise refusals.unusable_token(profile, "has no life left")
    return min(seconds, MAX_LIFETIME_SECONDS)
