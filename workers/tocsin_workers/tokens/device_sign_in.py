"""Signing in at another screen (RFC 8628): a code for a person, then polls until they have decided."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol, cast

import jwt
from pydantic import SecretStr

from tocsin_schema.errors import TokenError
from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, OAuthProvider
from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.bounded_http import EndpointSession, with_session
from tocsin_workers.tokens.endpoint import endpoint_host
from tocsin_workers.tokens.grants.custom_device_flow import CustomDeviceFlow
from tocsin_workers.tokens.grants.microsoft_device_flow import MicrosoftDeviceFlow
from tocsin_workers.tokens.grants.seam import MAX_TOKEN_LENGTH, GrantSecrets, read_token_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.refusals import Refusal

#: RFC 8628 section 3.2 names the interval's; the other is for endpoints that do not tell.
DEFAULT_INTERVAL_SECONDS = 5.0
DEFAULT_EXPIRES_IN_SECONDS = 900.0
MAX_INTERVAL_SECONDS = 300.0
MAX_EXPIRES_IN_SECONDS = 24 * 3600.0
#: RFC 3696 erratum 1690: the longest address has 254 characters; names may be longer.
MAX_ACCOUNT_LENGTH = 320

_MAX_USER_CODE = 64
_MAX_VERIFICATION_URI = 300
#: Microsoft's codes for a device code that was valid once.
_EXPIRED = ("AADSTS70019", "AADSTS70020")


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person needs (the code and where to enter it), and what we ask with meanwhile."""

    user_code: str
    verification_uri: str
    device_code: SecretStr
    expires_in_seconds: float
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person signed in. `account` is who, where the provider told (an address, mostly)."""

    refresh_token: SecretStr
    refresh_lifetime_seconds: float | None
    account: str | None


class Undecided(Enum):
    """What a poll may find instead."""

    PENDING = auto()
    SLOW_DOWN = auto()
    """As PENDING, and wait 5 s longer from now on (RFC 8628 section 3.5)."""
    DECLINED = auto()
    EXPIRED = auto()


class DeviceFlow(Protocol):
    """How a provider is asked. Both block and give the answer as it came, None where it makes no sense.

    Refusals stay in the session.
    """

    @property
    def hidden(self) -> tuple[str, ...]:
        """What must not show, beside the profile's secrets."""
        ...

    def ask_code(self, session: EndpointSession) -> Mapping[str, object] | None:
        """Ask for a code. Raises TokenError."""
        ...

    def ask_token(self, session: EndpointSession, device_code: str) -> Mapping[str, object] | None:
        """Ask once, without waiting, for the tokens of who entered the code. Raises TokenError."""
        ...


async def begin(profile: OAuthProfile, secrets: GrantSecrets, *, deadline_seconds: float) -> DeviceCode:
    """Ask for a code. Raises TokenError."""
    flow = _flow_of(profile, secrets)

    def ask(session: EndpointSession) -> DeviceCode:
        answer = flow.ask_code(session)
        if session.refusal is not None:
            raise refusals.refused(profile, session.refusal, (*secrets.texts(), *flow.hidden))
        return read_device_code(profile, answer or {})

    return await with_session(profile, ask, deadline_seconds=deadline_seconds)


async def poll(
    profile: OAuthProfile, secrets: GrantSecrets, code: DeviceCode, *, deadline_seconds: float
) -> SignedIn | Undecided:
    """Look once whether the person has decided. Raises TokenError."""
    flow = _flow_of(profile, secrets)
    device_code = code.device_code.get_secret_value()

    def ask(session: EndpointSession) -> SignedIn | Undecided:
        answer = flow.ask_token(session, device_code)
        if session.refusal is None:
            return read_sign_in(profile, answer or {})
        undecided = read_undecided(session.refusal)
        if undecided is None:
            raise refusals.refused(profile, session.refusal, (*secrets.texts(), *flow.hidden, device_code))
        return undecided

    return await with_session(profile, ask, deadline_seconds=deadline_seconds)


def read_device_code(profile: OAuthProfile, answer: Mapping[str, object]) -> DeviceCode:
    """Read an answer of RFC 8628 section 3.2. Raises TokenError where a person could not sign in with it."""
    device_code = _text(answer.get("device_code"), MAX_TOKEN_LENGTH)
    user_code = _text(answer.get("user_code"), _MAX_USER_CODE)
    uri = _text(answer.get("verification_uri"), _MAX_VERIFICATION_URI)
    if device_code is None or user_code is None:
        raise _no_device_code(profile, "the code is missing or too long, or not printable")
    # A person will open it, and enter their password there.
    if uri is None or not uri.isascii() or " " in uri or not uri.startswith("https://"):
        raise _no_device_code(profile, "where to enter it is missing, too long or not an https address")
    return DeviceCode(
        user_code=user_code,
        verification_uri=uri,
        device_code=SecretStr(device_code),
        expires_in_seconds=_seconds(answer.get("expires_in"), DEFAULT_EXPIRES_IN_SECONDS, MAX_EXPIRES_IN_SECONDS),
        interval_seconds=_seconds(answer.get("interval"), DEFAULT_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS),
    )


def read_undecided(refusal: Refusal) -> Undecided | None:
    """Read a refusal of RFC 8628 section 3.5, or Microsoft's own; None where it is of another kind."""
    match refusal.error:
        case "authorization_pending":
            return Undecided.PENDING
        case "slow_down":
            return Undecided.SLOW_DOWN
        case "access_denied" | "authorization_declined":
            return Undecided.DECLINED
        case "expired_token" | "bad_verification_code":
            return Undecided.EXPIRED
        case _:
            return Undecided.EXPIRED if refusal.description.startswith(_EXPIRED) else None


def read_sign_in(profile: OAuthProfile, answer: Mapping[str, object]) -> SignedIn:
    """Read a success answer. Raises TokenError where it leaves nothing to live on."""
    obtained = read_token_answer(profile, answer)
    if obtained.renewal is None:
        scope = " ".join([*(profile.scope or "").split(), "offline_access"])
        raise TokenError(
            f"OAuth profile {profile.name}: the sign-in went well, and {endpoint_host(profile)} gave no refresh token.",
            fix=(
                "Let the provider give this client refresh tokens; many want a scope for that:"
                f" `tocsin oauth set {profile.name} --scope '{scope}'`."
            ),
            permanent=True,
            code="no_refresh_token",
        )
    renewal = obtained.renewal
    return SignedIn(renewal.refresh_token, renewal.lifetime_seconds, account_of(answer.get("id_token")))


def account_of(id_token: object) -> str | None:
    """Give whom an ID token is about, None where it does not tell.

    Its signature is not checked: it came from the token endpoint itself, over TLS (OpenID Connect Core section
    3.1.3.7 point 6), and nothing depends on it but a warning.
    """
    if not isinstance(id_token, str):
        return None
    try:
        claims = cast("dict[str, object]", jwt.decode(id_token, options={"verify_signature": False}))
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    told = (_text(claims.get(name), MAX_ACCOUNT_LENGTH) for name in ("preferred_username", "email", "upn"))
    return next((account for account in told if account is not None), None)


def _flow_of(profile: OAuthProfile, secrets: GrantSecrets) -> DeviceFlow:
    if profile.provider in MICROSOFT_CLOUDS:
        return MicrosoftDeviceFlow(profile)
    if profile.provider == OAuthProvider.CUSTOM:
        return CustomDeviceFlow(profile, secrets.client_secret)
    raise TokenError(
        f"OAuth profile {profile.name}: provider {profile.provider} has no sign-in by device code.",
        fix="Choose another grant: `tocsin oauth add --help` names them.",
        permanent=True,
    )


def _text(told: object, longest: int) -> str | None:
    if not isinstance(told, str) or not told.strip() or len(told) > longest or not told.isprintable():
        return None
    return told.strip()


def _seconds(told: object, otherwise: float, longest: float) -> float:
    """Read a time, which some endpoints give as a text; at least 1 s, so that nobody polls without a pause."""
    try:
        seconds = float(str(told))
    except ValueError:
        return otherwise
    return min(max(seconds, 1.0), longest) if seconds == seconds else otherwise  # noqa: PLR0124  # NaN is not itself


def _no_device_code(profile: OAuthProfile, why: str) -> TokenError:
    return TokenError(f"OAuth profile {profile.name}: nobody could sign in with what came: {why}.")
