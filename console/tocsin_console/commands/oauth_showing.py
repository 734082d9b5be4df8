"""How an OAuth profile looks: as a row, as facts, as JSON. No secret is among it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tocsin_console.output import moment
from tocsin_console.reading.credential_ends import (
    credential_end_in_words,
    credential_of,
    end_in_words,
    sign_in_end,
)
from tocsin_schema.ledger.oauth_providers import SIGN_IN_GRANTS, GrantType

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tocsin_console.output import Cell
    from tocsin_schema.ledger.access_tokens import TokenRow
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.refresh_tokens import RefreshTokenRow


@dataclass(frozen=True, slots=True)
class OAuthLine:
    """An OAuth profile with its sign-ins, as a list shows it."""

    profile: OAuthProfile
    sign_ins: Sequence[RefreshTokenRow]


@dataclass(frozen=True, slots=True)
class OAuthPicture:
    """All that may be known of an OAuth profile."""

    profile: OAuthProfile
    sign_ins: Sequence[RefreshTokenRow]
    tokens: Sequence[TokenRow]
    used_by: Sequence[str]


def headings() -> tuple[str, ...]:
    """Name the columns of `as_row`."""
    return ("NAME", "PROVIDER", "GRANT", "WHERE", "CREDENTIAL", "ENDS")


def as_row(line: OAuthLine, *, now: datetime) -> tuple[Cell, ...]:
    """Give a profile as a row of a table."""
    profile = line.profile
    credential = credential_of(profile, line.sign_ins)
    return (
        profile.name,
        profile.provider,
        profile.grant_type,
        _where(profile),
        credential.name,
        credential_end_in_words(credential, now=now),
    )


def as_facts(picture: OAuthPicture, *, now: datetime) -> list[tuple[str, Cell]]:
    """Give all that may be known of a profile, for people."""
    profile = picture.profile
    facts: list[tuple[str, Cell]] = [
        ("Name", profile.name),
        ("Provider", profile.provider),
        ("Grant", profile.grant_type),
        ("Token endpoint", profile.token_endpoint),
        *_if_any("Device endpoint", profile.device_endpoint),
        ("Scope", profile.scope),
        ("Tenant id", profile.tenant_id),
        ("Client id", profile.client_id),
        *_if_any("Granted delegation as", profile.delegation_client_id),
        *_if_any("Token file", profile.token_file),
        *_secret_facts(profile, now=now),
        *_key_facts(profile, now=now),
        ("Own CA certificates", "yes" if profile.ca_pem else "no"),
        ("Used by", ", ".join(picture.used_by) or "no sending profile"),
    ]
    facts += [("Sign-in", _sign_in(profile, sign_in, now=now)) for sign_in in picture.sign_ins]
    if profile.grant_type in SIGN_IN_GRANTS and not picture.sign_ins:
        facts.append(("Sign-in", "nobody has signed in"))
    for token in picture.tokens:
        facts += _token_facts(token)
    return [*facts, ("Created", profile.created_at), ("Changed", profile.updated_at)]


def as_json_object(line: OAuthLine) -> dict[str, object]:
    """Give a profile as a list shows it, for programs."""
    profile = line.profile
    credential = credential_of(profile, line.sign_ins)
    return {
        "name": profile.name,
        "provider": profile.provider,
        "grant": profile.grant_type,
        "token_endpoint": profile.token_endpoint,
        "device_endpoint": profile.device_endpoint,
        "scope": profile.scope,
        "tenant_id": profile.tenant_id,
        "client_id": profile.client_id,
        "client_auth": profile.client_auth,
        "delegation_client_id": profile.delegation_client_id,
        "token_file": profile.token_file,
        "credential": credential.kind,
        "expires_at": credential.ends_at,
        "expires_if_unused": credential.if_unused,
        "sign_ins": len(line.sign_ins),
        "secret_is_set": profile.secret_set_at is not None,
        "secret_set_at": profile.secret_set_at,
        "secret_expires_at": profile.secret_expires_at,
        "private_key_is_set": profile.private_key_set_at is not None,
        "private_key_set_at": profile.private_key_set_at,
        "key_id": profile.key_id,
        "has_certificate": profile.certificate_pem is not None,
        "certificate_expires_at": profile.certificate_expires_at,
        "has_own_ca": profile.ca_pem is not None,
        "created_at": profile.created_at,
        "updated_at": profile.updated_at,
    }


def picture_as_json_object(picture: OAuthPicture) -> dict[str, object]:
    """Give all that may be known of a profile, for programs."""
    return {
        **as_json_object(OAuthLine(picture.profile, picture.sign_ins)),
        "signed_in": [_sign_in_json(picture.profile, sign_in) for sign_in in picture.sign_ins],
        "tokens": [_token_json(token) for token in picture.tokens],
        "used_by": list(picture.used_by),
    }


def _where(profile: OAuthProfile) -> str:
    if profile.grant_type == GrantType.MANAGED_IDENTITY:
        return "the machine's own identity"
    return urlsplit(profile.token_endpoint).netloc


def _secret_facts(profile: OAuthProfile, *, now: datetime) -> list[tuple[str, Cell]]:
    if profile.secret_set_at is None:
        return [("Client secret", "not set")]
    way = "" if profile.client_auth == "client_secret_post" else ", sent in a Basic header"
    return [
        ("Client secret", f"set (never shown){way}"),
        ("Secret set at", profile.secret_set_at),
        ("Secret ends", end_in_words(profile.secret_expires_at, now=now)),
    ]


def _key_facts(profile: OAuthProfile, *, now: datetime) -> list[tuple[str, Cell]]:
    if profile.private_key_set_at is None:
        return []
    facts: list[tuple[str, Cell]] = [
        ("Private key", "set (never shown)"),
        ("Key set at", profile.private_key_set_at),
        *_if_any("Key id", profile.key_id),
    ]
    if profile.certificate_pem is not None:
        facts.append(("Certificate ends", end_in_words(profile.certificate_expires_at, now=now)))
    return facts


def _sign_in(profile: OAuthProfile, sign_in: RefreshTokenRow, *, now: datetime) -> str:
    ends_at, if_unused = sign_in_end(profile, sign_in)
    ends = f"{end_in_words(ends_at, now=now)}{', if not used before' if if_unused else ''}"
    return (
        f"{sign_in.subject}, by {sign_in.account or 'an account that is not known'}, since "
        f"{moment(sign_in.signed_in_at)}, renewed {moment(sign_in.renewed_at)}, ends {ends}"
    )


def _token_facts(token: TokenRow) -> list[tuple[str, Cell]]:
    whose = token.subject or "the application"
    facts: list[tuple[str, Cell]] = []
    if token.expires_at is not None:
        facts.append(("Token", f"{whose}, to {moment(token.expires_at)}"))
    if token.failure is not None:
        when = f" ({moment(token.failed_at)})" if token.failed_at is not None else ""
        facts.append(("Last failure", f"{whose}{when}: {token.failure}"))
        facts += _if_any("Fix", token.failure_fix)
    return facts


def _if_any(label: str, value: str | None) -> list[tuple[str, Cell]]:
    return [] if value is None else [(label, value)]


def _sign_in_json(profile: OAuthProfile, sign_in: RefreshTokenRow) -> dict[str, object]:
    ends_at, if_unused = sign_in_end(profile, sign_in)
    return {
        "mailbox": sign_in.subject,
        "account": sign_in.account,
        "signed_in_at": sign_in.signed_in_at,
        "renewed_at": sign_in.renewed_at,
        "expires_at": ends_at,
        "expires_if_unused": if_unused,
    }


def _token_json(token: TokenRow) -> dict[str, object]:
    return {
        "subject": token.subject or None,
        "obtained_at": token.obtained_at,
        "expires_at": token.expires_at,
        "failure": token.failure,
        "failure_code": token.failure_code,
        "fix": token.failure_fix,
        "failed_at": token.failed_at,
        "retry_at": token.retry_at,
    }
