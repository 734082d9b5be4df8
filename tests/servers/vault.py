"""A ledger with a secret in each place that may hold one, and the key file of a machine that uses it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from tests.servers.ledger_rows import add_profile
from tocsin_console.rotating.rotation import RotationOptions, rotate
from tocsin_schema.ledger import oauth_profiles, resealing
from tocsin_schema.ledger.access_tokens import TOKEN_PURPOSE, TokenKey, read_row
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.installation_settings import write_email_password
from tocsin_schema.ledger.oauth_profiles import CLIENT_SECRET_PURPOSE, PRIVATE_KEY_PURPOSE, NewOAuthProfile
from tocsin_schema.ledger.refresh_tokens import store_sign_in
from tocsin_schema.ledger.sending_profiles import PASSWORD_PURPOSE
from tocsin_schema.sealing import load_sealer, read_keyring
from tocsin_schema.sealing.purposes import KEY_CHECK_PURPOSE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.settings import Settings

QUICK = RotationOptions(patience_seconds=0, settle_seconds=0)
#: What is sealed of one OAuth profile, one sending profile and the settings, by purpose.
SECRETS = {
    CLIENT_SECRET_PURPOSE: "client secret",
    PRIVATE_KEY_PURPOSE: "private key",
    "refresh_tokens.sealed_token": "refresh token",
    TOKEN_PURPOSE: "access token",
    PASSWORD_PURPOSE: "password",
    "settings.sealed_value": "shared password",
    KEY_CHECK_PURPOSE: "tocsin",
}


def nothing(_said: str) -> None:
    pass


@dataclass
class Vault:
    """A ledger with a secret in each place that may hold one, and this machine's key file."""

    url: str
    settings: Settings
    said: list[str] = field(default_factory=list[str])

    @property
    def keys(self) -> tuple[str, ...]:
        return read_keyring(self.settings).ids

    async def rotate(self, options: RotationOptions = QUICK, *, then: Callable[[str], None] = nothing) -> None:
        def say(text: str) -> None:
            self.said.append(text)
            then(text)

        await rotate(self.url, self.settings, options, say=say)

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Connection]:
        async with connect(self.url) as connection:
            await connection.set_autocommit(True)
            yield connection

    async def opened(self) -> dict[str, str]:
        """Open every value as a process would that starts now."""
        async with self.ledger() as connection:
            sealer = await load_sealer(connection, self.settings)
            return {
                value.purpose: sealer.open(value.sealed, purpose=value.purpose, row_id=str(value.row_id))
                async for value in resealing.sealed_otherwise(connection, "")
            }

    async def sealed_with(self) -> dict[str, int]:
        async with self.ledger() as connection:
            return await resealing.count_by_key(connection)

    def change(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def all_but_secrets(self) -> list[tuple[Any, ...]]:
        tables = ("oauth_profiles", "refresh_tokens", "access_tokens", "sending_profiles", "settings")
        return [
            row
            for table in tables
            for row in self.change(
                "SELECT to_jsonb(t) - '{sealed_client_secret,sealed_private_key,sealed_token,sealed_password,"
                f"sealed_value}}'::text[] FROM {table} t ORDER BY 1"
            )
        ]


async def fill(connection: Connection, settings: Settings, name: str = "campus") -> UUID:
    """Put a secret into each place that may hold one; give the OAuth profile's id."""
    sealer = await load_sealer(connection, settings, is_to_seal=True)
    new = NewOAuthProfile(name=name, provider="custom", grant_type="refresh_token", token_endpoint="https://x.example")
    await oauth_profiles.add(
        connection,
        new,
        sealed=oauth_profiles.SealedSecrets(
            sealer.seal("client secret", purpose=CLIENT_SECRET_PURPOSE, row_id=str(new.id)),
            sealer.seal("private key", purpose=PRIVATE_KEY_PURPOSE, row_id=str(new.id)),
        ),
    )
    token_key = TokenKey(new.id, "ada@campus.example")
    await store_sign_in(connection, sealer, token_key, "refresh token", account=None, lifetime_seconds=None)
    token = await read_row(connection, token_key)
    assert token is not None
    await connection.execute(
        "UPDATE access_tokens SET sealed_token = %s, obtained_at = now(), expires_at = now() + interval '1 h'"
        " WHERE id = %s",
        [sealer.seal("access token", purpose=TOKEN_PURPOSE, row_id=str(token.id)), token.id],
    )
    profile = await add_profile(connection)
    await connection.execute(
        "UPDATE sending_profiles SET sealed_password = %s WHERE id = %s",
        [sealer.seal("password", purpose=PASSWORD_PURPOSE, row_id=str(profile.id)), profile.id],
    )
    await write_email_password(connection, sealer, "shared password", host="mail.example")
    return new.id
