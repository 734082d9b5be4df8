"""Sealing everything anew with another master key, row by row, beside a fleet that works. Queries of `resealing.sql`.

Each row is a transaction of its own, so that nothing waits for another; a value that somebody changes meanwhile stays
as they left it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg.rows import class_row

from tocsin_schema.errors import SealError
from tocsin_schema.ledger.access_tokens import TOKEN_PURPOSE
from tocsin_schema.ledger.installation_settings import EMAIL_PASSWORD_PURPOSE
from tocsin_schema.ledger.oauth_profiles import CLIENT_SECRET_PURPOSE, PRIVATE_KEY_PURPOSE
from tocsin_schema.ledger.refresh_tokens import REFRESH_TOKEN_PURPOSE
from tocsin_schema.ledger.sending_profiles import PASSWORD_PURPOSE
from tocsin_schema.ledger.sql import named_queries
from tocsin_schema.sealing.purposes import KEY_CHECK_PURPOSE, purpose_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.sealing import Sealer

PAGE = 100

#: Every sealed column, by what its values are bound to, and the query that puts another value in place of one.
SWAPS: Mapping[str, str] = MappingProxyType(
    {
        CLIENT_SECRET_PURPOSE: "swap_client_secret",
        PRIVATE_KEY_PURPOSE: "swap_private_key",
        REFRESH_TOKEN_PURPOSE: "swap_refresh_token",
        TOKEN_PURPOSE: "swap_access_token",
        PASSWORD_PURPOSE: "swap_password",
        EMAIL_PASSWORD_PURPOSE: "swap_setting",
        KEY_CHECK_PURPOSE: "swap_setting",
    }
)

_QUERIES = named_queries("resealing")


@dataclass(frozen=True, slots=True)
class SealedValue:
    """A value as it stands: what it is, in which row, whose by name, and the id of the key that it names."""

    purpose: str
    row_id: UUID
    owner: str
    key_id: str
    sealed: bytes = field(repr=False)

    @property
    def told(self) -> str:
        """What it is to a person."""
        return purpose_of(self.purpose).of(self.owner)


@dataclass(frozen=True, slots=True)
class Unopenable:
    """A value that no key opens, and why."""

    value: SealedValue
    error: SealError


@dataclass(slots=True)
class Resealed:
    """What one pass over the ledger did: how many values it sealed, and what became of those that no key opens.

    An access token is thrown away, since another one can be asked for; anything else stays as it is.
    """

    count: int = 0
    unopenable: list[Unopenable] = field(default_factory=list[Unopenable])
    thrown_away: list[Unopenable] = field(default_factory=list[Unopenable])


async def count_by_key(connection: Connection) -> dict[str, int]:
    """Count the sealed values by the id of the key that they name, which is none where a value is damaged."""
    rows = await (await connection.execute(_QUERIES["count_by_key"])).fetchall()
    return {str(key_id): int(count) for key_id, count in rows}


async def reseal(connection: Connection, sealer: Sealer) -> Resealed:
    """Seal with the sealer's primary key what is sealed with another one; `connection` has to be in autocommit.

    Values that do not open are told, and stop nothing.
    """
    done = Resealed()
    async for value in sealed_otherwise(connection, sealer.keyring.primary.id):
        try:
            opened = sealer.open(value.sealed, purpose=value.purpose, row_id=str(value.row_id))
        except SealError as error:
            if value.purpose != TOKEN_PURPOSE:
                done.unopenable.append(Unopenable(value, error))
            elif await _throw_away(connection, value):
                done.thrown_away.append(Unopenable(value, error))
            continue
        sealed = sealer.seal(opened, purpose=value.purpose, row_id=str(value.row_id))
        swapped = await connection.execute(
            _QUERIES[SWAPS[value.purpose]], {"row_id": value.row_id, "old": value.sealed, "new": sealed}
        )
        done.count += swapped.rowcount
    return done


async def sealed_otherwise(connection: Connection, key_id: str) -> AsyncIterator[SealedValue]:
    """Yield the values that are not sealed with that key, page by page."""
    after_purpose, after_row_id = "", UUID(int=0)
    while True:
        async with connection.cursor(row_factory=class_row(SealedValue)) as cursor:
            await cursor.execute(
                _QUERIES["read_sealed_otherwise"],
                {"key_id": key_id, "after_purpose": after_purpose, "after_row_id": after_row_id, "limit": PAGE},
            )
            page = await cursor.fetchall()
        for value in page:
            yield value
        if len(page) < PAGE:
            return
        after_purpose, after_row_id = page[-1].purpose, page[-1].row_id


async def _throw_away(connection: Connection, value: SealedValue) -> bool:
    cursor = await connection.execute(
        _QUERIES["throw_away_access_token"], {"row_id": value.row_id, "old": value.sealed}
    )
    return cursor.rowcount == 1
