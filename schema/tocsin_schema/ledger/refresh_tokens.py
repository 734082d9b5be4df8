"""Refresh tokens in the ledger: what somebody's sign-in left us, one a (OAuth profile, mailbox).

Providers replace a refresh token at every use, and some revoke the whole family when an old one comes again. So the
one that was used gives way to the one that came for it by compare-and-swap, whatever became of the access token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from psycopg.rows import class_row

from tocsin_schema.ledger.access_tokens import TokenKey, invalidate_tokens_of_subject
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.sealing import Sealer

#: What `Sealer` binds a sealed refresh token to, beside the row's id.
REFRESH_TOKEN_PURPOSE = "refresh_tokens.sealed_token"  # noqa: S105  # the name of a column, not a secret

_QUERIES = named_queries("refresh_tokens")


@dataclass(frozen=True, slots=True)
class RefreshTokenRow:
    """A sign-in as it stands. `account` is who signed in, where the provider told; `expires_at` likewise."""

    id: UUID
    oauth_profile_id: UUID
    subject: str
    version: int
    sealed_token: bytes = field(repr=False)
    account: str | None
    signed_in_at: datetime
    renewed_at: datetime
    expires_at: datetime | None


async def read_refresh_token(connection: Connection, key: TokenKey) -> RefreshTokenRow | None:
    """Give a mailbox's sign-in; None where nobody has signed in for it."""
    async with connection.cursor(row_factory=class_row(RefreshTokenRow)) as cursor:
        await cursor.execute(_QUERIES["read_refresh_token"], {"profile_id": key.profile_id, "subject": key.subject})
        return await cursor.fetchone()


async def list_refresh_tokens(connection: Connection, profile_id: UUID) -> list[RefreshTokenRow]:
    """Give all sign-ins of an OAuth profile, by mailbox."""
    async with connection.cursor(row_factory=class_row(RefreshTokenRow)) as cursor:
        await cursor.execute(_QUERIES["list_refresh_tokens"], {"profile_id": profile_id})
        return await cursor.fetchall()


async def store_sign_in(
    connection: Connection,
    sealer: Sealer,
    key: TokenKey,
    refresh_token: str,
    *,
    account: str | None,
    lifetime_seconds: float | None,
) -> None:
    """Store what a sign-in gave, in place of an earlier one; the mailbox's access token is thrown away with it."""
    row_id = uuid4()
    # In the order in which a change of the profile locks the same rows.
    await connection.execute(_QUERIES["note_credentials_changed"], {"profile_id": key.profile_id})
    await invalidate_tokens_of_subject(connection, key)
    await connection.execute(
        _QUERIES["store_sign_in"],
        {
            "id": row_id,
            "profile_id": key.profile_id,
            "subject": key.subject,
            "sealed_token": sealer.seal(refresh_token, purpose=REFRESH_TOKEN_PURPOSE, row_id=str(row_id)),
            "account": account,
            "lifetime_seconds": lifetime_seconds,
        },
    )


async def renew_refresh_token(
    connection: Connection,
    sealer: Sealer,
    used: RefreshTokenRow,
    refresh_token: str,
    *,
    lifetime_seconds: float | None,
) -> bool:
    """Put the token that came in place of the one that was used; False where somebody signed in anew meanwhile."""
    renewed = await connection.execute(
        _QUERIES["renew_refresh_token"],
        {
            "id": used.id,
            "version": used.version,
            "sealed_token": sealer.seal(refresh_token, purpose=REFRESH_TOKEN_PURPOSE, row_id=str(used.id)),
            "lifetime_seconds": lifetime_seconds,
        },
    )
    return await renewed.fetchone() is not None


async def forget_refresh_tokens(connection: Connection, profile_id: UUID) -> list[str]:
    """Forget all sign-ins of an OAuth profile; give the mailboxes that they were for."""
    forgotten = await connection.execute(_QUERIES["forget_refresh_tokens"], {"profile_id": profile_id})
    return [str(subject) for (subject,) in await forgotten.fetchall()]
