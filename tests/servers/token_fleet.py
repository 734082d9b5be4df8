"""Worker processes that share a ledger, as far as their tokens go: one pool each, one OAuth profile for all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.servers.token_endpoint import CLIENT_ID, CLIENT_SECRET, TENANT, TokenEndpoint
from tocsin_schema.errors import TokenError
from tocsin_schema.ledger import oauth_profiles
from tocsin_schema.ledger.access_tokens import TokenKey
from tocsin_schema.ledger.connection import open_pool
from tocsin_schema.ledger.oauth_profiles import NewOAuthProfile, OAuthProfile, SealedSecrets
from tocsin_schema.ledger.refresh_tokens import REFRESH_TOKEN_PURPOSE, read_refresh_token, store_sign_in
from tocsin_schema.sealing import Keyring, Sealer
from tocsin_workers.tokens.access import TokenAccess
from tocsin_workers.tokens.single_flight import TokenSource

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from psycopg.rows import TupleRow
    from psycopg_pool import AsyncConnectionPool

    from tocsin_workers.tokens.attempting import TokenRequest

PROCESSES = 4
MAILBOX = "news@campus.example"
DEADLINE = 3.0


async def nobody(_key: TokenKey) -> None:
    """Stand for a token broker that is not there: the wish is lost."""


@dataclass
class Fleet:
    """Worker processes, each with a pool of its own, on one ledger, with one OAuth profile."""

    url: str
    profile: OAuthProfile
    sealer: Sealer
    pools: list[AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]]
    endpoint: TokenEndpoint
    requests: list[TokenRequest] = field(default_factory=list)

    @property
    def key(self) -> TokenKey:
        return TokenKey(self.profile.id, "")

    def source(self, process: int = 0, *, deadline: float = DEADLINE, lease: float = 4.0) -> TokenSource:
        return TokenSource(
            self.pools[process],
            self.sealer,
            observe=self.requests.append,
            request_deadline_seconds=deadline,
            lease_seconds=lease,
            patience_seconds=10,
        )

    def access(
        self,
        process: int = 0,
        *,
        ask: Callable[[TokenKey], Awaitable[None]] = nobody,
        memory_seconds: float = 30,
        deadline: float = DEADLINE,
    ) -> TokenAccess:
        return TokenAccess(
            self.source(process, deadline=deadline),
            ask,
            memory_seconds=memory_seconds,
            broker_patience_seconds=0.3,
        )

    async def execute(self, query: bytes, parameters: list[object] | None = None) -> list[TupleRow]:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def age(self, seconds: float) -> None:
        """Let the token be older, as if so much time had gone by."""
        await self.execute(
            b"UPDATE access_tokens SET obtained_at = obtained_at - make_interval(secs => %s::float8),"
            b" expires_at = expires_at - make_interval(secs => %s::float8)",
            [seconds, seconds],
        )

    async def forget_wait(self) -> None:
        """Let the wait after a failure be over."""
        await self.execute(b"UPDATE access_tokens SET retry_at = clock_timestamp()")

    async def add_jwt_bearer(self, key: RSAPrivateKey) -> OAuthProfile:
        """Make another profile, which signs an assertion in each mailbox's name."""
        new = replace(_profile_of(self.endpoint), name="delegated", grant_type="jwt_bearer", id=uuid4())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        sealed = self.sealer.seal(pem, purpose=oauth_profiles.PRIVATE_KEY_PURPOSE, row_id=str(new.id))
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            return await oauth_profiles.add(connection, new, sealed=SealedSecrets(private_key=sealed))

    async def add_sign_in(self, refresh_token: str, *, name: str = "person", mailbox: str = MAILBOX) -> OAuthProfile:
        """Make another profile, which lives on somebody's sign-in."""
        new = replace(_profile_of(self.endpoint), name=name, grant_type="refresh_token", id=uuid4())
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            profile = await oauth_profiles.add(connection, new, sealed=SealedSecrets())
            key = TokenKey(profile.id, mailbox)
            await store_sign_in(connection, self.sealer, key, refresh_token, account=mailbox, lifetime_seconds=None)
        return profile

    async def stored_refresh_token(self, profile: OAuthProfile, mailbox: str = MAILBOX) -> str:
        """Open what the ledger has of a sign-in."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            row = await read_refresh_token(connection, TokenKey(profile.id, mailbox))
        assert row is not None
        return self.sealer.open(row.sealed_token, purpose=REFRESH_TOKEN_PURPOSE, row_id=str(row.id))

    async def replace_secret(self, secret: str) -> None:
        purpose = oauth_profiles.CLIENT_SECRET_PURPOSE
        sealed = self.sealer.seal(secret, purpose=purpose, row_id=str(self.profile.id))
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await oauth_profiles.replace_client_secret(connection, self.profile, sealed_client_secret=sealed)


@asynccontextmanager
async def token_fleet(database_url: str, endpoint: TokenEndpoint) -> AsyncGenerator[Fleet]:
    sealer = Sealer(Keyring.generate(), "11111111-1111-4111-8111-111111111111")
    new = _profile_of(endpoint)
    sealed = sealer.seal(CLIENT_SECRET, purpose=oauth_profiles.CLIENT_SECRET_PURPOSE, row_id=str(new.id))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        profile = await oauth_profiles.add(connection, new, sealed=SealedSecrets(sealed))
    pools = [open_pool(database_url, size=6) for _ in range(PROCESSES)]
    for pool in pools:
        await pool.open()
    try:
        yield Fleet(database_url, profile, sealer, pools, endpoint)
    finally:
        for pool in pools:
            await pool.close()


async def failures_of(*askers: Awaitable[object]) -> list[TokenError]:
    results = await asyncio.gather(*askers, return_exceptions=True)
    assert all(isinstance(result, TokenError) for result in results), results
    return [result for result in results if isinstance(result, TokenError)]


def _profile_of(endpoint: TokenEndpoint) -> NewOAuthProfile:
    return NewOAuthProfile(
        name="campus",
        provider="custom",
        grant_type="client_credentials",
        token_endpoint=endpoint.custom_url,
        tenant_id=TENANT,
        client_id=CLIENT_ID,
        ca_pem=endpoint.ca_pem,
    )
