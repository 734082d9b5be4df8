"""Sending profiles: how and as whom to send, and the limits of the mailbox that they share.

A provider limits a login at a host, not a profile. So the limits stand in one row a mailbox, which all profiles
with the same host and login use; a change through one of them holds for all.

What may go together is decided in `sending_profile_rules`; here it is written and read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from psycopg import errors
from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.sending_profile_rules import (
    NO_TENANT_ASKED,
    AskedLimits,
    AskedTenant,
    Auth,
    Copies,
    Limits,
    ProfileDraft,
    ProfilePipelining,
    Tls,
    Unsaid,
    limits_to_keep,
)
from tocsin_schema.ledger.sql import named_queries
from tocsin_schema.ledger.tenants import settle_tenant

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.sealing import Sealer

_QUERIES = named_queries("sending_profiles")

PASSWORD_PURPOSE = "sending_profiles.sealed_password"  # noqa: S105  # the name of a column, not a password
"""What a profile's sealed password is authenticated with, beside its row."""


@dataclass(frozen=True, slots=True)
class SendingDefaults:
    """What a provider's profiles begin with. `host` is None where every user has another."""

    provider: str
    title: str
    host: str | None
    port: int
    tls: str
    auth: str
    batch_size: int
    connections: int | None
    messages_per_minute: int | None
    recipients_per_day: int | None

    @property
    def limits(self) -> Limits:
        """The limits that the provider publishes."""
        return Limits(self.connections, self.messages_per_minute, self.recipients_per_day)


@dataclass(frozen=True, slots=True)
class SendingProfile:
    """A sending profile with its mailbox's limits, for people. No secret is in it, sealed or clear."""

    id: UUID
    name: str
    provider: str
    host: str
    port: int
    tls: str
    auth: str
    from_address: str
    oauth_profile_id: UUID | None
    oauth_profile: str | None
    login: str
    has_password: bool
    ca_pem: str | None
    allow_plaintext_auth: bool
    batch_size: int
    copies: str
    mailbox_id: int
    paused_at: datetime | None
    paused_reason: str | None
    paused_by: str | None
    """None where it is not paused, or was not by a person."""
    connections: int | None
    messages_per_minute: int | None
    recipients_per_day: int | None
    parked_until: datetime | None
    parked_reason: str | None
    kept_for_urgent_until: datetime | None
    kept_for_urgent_reason: str | None
    pipelining: str
    learned_connections: int | None
    connections_reason: str | None
    learned_per_minute: float | None
    per_minute_reason: str | None
    recipients_per_message: int | None
    """As many as the server takes in one transaction, where that was learned in the last day."""
    learned_pipelining: str | None
    tenant: str | None
    tenant_per_day: int | None
    created_at: datetime
    updated_at: datetime

    @property
    def limits(self) -> Limits:
        """The mailbox's limits."""
        return Limits(self.connections, self.messages_per_minute, self.recipients_per_day)

    @property
    def draft(self) -> ProfileDraft:
        """What a change begins with."""
        return ProfileDraft(
            name=self.name,
            provider=self.provider,
            host=self.host,
            port=self.port,
            tls=Tls(self.tls),
            auth=Auth(self.auth),
            from_address=self.from_address,
            oauth_profile=self.oauth_profile,
            login=self.login,
            ca_pem=self.ca_pem,
            allow_plaintext_auth=self.allow_plaintext_auth,
            batch_size=self.batch_size,
            copies=Copies(self.copies),
            pipelining=ProfilePipelining(self.pipelining),
        )


async def read_defaults(connection: Connection, provider: str) -> SendingDefaults:
    """Read what a provider's profiles begin with."""
    async with connection.cursor(row_factory=class_row(SendingDefaults)) as cursor:
        await cursor.execute(_QUERIES["read_sending_defaults"], {"provider": provider})
        defaults = await cursor.fetchone()
    if defaults is None:
        raise LookupError(provider)
    return defaults


async def add_profile(
    connection: Connection,
    draft: ProfileDraft,
    *,
    asked: AskedLimits,
    defaults: Limits,
    password: str | None,
    sealer: Sealer | None,
    tenant: AskedTenant = NO_TENANT_ASKED,
) -> None:
    """Write a new profile, and its mailbox's limits. `sealer` is needed where there is a password.

    Raises UsageError for a name that is taken, an OAuth profile that is not there, and a tenant that cannot be.
    """
    profile_id = uuid4()
    mailbox_id = await _settle_mailbox(connection, draft, asked=asked, start=defaults)
    await settle_tenant(connection, mailbox_id, tenant)
    sealed = None
    if password is not None:
        assert sealer is not None
        sealed = sealer.seal(password, purpose=PASSWORD_PURPOSE, row_id=str(profile_id))
    row = await _row_of(connection, draft, mailbox_id)
    try:
        await connection.execute(
            _QUERIES["insert_sending_profile"],
            {**row, "id": profile_id, "name": draft.name, "provider": draft.provider, "sealed_password": sealed},
        )
    except errors.UniqueViolation:
        raise UsageError(
            f"There is already a sending profile {draft.name!r}.",
            fix=f"Take another name, or change it with `tocsin profile set {draft.name}`.",
            scope=Scope.PROFILE,
        ) from None


async def read_profile(connection: Connection, name: str) -> SendingProfile:
    """Read one profile. Raises UsageError where there is none of this name."""
    async with connection.cursor(row_factory=class_row(SendingProfile)) as cursor:
        await cursor.execute(_QUERIES["read_sending_profile"], {"name": name})
        profile = await cursor.fetchone()
    if profile is None:
        raise _no_such_profile(name)
    return profile


async def lock_profile(connection: Connection, name: str) -> SendingProfile:
    """Read one profile and keep others from changing it until the transaction ends. Raises UsageError."""
    await connection.execute(_QUERIES["lock_sending_profile"], {"name": name})
    return await read_profile(connection, name)


async def read_profiles(connection: Connection) -> list[SendingProfile]:
    """Read all profiles, by name."""
    async with connection.cursor(row_factory=class_row(SendingProfile)) as cursor:
        await cursor.execute(_QUERIES["list_sending_profiles"])
        return await cursor.fetchall()


async def profiles_of_mailbox(connection: Connection, mailbox_id: int) -> list[str]:
    """Name the profiles that share a mailbox and its limits."""
    cursor = await connection.execute(_QUERIES["profiles_of_mailbox"], {"mailbox_id": mailbox_id})
    return [str(name) for (name,) in await cursor.fetchall()]


async def change_profile(
    connection: Connection,
    profile: SendingProfile,
    draft: ProfileDraft,
    *,
    asked: AskedLimits,
    tenant: AskedTenant = NO_TENANT_ASKED,
) -> None:
    """Write a changed profile that `lock_profile` gave. Another host or login moves it to another mailbox.

    Raises UsageError for an OAuth profile that is not there and a tenant that cannot be.
    """
    mailbox_id = await _settle_mailbox(connection, draft, asked=asked, start=profile.limits, leaving=profile.name)
    if not tenant.is_anything and mailbox_id != profile.mailbox_id and draft.host == profile.host:
        tenant = AskedTenant(profile.tenant)
    await settle_tenant(connection, mailbox_id, tenant)
    row = await _row_of(connection, draft, mailbox_id)
    await connection.execute(_QUERIES["update_sending_profile"], {**row, "id": profile.id})


async def write_password(connection: Connection, profile: SendingProfile, password: str, *, sealer: Sealer) -> None:
    """Seal and store a profile's own password in place of the old one."""
    sealed = sealer.seal(password, purpose=PASSWORD_PURPOSE, row_id=str(profile.id))
    await connection.execute(_QUERIES["write_password"], {"id": profile.id, "sealed_password": sealed})


async def forget_password(connection: Connection, profile: SendingProfile) -> None:
    """Take a profile's own password out of the ledger."""
    await connection.execute(_QUERIES["write_password"], {"id": profile.id, "sealed_password": None})


async def remove_profile(connection: Connection, name: str) -> None:
    """Remove a profile. Raises UsageError where there is none, or where jobs still need it."""
    profile = await lock_profile(connection, name)
    cursor = await connection.execute(_QUERIES["count_unfinished_jobs"], {"id": profile.id})
    row = await cursor.fetchone()
    unfinished = int(row[0]) if row is not None else 0
    if unfinished:
        raise UsageError(
            f"The sending profile {name!r} still has {unfinished} unfinished {'job' if unfinished == 1 else 'jobs'}.",
            fix=f"See them with `tocsin job list --profile {name}`; let them finish, or `tocsin job cancel JOB`.",
            scope=Scope.PROFILE,
        )
    await connection.execute(_QUERIES["delete_sending_profile"], {"id": profile.id})


async def _settle_mailbox(
    connection: Connection,
    draft: ProfileDraft,
    *,
    asked: AskedLimits,
    start: Limits,
    leaving: str | None = None,
) -> int:
    """Find or make the mailbox of a draft, write the limits that hold from now on, and give its id."""
    host, login = draft.mailbox
    cursor = await connection.execute(_QUERIES["lock_mailbox"], {"host": host, "login": login})
    row = await cursor.fetchone()
    assert row is not None
    mailbox_id, found = int(row[0]), Limits(row[1], row[2], row[3])
    others = [name for name in await profiles_of_mailbox(connection, mailbox_id) if name != leaving]
    limits = limits_to_keep(asked, found=found if others else start)
    await connection.execute(
        _QUERIES["write_mailbox_limits"],
        {
            "mailbox_id": mailbox_id,
            "connections": limits.connections,
            "messages_per_minute": limits.messages_per_minute,
            "recipients_per_day": limits.recipients_per_day,
        },
    )
    await _forget_what_was_learned(connection, mailbox_id, asked)
    return mailbox_id


async def _forget_what_was_learned(connection: Connection, mailbox_id: int, asked: AskedLimits) -> None:
    """Begin anew with a limit that a person has named: they may know what the server cannot tell."""
    for said, query in (
        (asked.connections, "forget_learned_connections"),
        (asked.messages_per_minute, "forget_learned_rate"),
        (asked.recipients_per_day, "end_rest_of_quota"),
    ):
        if not isinstance(said, Unsaid):
            await connection.execute(_QUERIES[query], {"mailbox_id": mailbox_id})


async def _row_of(connection: Connection, draft: ProfileDraft, mailbox_id: int) -> dict[str, object]:
    oauth_profile_id = None
    if draft.oauth_profile is not None:
        cursor = await connection.execute(_QUERIES["read_oauth_profile_id"], {"name": draft.oauth_profile})
        found = await cursor.fetchone()
        if found is None:
            raise UsageError(
                f"There is no OAuth profile {draft.oauth_profile!r}.",
                fix="See `tocsin oauth list`, or make it with `tocsin oauth add`.",
                scope=Scope.PROFILE,
            )
        oauth_profile_id = found[0]
    return {
        "host": draft.host,
        "port": draft.port,
        "tls": draft.tls.value,
        "auth": draft.auth.value,
        "from_address": draft.from_address,
        "oauth_profile_id": oauth_profile_id,
        "login": draft.login,
        "ca_pem": draft.ca_pem,
        "allow_plaintext_auth": draft.allow_plaintext_auth,
        "batch_size": draft.batch_size,
        "copies": draft.copies.value,
        "pipelining": draft.pipelining.value,
        "mailbox_id": mailbox_id,
    }


def _no_such_profile(name: str) -> UsageError:
    return UsageError(f"There is no sending profile {name!r}.", fix="See `tocsin profile list`.", scope=Scope.PROFILE)
