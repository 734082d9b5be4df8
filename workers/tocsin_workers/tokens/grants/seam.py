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
MAX_TOKEN_LENGTH = 16 * 1024


@dataclass(frozen=True, slots=True)
class ObtainedToken:
    """A token as it came, with its life in seconds from the request on."""

    token: SecretStr
    lifetime_seconds: float


class Grant(Protocol):
    """One way to ask a provider for a token."""

    @property
    def per_mailbox(self) -> bool:
        """Whether a token is one mailbox's own (its subject), or the profile's for every mailbox."""
        ...

    async def request(
        self, profile: OAuthProfile, secret: SecretStr | None, subject: str, *, deadline_seconds: float
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
    return ObtainedToken(SecretStr(token), _lifetime(profile, answer.get("expires_in")))


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
