"""OAuth profiles in the ledger: how to get a token. The client secret goes in and out sealed, as bytes only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from psycopg import errors
from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.access_tokens import invalidate_tokens_of_profile
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

#: What `Sealer` binds a sealed client secret to, beside the profile's id.
CLIENT_SECRET_PURPOSE = "oauth_profiles.sealed_client_secret"  # noqa: S105  # the name of a column, not a secret

_QUERIES = named_queries("oauth_profiles")


@dataclass(frozen=True, slots=True)
class OAuthDefaults:
    """The template of a provider's OAuth profiles. `token_endpoint` may hold `{tenantId}`."""

    provider: str
    title: str
    grant_type: str
    token_endpoint: str | None
    scope: str | None
    wants_tenant: bool
    guid_ids: bool
    sending_defaults: str


@dataclass(frozen=True, slots=True)
class OAuthProfile:
    """How to get a token. `token_endpoint` may hold `{tenantId}`, which is filled in at run time.

    `secret_set_at` says since when there is a client secret, which itself never comes along.
    """

    id: UUID
    name: str
    provider: str
    grant_type: str
    token_endpoint: str
    scope: str | None
    tenant_id: str | None
    client_id: str | None
    ca_pem: str | None = field(repr=False)
    secret_set_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewOAuthProfile:
    """An OAuth profile that is not yet in the ledger; its id is made ahead, since the secret is sealed to it."""

    name: str
    provider: str
    grant_type: str
    token_endpoint: str
    scope: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    ca_pem: str | None = field(default=None, repr=False)
    id: UUID = field(default_factory=uuid4)


async def list_defaults(connection: AsyncConnection[TupleRow]) -> list[OAuthDefaults]:
    """Give every provider's template."""
    async with connection.cursor(row_factory=class_row(OAuthDefaults)) as cursor:
        await cursor.execute(_QUERIES["list_defaults"])
        return await cursor.fetchall()


async def get_defaults(connection: AsyncConnection[TupleRow], provider: str) -> OAuthDefaults:
    """Give a provider's template. Raises UsageError, which names the providers that there are."""
    known = await list_defaults(connection)
    for defaults in known:
        if defaults.provider == provider:
            return defaults
    raise UsageError(
        f"There is no OAuth provider {provider!r}.",
        fix=f"Choose one of {', '.join(defaults.provider for defaults in known)}.",
        scope=Scope.OAUTH_PROFILE,
    )


async def add(
    connection: AsyncConnection[TupleRow], profile: NewOAuthProfile, *, sealed_client_secret: bytes | None
) -> OAuthProfile:
    """Add a profile. Raises UsageError where the name is taken or the provider unknown."""
    parameters = {**_fields(profile), "provider": profile.provider, "sealed_client_secret": sealed_client_secret}
    await get_defaults(connection, profile.provider)
    added = await _one(connection, "add_profile", parameters)
    if added is None:
        raise _name_taken(profile.name)
    return added


async def list_profiles(connection: AsyncConnection[TupleRow]) -> list[OAuthProfile]:
    """Give all profiles by name."""
    async with connection.cursor(row_factory=class_row(OAuthProfile)) as cursor:
        await cursor.execute(_QUERIES["list_profiles"])
        return await cursor.fetchall()


async def get_by_name(connection: AsyncConnection[TupleRow], name: str) -> OAuthProfile:
    """Give the profile of that name. Raises UsageError where there is none."""
    profile = await _one(connection, "get_profile_by_name", {"name": name})
    if profile is None:
        raise _unknown(name)
    return profile


async def get_by_id(connection: AsyncConnection[TupleRow], profile_id: UUID) -> OAuthProfile | None:
    """Give the profile of that id, or None."""
    return await _one(connection, "get_profile_by_id", {"id": profile_id})


async def update(connection: AsyncConnection[TupleRow], changed: OAuthProfile) -> OAuthProfile:
    """Store a profile's changed fields (made with `dataclasses.replace`); its provider stays.

    Where anything but the name changed, its tokens are thrown away in the same transaction. Raises UsageError
    where the profile is gone or the new name is taken.
    """
    before = await _one(connection, "lock_profile", {"id": changed.id})
    if before is None:
        raise _unknown(changed.name)
    taken = {"name": changed.name, "id": changed.id}
    if await (await connection.execute(_QUERIES["is_name_taken"], taken)).fetchone() is not None:
        raise _name_taken(changed.name)
    try:
        after = await _one(connection, "update_profile", _fields(changed))
    except errors.UniqueViolation:
        raise _name_taken(changed.name) from None
    if after is None:
        raise _unknown(changed.name)
    if _asks_for_other_tokens(before, after):
        await invalidate_tokens_of_profile(connection, changed.id)
    return after


async def read_sealed_client_secret(connection: AsyncConnection[TupleRow], profile_id: UUID) -> bytes | None:
    """Give the sealed client secret, or None where none is set."""
    row = await (await connection.execute(_QUERIES["read_sealed_client_secret"], {"id": profile_id})).fetchone()
    return None if row is None else row[0]


async def replace_client_secret(
    connection: AsyncConnection[TupleRow], profile: OAuthProfile, *, sealed_client_secret: bytes
) -> None:
    """Store another secret and throw the profile's tokens away, in one transaction.

    Raises UsageError where the profile is gone.
    """
    parameters = {"id": profile.id, "sealed_client_secret": sealed_client_secret}
    replaced = await connection.execute(_QUERIES["replace_sealed_client_secret"], parameters)
    if await replaced.fetchone() is None:
        raise _unknown(profile.name)
    await invalidate_tokens_of_profile(connection, profile.id)


async def remove(connection: AsyncConnection[TupleRow], profile: OAuthProfile) -> None:
    """Remove a profile and its tokens. Raises UsageError where a sending profile uses it."""
    rows = await (await connection.execute(_QUERIES["sending_profiles_that_use"], {"id": profile.id})).fetchall()
    if rows:
        raise _in_use(profile.name, [str(name) for (name,) in rows])
    try:
        await connection.execute(_QUERIES["remove_profile"], {"id": profile.id})
    except errors.ForeignKeyViolation:  # one was made to use it just now
        raise _in_use(profile.name, []) from None


async def _one(
    connection: AsyncConnection[TupleRow], query: str, parameters: Mapping[str, object]
) -> OAuthProfile | None:
    async with connection.cursor(row_factory=class_row(OAuthProfile)) as cursor:
        await cursor.execute(_QUERIES[query], parameters)
        return await cursor.fetchone()


def _fields(profile: OAuthProfile | NewOAuthProfile) -> dict[str, object]:
    return {
        "id": profile.id,
        "name": profile.name,
        "grant_type": profile.grant_type,
        "token_endpoint": profile.token_endpoint,
        "scope": profile.scope,
        "tenant_id": profile.tenant_id,
        "client_id": profile.client_id,
        "ca_pem": profile.ca_pem,
    }


def _asks_for_other_tokens(before: OAuthProfile, after: OAuthProfile) -> bool:
    return _fields(before) | {"name": None} != _fields(after) | {"name": None}


def _unknown(name: str) -> UsageError:
    return UsageError(f"There is no OAuth profile {name!r}.", fix="See `tocsin oauth list`.", scope=Scope.OAUTH_PROFILE)


def _name_taken(name: str) -> UsageError:
    return UsageError(
        f"There is an OAuth profile {name!r} already.",
        fix="Choose another name, or change it with `tocsin oauth set`.",
        scope=Scope.OAUTH_PROFILE,
    )


def _in_use(name: str, sending_profiles: Sequence[str]) -> UsageError:
    users = ", ".join(sending_profiles)
    return UsageError(
        f"OAuth profile {name!r} is used by {f'sending profile {users}' if users else 'a sending profile'}.",
        fix="Give those another one (`tocsin profile set NAME --oauth OTHER`) or remove them first.",
        scope=Scope.OAUTH_PROFILE,
    )
