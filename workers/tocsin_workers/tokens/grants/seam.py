"""The seam between token requests and the ways to ask: one small adapter a provider and grant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import SecretStr

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
class ObtainedToken:
    """A token as it came, with its life in seconds from the request on.

    `refresh_token` is the next one, where the endpoint gave another; `refresh_lifetime_seconds` its life, where the
    endpoint told.
    """

    token: SecretStr
    lifetime_seconds: float
    refresh_token: SecretStr | None = None
    refresh_lifetime_seconds: float | None = None


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
    """Read a success answer (RFC 6749 section 5.1). Raises TokenError where there is no usable token in it."""
    token = answer.get("access_token")
    if not isinstance(token, str) or not token:
        raise refusals.unusable_token(profile, "is missing in its answer")
    # It goes into a SASL response between control characters.
    if len(token) > MAX_TOKEN_LENGTH or not token.isascii() or not token.isprintable():
        raise refusals.unusable_token(profile, "is too long or holds characters that no token may hold")
    kind = answer.get("token_type")
    if kind is not None and str(kind).lower() != "bearer":
        raise refusals.unusable_token(profile, "is not a bearer token")
    return ObtainedToken(
        SecretStr(token),
        _lifetime(profile, answer.get("expires_in")),
        refresh_token=_next_refresh_token(profile, answer.get("refresh_token")),
        refresh_lifetime_seconds=_refresh_lifetime(answer),
    )


def _next_refresh_token(profile: OAuthProfile, token: object) -> SecretStr | None:
    if token is None or token == "":
        return None
    if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH or not token.isprintable():
        raise refusals.unusable_token(profile, "comes with a refresh token that cannot be one")
    return SecretStr(token)


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
