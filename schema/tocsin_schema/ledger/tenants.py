"""Tenants: organisations at a provider, which limits the external recipients of all their mailboxes together.

Queries of `tenants.sql`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.sending_profile_rules import Unsaid, checked_name
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.sending_profile_rules import AskedTenant

_QUERIES = named_queries("tenants")


async def settle_tenant(connection: Connection, mailbox_id: int, asked: AskedTenant) -> None:
    """Put a mailbox into the tenant that was asked for, or out of any, and write the tenant's limit.

    Raises UsageError for a name that cannot be, and for a limit where there is no tenant.
    """
    if not isinstance(asked.name, Unsaid):
        tenant_id = None if asked.name is None else await _lock(connection, asked.name)
        await connection.execute(
            _QUERIES["write_tenant_of_mailbox"], {"mailbox_id": mailbox_id, "tenant_id": tenant_id}
        )
    if not isinstance(asked.external_recipients_per_day, Unsaid):
        row = await (await connection.execute(_QUERIES["tenant_of_mailbox"], {"mailbox_id": mailbox_id})).fetchone()
        if row is None or row[0] is None:
            raise UsageError(
                "--tenant-per-day belongs to a tenant, and the mailbox is in none.",
                fix="Name it with --tenant NAME.",
                scope=Scope.PROFILE,
            )
        await connection.execute(
            _QUERIES["write_tenant_limit"], {"tenant_id": row[0], "limit": asked.external_recipients_per_day}
        )
    if asked.is_anything:
        await connection.execute(_QUERIES["forget_unused_tenants"])


async def _lock(connection: Connection, name: str) -> int:
    row = await (await connection.execute(_QUERIES["lock_tenant"], {"name": checked_name(name, "a tenant")})).fetchone()
    assert row is not None
    return int(row[0])
