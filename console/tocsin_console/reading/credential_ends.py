"""When credentials end: as a person enters it, as it is told, and which of them a profile stands or falls with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, assert_never

from tocsin_console.output import counted
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.credential_expiry import UNUSED_SIGN_IN_LIVES, WARN_AHEAD, CredentialEnd
from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, GrantType, OAuthProvider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.refresh_tokens import RefreshTokenRow

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_FIRST_YEAR, _YEARS_AHEAD = 2000, 100


@dataclass(frozen=True, slots=True)
class Credential:
    """What an OAuth profile proves itself with, and when that ends.

    `kind` is one of client_secret, certificate, private_key, refresh_token, workload_identity and managed_identity, as
    `CredentialEnd` names them; None where there is nothing. `name` is what people read.
    """

    kind: str | None
    name: str
    ends_at: datetime | None = None
    if_unused: bool = False
    """Whether using it puts the end off."""
    can_end: bool = True


def read_end_date(text: str, flag: str, *, now: datetime) -> datetime:
    """Read a day, of which the end in UTC is meant, or a time as in RFC 3339. Raises UsageError."""
    ends_at = _moment(text)
    if ends_at is None or not _FIRST_YEAR <= ends_at.year <= now.year + _YEARS_AHEAD:
        raise UsageError(
            f"{flag} {text[:40]!r} is not a date.", fix="Write it like 2027-03-01 or 2027-03-01T12:00:00Z."
        )
    return ends_at


def end_in_words(ends_at: datetime | None, *, now: datetime) -> str:
    """Say when something ends: `2027-03-01 (in 99 days)`, `expired 2026-01-01` or `not known`."""
    if ends_at is None:
        return "not known"
    day = ends_at.astimezone(UTC).date()
    if ends_at <= now:
        return f"expired {day}"
    days = (day - now.astimezone(UTC).date()).days
    return f"{day} (in {counted(days, 'day')})" if days else f"{day} (today)"


def warning_of_end(what: str, ends_at: datetime | None, *, now: datetime) -> str | None:
    """Say that something has ended, or will within `WARN_AHEAD`; None where there is nothing to warn of."""
    if ends_at is None or ends_at > now + WARN_AHEAD:
        return None
    words = end_in_words(ends_at, now=now)
    return f"{what} has {words}." if ends_at <= now else f"{what} ends {words}."


def told(end: CredentialEnd, *, now: datetime) -> str:
    """Say whose credential has ended or ends, and when."""
    whose = f"{end.credential.replace('_', ' ')} of OAuth profile {end.oauth_profile}"
    if end.subject is not None:
        whose += f" for {end.subject}"
    words = end_in_words(end.expires_at, now=now)
    return f"{whose} {words}" if end.expires_at <= now else f"{whose} ends {words}"


def sign_in_end(profile: OAuthProfile, sign_in: RefreshTokenRow) -> tuple[datetime | None, bool]:
    """Give when a sign-in ends, and whether only if it is not used before."""
    if sign_in.expires_at is None and OAuthProvider(profile.provider) in MICROSOFT_CLOUDS:
        return sign_in.renewed_at + UNUSED_SIGN_IN_LIVES, True
    return sign_in.expires_at, False


def credential_of(profile: OAuthProfile, sign_ins: Sequence[RefreshTokenRow]) -> Credential:
    """Give what a profile proves itself with. Of several sign-ins, the end of the first to end counts."""
    grant = GrantType(profile.grant_type)
    match grant:
        case GrantType.DEVICE_CODE | GrantType.REFRESH_TOKEN:
            return _sign_ins(profile, sign_ins)
        case GrantType.WORKLOAD_IDENTITY:
            return Credential("workload_identity", "workload identity", can_end=False)
        case GrantType.MANAGED_IDENTITY:
            return Credential("managed_identity", "managed identity", can_end=False)
        case GrantType.CLIENT_CREDENTIALS | GrantType.JWT_BEARER:
            return _own(profile)
        case _:
            assert_never(grant)


def credential_end_in_words(credential: Credential, *, now: datetime) -> str:
    """Say when a credential ends, for a table."""
    if not credential.can_end:
        return "-"
    words = end_in_words(credential.ends_at, now=now)
    return f"{words}, if not used before" if credential.if_unused and credential.ends_at is not None else words


def _own(profile: OAuthProfile) -> Credential:
    """Give a client's own credential: the key before the secret, as the grants have it."""
    if profile.private_key_set_at is not None:
        has_certificate = profile.certificate_pem is not None
        kind = "certificate" if has_certificate else "private_key"
        return Credential(kind, kind.replace("_", " "), profile.certificate_expires_at, can_end=has_certificate)
    if profile.secret_set_at is not None:
        return Credential("client_secret", "client secret", profile.secret_expires_at)
    return Credential(None, "not set", can_end=False)


def _moment(text: str) -> datetime | None:
    try:
        if _DAY.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), time(23, 59, 59), UTC)
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _sign_ins(profile: OAuthProfile, sign_ins: Sequence[RefreshTokenRow]) -> Credential:
    name = f"sign-ins: {len(sign_ins)}"
    ends = [(end, if_unused) for end, if_unused in (sign_in_end(profile, row) for row in sign_ins) if end is not None]
    kind = "refresh_token" if sign_ins else None
    if not ends:
        return Credential(kind, name, can_end=bool(sign_ins))
    ends_at, if_unused = min(ends)
    return Credential(kind, name, ends_at, if_unused)
