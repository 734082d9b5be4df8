"""Addresses that are not written to any more: refused ones by themselves, others by a person's hand.

A suppression holds for the jobs of one source, for those without a source (''), or for all (None). Addresses are
compared as the contract has it (`tocsin_schema.contract.addresses`) and no more freely: a suppression made of dots and
tags that we thought away would hit somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.installation_settings import read_in_force
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.actors import Actor
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.recording import RecordedException
    from tocsin_schema.ledger.sending import ClaimedBatch

_QUERIES = named_queries("suppressions")


@dataclass(frozen=True, slots=True)
class ClaimedSuppression:
    """A recipient of a claimed batch whose address is suppressed for the job's source: since when, and why."""

    job_number: int
    ordinal: int
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Suppression:
    """A suppressed address, and where that came from: a job's recipient whom a server refused, or a person.

    `source` None: it holds for all jobs. `job_id` is None also once the job is removed.
    """

    id: int
    address: str
    source: str | None
    reason: str
    code: int | None
    enhanced_code: str | None
    reply: str | None
    job_number: int | None
    job_id: UUID | None
    actor_kind: str | None
    actor: str | None
    created_at: datetime


async def suppress_refused(connection: Connection, refused: Sequence[RecordedException]) -> None:
    """Suppress the addresses of refused recipients for their job's source, unless a setting says not to.

    Their exceptions were written in this transaction. Who is suppressed already stays so, with the older reason.
    """
    settings = await read_in_force(connection)
    if not settings.suppress_refused_addresses:
        return
    await connection.execute(
        _QUERIES["suppress_refused"],
        {"job_numbers": [row.job_number for row in refused], "ordinals": [row.ordinal for row in refused]},
    )


async def read_claimed_suppressions(
    connection: Connection, batches: Sequence[ClaimedBatch]
) -> list[ClaimedSuppression]:
    """Read which recipients of claimed batches are suppressed; of urgent jobs nobody is."""
    async with connection.cursor(row_factory=class_row(ClaimedSuppression)) as cursor:
        await cursor.execute(
            _QUERIES["read_claimed_suppressions"],
            {
                "job_numbers": [batch.job_number for batch in batches],
                "first_ordinals": [batch.first_ordinal for batch in batches],
                "sizes": [batch.size for batch in batches],
            },
        )
        return await cursor.fetchall()


async def read_suppressions(
    connection: Connection, *, source: str | None, address: str | None, limit: int
) -> list[Suppression]:
    """Read suppressions, newest first: those made for a source, of an address, or all."""
    async with connection.cursor(row_factory=class_row(Suppression)) as cursor:
        await cursor.execute(_QUERIES["list_suppressions"], {"source": source, "address": address, "limit": limit})
        return await cursor.fetchall()


async def add_suppressions(
    connection: Connection, addresses: Sequence[str], *, source: str | None, reason: str, actor: Actor
) -> int:
    """Suppress addresses for a source, or None for all; give how many were not so before."""
    cursor = await connection.execute(
        _QUERIES["add_suppressions"],
        {
            "addresses": list(addresses),
            "source": source,
            "reason": reason,
            "actor_kind": actor.kind.value,
            "actor": actor.name,
        },
    )
    return len(await cursor.fetchall())


async def remove_suppressions(
    connection: Connection, addresses: Sequence[str], *, source: str | None, actor: Actor
) -> int:
    """Take addresses off the list, for one source or, with None, wherever they stand; give how many entries went.

    Who did it is written down. Raises UsageError for an address that has none; the caller's transaction then has to be
    rolled back.
    """
    cursor = await connection.execute(
        _QUERIES["remove_suppressions"],
        {"addresses": list(addresses), "source": source, "actor_kind": actor.kind.value, "actor": actor.name},
    )
    removed = [str(address) for (address,) in await cursor.fetchall()]
    known = set(removed)
    unknown = [address for address in addresses if address not in known]
    if unknown:
        where = "" if source is None else f" for {source_in_words(source)}"
        raise UsageError(
            f"{unknown[0]} is not suppressed{where}.",
            fix=f"Nothing was removed. See `tocsin suppression list --address {unknown[0]}`.",
            scope=Scope.RECIPIENT,
        )
    return len(removed)


def source_in_words(source: str | None) -> str:
    """Say for whose jobs a suppression holds."""
    match source:
        case None:
            return "all sources"
        case "":
            return "jobs without a source"
        case _:
            return f"source {source}"
