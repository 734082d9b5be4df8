"""Signing in at another screen (RFC 8628): a code for a person, then polls until they have decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.grants.seam import GrantSecrets


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


async def begin(profile: OAuthProfile, secrets: GrantSecrets, *, deadline_seconds: float) -> DeviceCode:
    """Ask for a code. Raises TokenError."""
    raise NotImplementedError


async def poll(
    profile: OAuthProfile, secrets: GrantSecrets, code: DeviceCode, *, deadline_seconds: float
) -> SignedIn | Undecided:
    """Look once whether the person has decided. Raises TokenError."""
    raise NotImplementedError
