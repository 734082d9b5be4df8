"""OAuth profiles in the ledger: how to get a token. Secrets and keys go in and out sealed, as bytes only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from psycopg import errors
from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.access_tokens import invalidate_tokens_of_profile
from tocsin_schema.ledger.refresh_tokens import forget_refresh_tokens
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

#: What `Sealer` binds a sealed client secret to, beside the profile's id.
CLIENT_SECRET_PURPOSE = "oauth_profiles.sealed_client_secret"  # noqa: S105  # the name of a column, not a secret
#: The same for a private key.
PRIVATE_KEY_PURPOSE = "oauth_profiles.sealed_private_key"

_QUERIES = named_queries("oauth_profiles")


@dataclass(frozen=True, slots=True)
class OAuthDefaults:
    """The template of a provider's OAuth profiles. `token_endpoint` may hold `{tenantId}`.

    `grant_type` is the usual one of `grants`. `scope` is an application's own, `delegated_scope` that of a token in
    the name of a person.
    """

    provider: str
    title: str
    grant_type: str
    grants: list[str]
    token_endpoint: str | None
    scope: str | None
    delegated_scope: str | None
    wants_tenant: bool
    guid_ids: bool
    sending_defaults: str


@dataclass(frozen=True, slots=True)
class OAuthProfile:
    """How to get a token. `token_endpoint` may hold `{tenantId}`, which is filled in at run time.

    Secrets never come along: `secret_set_at` and `private_key_set_at` say since when there is one. `client_id` is the
    application, or with the grant jwt_bearer the issuer. The other fields are told by the columns' comments.
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
    client_auth: str
    device_endpoint: str | None
    certificate_pem: str | None = field(repr=False)
    key_id: str | None
    delegation_client_id: str | None
    token_file: str | None
    secret_set_at: datetime | None
    secret_expires_at: datetime | None
    private_key_set_at: datetime | None
    certificate_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOAuthProfile:
    """An OAuth profile that is not yet in the ledger; its id is made ahead, since secrets are sealed to it."""

    name: str
    provider: str
    grant_type: str
    token_endpoint: str
    scope: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    ca_pem: str | None = field(default=None, repr=False)
    client_auth: str = "client_secret_post"
    device_endpoint: str | None = None
    certificate_pem: str | None = field(default=None, repr=False)
    key_id: str | None = None
    delegation_client_id: str | None = None
    token_file: str | None = None
    secret_expires_at: datetime | None = None
    certificate_expires_at: datetime | None = None
    id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class SealedSecrets:
    """What a profile proves itself with, sealed: `CLIENT_SECRET_PURPOSE` and `PRIVATE_KEY_PURPOSE`."""

    client_secret: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """A private key, sealed, with what belongs to it."""

    sealed_private_key: bytes = field(repr=False)
    certificate_pem: str | None = field(default=None, repr=False)
    certificate_expires_at: datetime | None = None
    key_id: str | None = None


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
    connection: AsyncConnection[TupleRow], profile: NewOAuthProfile, *, sealed: SealedSecrets
) -> OAuthProfile:
    """Add a profile. Raises UsageError where the name is taken or the provider unknown."""
    parameters = {
        **_fields(profile),
        "provider": profile.provider,
        "sealed_client_secret": sealed.client_secret,
        "sealed_private_key": sealed.private_key,
    }
    await get_defaults(connection, profile.provider)
    if await (await connection.execute(_QUERIES["add_profile"], parameters)).fetchone() is None:
        raise _name_taken(profile.name)
    return await get_by_name(connection, profile.name)


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


async def lock(connection: AsyncConnection[TupleRow], name: str) -> OAuthProfile:
    """Give the profile of that name and keep others from changing it until the transaction ends.

    Raises UsageError where there is none.
    """
    profile = await get_by_name(connection, name)
    locked = await _one(connection, "lock_profile", {"id": profile.id})
    if locked is None or locked.name != name:
        raise _unknown(name)
    return locked


async def update(connection: AsyncConnection[TupleRow], changed: OAuthProfile) -> OAuthProfile:
    """Store a profile's changed fields (made with `dataclasses.replace`); its provider stays.

    Where anything but the name or a date changed, its tokens are thrown away in the same transaction; and its
    sign-ins are forgotten where they would go to another endpoint or another client. Raises UsageError where the
    profile is gone or the new name is taken.
    """
    before = await _one(connection, "lock_profile", {"id": changed.id})
    if before is None:
        raise _unknown(changed.name)
    taken = {"name": changed.name, "id": changed.id}
    if await (await connection.execute(_QUERIES["is_name_taken"], taken)).fetchone() is not None:
        raise _name_taken(changed.name)
    try:
        await connection.execute(_QUERIES["update_profile"], _fields(changed))
    except errors.UniqueViolation:
        raise _name_taken(changed.name) from None
    after = await get_by_name(connection, changed.name)
    if asks_for_other_tokens(before, after):
        await invalidate_tokens_of_profile(connection, changed.id)
    if issuer_of(before) != issuer_of(after):
        await forget_refresh_tokens(connection, changed.id)
    return after


async def read_as_of_now(connection: AsyncConnection[TupleRow]) -> None:
    """Let the transaction that begins with this read everything as of one moment."""
    await connection.execute(_QUERIES["read_as_of_now"])


async def read_sealed_secrets(connection: AsyncConnection[TupleRow], profile_id: UUID) -> SealedSecrets:
    """Give a profile's secrets, sealed; each None where it is not set."""
    row = await (await connection.execute(_QUERIES["read_sealed_secrets"], {"id": profile_id})).fetchone()
    return SealedSecrets() if row is None else SealedSecrets(row[0], row[1])


async def replace_client_secret(
    connection: AsyncConnection[TupleRow],
    profile: OAuthProfile,
    *,
    sealed_client_secret: bytes,
    expires_at: datetime | None = None,
) -> None:
    """Store another secret and throw the profile's tokens away, in one transaction.

    `expires_at` is what is known of its end. Raises UsageError where the profile is gone.
    """
    parameters = {"id": profile.id, "sealed_client_secret": sealed_client_secret, "secret_expires_at": expires_at}
    await _replace(connection, profile, "write_sealed_client_secret", parameters)


async def replace_private_key(connection: AsyncConnection[TupleRow], profile: OAuthProfile, key: SealedKey) -> None:
    """Store another private key with its certificate, and throw the profile's tokens away, in one transaction.

    Raises UsageError where the profile is gone.
    """
    parameters = {
        "id": profile.id,
        "sealed_private_key": key.sealed_private_key,
        "certificate_pem": key.certificate_pem,
        "certificate_expires_at": key.certificate_expires_at,
        "key_id": key.key_id,
    }
    await _replace(connection, profile, "write_sealed_private_key", parameters)


async def forget_client_secret(connection: AsyncConnection[TupleRow], profile_id: UUID) -> None:
    """Take a client secret that is no longer used out of the ledger."""
    await connection.execute(_QUERIES["forget_client_secret"], {"id": profile_id})


async def forget_private_key(connection: AsyncConnection[TupleRow], profile_id: UUID) -> None:
    """Take a private key that is no longer used out of the ledger, with its certificate."""
    await connection.execute(_QUERIES["forget_private_key"], {"id": profile_id})


async def mailboxes_that_use(connection: AsyncConnection[TupleRow], profile_id: UUID) -> list[str]:
    """Give whom the sending profiles that use an OAuth profile log in as, in lower case."""
    rows = await (await connection.execute(_QUERIES["mailboxes_that_use"], {"id": profile_id})).fetchall()
    return [str(login) for (login,) in rows]


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


async def _replace(
    connection: AsyncConnection[TupleRow], profile: OAuthProfile, query: str, parameters: Mapping[str, object]
) -> None:
    if await (await connection.execute(_QUERIES[query], parameters)).fetchone() is None:
        raise _unknown(profile.name)
    await invalidate_tokens_of_profile(connection, profile.id)


#: What may change without another token coming of it.
_TOLD_ONLY = ("name", "secret_expires_at", "certificate_expires_at", "delegation_client_id")


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
        "client_auth": profile.client_auth,
        "device_endpoint": profile.device_endpoint,
        "certificate_pem": profile.certificate_pem,
        "key_id": profile.key_id,
        "delegation_client_id": profile.delegation_client_id,
        "token_file": profile.token_file,
        "secret_expires_at": profile.secret_expires_at,
        "certificate_expires_at": profile.certificate_expires_at,
    }


def asks_for_other_tokens(before: OAuthProfile, after: OAuthProfile) -> bool:
    """Whether a change is of such a kind that tokens from before it are of no use."""
    told_only = dict.fromkeys(_TOLD_ONLY)
    return _fields(before) | told_only != _fields(after) | told_only


def issuer_of(profile: OAuthProfile) -> tuple[str, str | None, str | None]:
    """Give what a refresh token is bound to: whoever issued it, and the client that it was issued to."""
    return profile.token_endpoint, profile.tenant_id, profile.client_id


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
