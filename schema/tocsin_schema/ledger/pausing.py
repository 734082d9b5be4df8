"""Pausing and resuming sending profiles: their mail waits, all others go on. Queries of `pausing.sql`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("pausing")


async def pause_profile(connection: Connection, profile_id: UUID, reason: str) -> bool:
    """Pause a profile with a reason for a person; False where it was paused already."""
    cursor = await connection.execute(_QUERIES["pause_profile"], {"profile_id": profile_id, "reason": reason})
    return cursor.rowcount == 1


async def resume_profile(connection: Connection, profile_id: UUID) -> None:
    """Let a profile go on, its mailbox too; what failed at its token endpoint is tried again."""
    await connection.execute(_QUERIES["resume_profile"], {"profile_id": profile_id})


async def resume_users_of_oauth_profile(connection: Connection, oauth_profile_id: UUID) -> list[str]:
    """Let all paused profiles that sign in with an OAuth profile go on; give their names."""
    cursor = await connection.execute(_QUERIES["paused_users_of_oauth_profile"], {"oauth_profile_id": oauth_profile_id})
    paused = await cursor.fetchall()
    for profile_id, _ in paused:
        await resume_profile(connection, profile_id)
    return [str(name) for _, name in paused]
