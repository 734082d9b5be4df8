"""Pausing and resuming sending profiles: their mail waits, all others go on. Queries of `pausing.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.actors import Actor
    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("pausing")


class PauseCause(StrEnum):
    """Why a profile is paused, and so who lets it go on."""

    BY_HAND = "by_hand"
    """Only a person."""
    CREDENTIALS = "credentials"
    """A person, a corrected secret, or a probe: a worker tries from time to time whether they are taken again."""
    SENDER = "sender"
    """The provider does not let it send: only a person."""


@dataclass(frozen=True, slots=True)
class Probe:
    """When to try next by ourselves, and how often in a row the credentials have been refused by now."""

    in_seconds: float
    count: int


async def pause_profile(
    connection: Connection,
    profile_id: UUID,
    reason: str,
    *,
    cause: PauseCause,
    actor: Actor | None = None,
    probe: Probe | None = None,
    seen_at: datetime | None = None,
) -> bool:
    """Pause a profile with a reason for a person; False where it was paused already.

    `actor` is who pauses it by hand; Tocsin itself pauses without one. `seen_at` is when the profile was read with
    which the trouble came: where it, or its credentials, changed since, nothing is paused either.
    """
    parameters = {
        "profile_id": profile_id,
        "reason": reason,
        "cause": cause.value,
        "actor_kind": None if actor is None else actor.kind.value,
        "actor": None if actor is None else actor.name,
        "probe_in_seconds": None if probe is None else probe.in_seconds,
        "probes": 0 if probe is None else probe.count,
        "seen_at": seen_at,
    }
    cursor = await connection.execute(_QUERIES["pause_profile"], parameters)
    return cursor.rowcount == 1


async def claim_probe(connection: Connection, profile_id: UUID) -> bool:
    """Take it on us to try a paused profile's credentials; False where it is too early or another one does."""
    return await (await connection.execute(_QUERIES["claim_probe"], {"profile_id": profile_id})).fetchone() is not None


async def postpone_probe(connection: Connection, profile_id: UUID, reason: str, probe: Probe) -> None:
    """Note that the credentials are still refused, and why."""
    parameters = {
        "profile_id": profile_id,
        "reason": reason,
        "probe_in_seconds": probe.in_seconds,
        "probes": probe.count,
    }
    await connection.execute(_QUERIES["postpone_probe"], parameters)


async def resume_probed_profile(connection: Connection, profile_id: UUID) -> bool:
    """Let a profile go on whose credentials are taken again; False where a person has paused it meanwhile."""
    cursor = await connection.execute(_QUERIES["resume_probed_profile"], {"profile_id": profile_id})
    return await cursor.fetchone() is not None


async def resume_profile(connection: Connection, profile_id: UUID) -> None:
    """Let a profile go on, its mailbox too; token endpoints are asked again that have not wished otherwise."""
    await connection.execute(_QUERIES["resume_profile"], {"profile_id": profile_id})


async def resume_users_of_oauth_profile(connection: Connection, oauth_profile_id: UUID) -> list[str]:
    """Let all profiles go on whose credentials from an OAuth profile were refused; give their names."""
    return await _resume(connection, "refused_users_of_oauth_profile", {"oauth_profile_id": oauth_profile_id})


async def resume_refused_profile(connection: Connection, profile_id: UUID) -> list[str]:
    """Let a profile go on if its own credentials were refused; give its name, nothing where it was not for that."""
    return await _resume(connection, "refused_profile", {"profile_id": profile_id})


async def resume_users_of_shared_login(connection: Connection, host: str) -> list[str]:
    """Let all profiles go on for which EmailPassword was refused at a host; give their names."""
    return await _resume(connection, "refused_users_of_shared_login", {"host": host})


async def _resume(connection: Connection, query: str, parameters: Mapping[str, object]) -> list[str]:
    refused = await (await connection.execute(_QUERIES[query], parameters)).fetchall()
    for profile_id, _ in refused:
        await connection.execute(_QUERIES["resume_corrected_profile"], {"profile_id": profile_id})
    return [str(name) for _, name in refused]
