"""When credentials end, as far as it is known: mail stops on that day if nobody acts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

WARN_AHEAD = timedelta(days=30)
"""How long ahead an operator is told: time to have another credential made, in an office that is not ours."""

UNUSED_SIGN_IN_LIVES = timedelta(days=90)
"""Microsoft tells nothing of its refresh tokens: they end when they are not used for so long
(learn.microsoft.com/entra/identity-platform/refresh-tokens)."""

_QUERIES = named_queries("credential_expiry")


@dataclass(frozen=True, slots=True)
class CredentialEnd:
    """A credential of an OAuth profile and its end.

    `credential` is client_secret, certificate or refresh_token; `subject` the mailbox of a refresh token.
    """

    oauth_profile: str
    credential: str
    subject: str | None
    expires_at: datetime


async def read_known_ends(connection: Connection) -> list[CredentialEnd]:
    """Give every credential whose end is known, the next to end first."""
    async with connection.cursor(row_factory=class_row(CredentialEnd)) as cursor:
        await cursor.execute(_QUERIES["known_ends"], {"unused_sign_in_lives": UNUSED_SIGN_IN_LIVES})
        return await cursor.fetchall()


def soon(ends: Iterable[CredentialEnd], *, now: datetime) -> list[CredentialEnd]:
    """Give those that have ended or do so within `WARN_AHEAD`."""
    return [end for end in ends if end.expires_at - now <= WARN_AHEAD]
