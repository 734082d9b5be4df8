"""Access tokens in the ledger: one sealed token a (OAuth profile, subject) for the whole fleet.

Each function is one statement or two; what to do with a row is decided in `tocsin_workers.tokens.refreshing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

    from tocsin_schema.errors import TokenError

#: What `Sealer` binds a sealed token to, beside the row's id.
TOKEN_PURPOSE = "access_tokens.sealed_token"  # noqa: S105  # the name of a column, not a secret

_QUERIES = named_queries("access_tokens")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Whose token: an OAuth profile, and the mailbox where the grant has a subject, else an empty string."""

    profile_id: UUID
    subject: str


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row of access_tokens as it stood at `now` on the database's clock.

    `refused_version` is the version that a mail server refused last.
    """

    id: UUID
    oauth_profile_id: UUID
    subject: str
    grant_type: str
    version: int
    refused_version: int | None
    sealed_token: bytes | None = field(repr=False)
    obtained_at: datetime | None
    expires_at: datetime | None
    refresh_leased_until: datetime | None
    failure: str | None
    failure_fix: str | None
    failure_code: str | None
    failure_permanent: bool
    failed_at: datetime | None
    retry_at: datetime | None
    now: datetime

    @property
    def key(self) -> TokenKey:
        """Whose token it is."""
        return TokenKey(self.oauth_profile_id, self.subject)


@dataclass(frozen=True, slots=True)
class RefreshLease:
    """The right to ask the token endpoint, held by one attempt since `claimed_at` on the database's clock."""

    key: TokenKey
    attempt: UUID
    claimed_at: datetime


async def read_row(connection: AsyncConnection[TupleRow], key: TokenKey) -> TokenRow | None:
    """Read a row, and make it where it was never asked for; None where the OAuth profile is gone."""
    async with connection.cursor(row_factory=class_row(TokenRow)) as cursor:
        await cursor.execute(_QUERIES["read_token_row"], _parameters(key))
        row = await cursor.fetchone()
        if row is None:
            await cursor.execute(_QUERIES["ensure_token_row"], _parameters(key))
            await cursor.execute(_QUERIES["read_token_row"], _parameters(key))
            row = await cursor.fetchone()
        return row


async def note_use(connection: AsyncConnection[TupleRow], key: TokenKey) -> None:
    """Note that a sender uses the token, so that it is refreshed ahead of its expiry."""
    await connection.execute(_QUERIES["note_use"], _parameters(key))


async def list_used_lately(connection: AsyncConnection[TupleRow], *, within_seconds: float) -> list[TokenRow]:
    """Give the rows with a token that a sender used within the last `within_seconds`, next to expire first."""
    async with connection.cursor(row_factory=class_row(TokenRow)) as cursor:
        await cursor.execute(_QUERIES["list_used_lately"], {"within_seconds": within_seconds})
        return await cursor.fetchall()


async def claim_refresh(
    connection: AsyncConnection[TupleRow], row: TokenRow, *, attempt: UUID, lease_seconds: float
) -> RefreshLease | None:
    """Take the refresh lease for a row as it was read; None where somebody else has it, or has been there."""
    parameters = {
        **_parameters(row.key),
        "attempt": attempt,
        "version": row.version,
        "lease_seconds": float(lease_seconds),
    }
    claimed = await (await connection.execute(_QUERIES["claim_refresh"], parameters)).fetchone()
    return None if claimed is None else RefreshLease(row.key, attempt, claimed[0])


async def record_token(
    connection: AsyncConnection[TupleRow], lease: RefreshLease, *, sealed_token: bytes, lifetime_seconds: float
) -> bool:
    """Store a token that was obtained under a lease, and end the lease; False where it no longer counts."""
    parameters = {
        **_held(lease),
        "claimed_at": lease.claimed_at,
        "sealed_token": sealed_token,
        "lifetime_seconds": float(lifetime_seconds),
    }
    return await (await connection.execute(_QUERIES["record_token"], parameters)).fetchone() is not None


async def record_failure(
    connection: AsyncConnection[TupleRow], lease: RefreshLease, error: TokenError, *, wait_seconds: float
) -> bool:
    """Store why no token came and when to ask again, and end the lease; False where it no longer counts."""
    parameters = {
        **_held(lease),
        "failure": error.problem,
        "fix": error.fix,
        "code": error.code,
        "permanent": error.permanent,
        "wished": error.retry_after is not None,
        "wait_seconds": float(wait_seconds),
    }
    return await (await connection.execute(_QUERIES["record_failure"], parameters)).fetchone() is not None


async def release_refresh(connection: AsyncConnection[TupleRow], lease: RefreshLease) -> None:
    """End a lease under which nothing was asked, or whose outcome no longer counts."""
    await connection.execute(_QUERIES["release_refresh"], _held(lease))


async def note_refusal(connection: AsyncConnection[TupleRow], key: TokenKey, *, version: int) -> bool:
    """Note that a mail server refused the token of that version, so that another is asked for.

    False where the row has moved on, or somebody else has noted it already.
    """
    parameters = {**_parameters(key), "version": version}
    return await (await connection.execute(_QUERIES["note_refusal"], parameters)).fetchone() is not None


async def invalidate_tokens_of_profile(connection: AsyncConnection[TupleRow], profile_id: UUID) -> None:
    """Throw away every token of a profile; what is under way will be too."""
    await connection.execute(_QUERIES["lock_users_of_profile"], {"profile_id": profile_id})
    await connection.execute(_QUERIES["invalidate_tokens_of_profile"], {"profile_id": profile_id})


async def invalidate_tokens_of_subject(connection: AsyncConnection[TupleRow], key: TokenKey) -> None:
    """Throw away a mailbox's token, one under way included."""
    await connection.execute(_QUERIES["lock_users_of_profile"], _parameters(key))
    await connection.execute(_QUERIES["invalidate_tokens_of_subject"], _parameters(key))


async def forgive_failure(connection: AsyncConnection[TupleRow], key: TokenKey) -> None:
    """Let a person ask again at once after a failure; what an endpoint wished for is still obeyed."""
    await connection.execute(_QUERIES["forgive_failure"], _parameters(key))


async def list_tokens_of_profile(connection: AsyncConnection[TupleRow], profile_id: UUID) -> list[TokenRow]:
    """Give the rows of a profile's tokens, by subject."""
    async with connection.cursor(row_factory=class_row(TokenRow)) as cursor:
        await cursor.execute(_QUERIES["list_tokens_of_profile"], {"profile_id": profile_id})
        return await cursor.fetchall()


def _parameters(key: TokenKey) -> dict[str, object]:
    return {"profile_id": key.profile_id, "subject": key.subject}


def _held(lease: RefreshLease) -> dict[str, object]:
    return {**_parameters(lease.key), "attempt": lease.attempt}
