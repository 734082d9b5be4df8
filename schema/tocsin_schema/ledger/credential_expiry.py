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

#: How long ahead an operator is told.
WARN_AHEAD = timedelta(days=30)

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
        await cursor.execute(_QUERIES["known_ends"])
        return await cursor.fetchall()


def soon(ends: Iterable[CredentialEnd], *, now: datetime) -> list[CredentialEnd]:
    """Give those that have ended or do so within `WARN_AHEAD`."""
    return [end for end in ends if end.expires_at - now <= WARN_AHEAD]


def told(end: CredentialEnd, *, now: datetime) -> str:
    """Say in a few words what ends and when."""
    what = end.credential.replace("_", " ")
    whose = f"{what} of OAuth profile {end.oauth_profile}" + (f" for {end.subject}" if end.subject else "")
    day = f"{end.expires_at:%Y-%m-%d}"
    days = (end.expires_at - now) // timedelta(days=1)
    if end.expires_at <= now:
        return f"{whose} ended on {day}"
    return f"{whose} ends {'today' if days == 0 else f'in {days} days'} ({day})"
