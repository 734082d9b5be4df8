"""What the ledger knows of the ends of credentials, and the metric that tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tocsin_schema.ledger import oauth_profiles
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.credential_expiry import read_known_ends
from tocsin_schema.ledger.oauth_profiles import NewOAuthProfile, SealedSecrets
from tocsin_workers.supervising.exposition import LedgerAndQueues

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tocsin_schema.ledger.connection import Connection

SPRING, SUMMER = datetime(2027, 3, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC)


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with connect(database_url) as one:
        await one.set_autocommit(True)
        yield one


def a_profile(name: str, **fields: object) -> NewOAuthProfile:
    usual = {"provider": "microsoft365", "grant_type": "client_credentials", "token_endpoint": "https://x.example"}
    return NewOAuthProfile(name=name, **{**usual, **fields})  # type: ignore[arg-type]  # the fields are the test's own


async def sign_in(connection: Connection, profile: str, subject: str, expires_at: datetime | None) -> None:
    insert = (
        b"INSERT INTO refresh_tokens (oauth_profile_id, subject, sealed_token, expires_at)"
        b" SELECT id, %s, 'sealed', %s FROM oauth_profiles WHERE name = %s"
    )
    await connection.execute(insert, [subject, expires_at, profile])


async def test_the_ends_of_secrets_certificates_and_refresh_tokens_are_known_in_their_order(
    connection: Connection, database_url: str
) -> None:
    both = a_profile("both", secret_expires_at=SUMMER, certificate_expires_at=SPRING)
    await oauth_profiles.add(connection, both, sealed=SealedSecrets(b"secret", b"key"))
    await oauth_profiles.add(connection, a_profile("endless"), sealed=SealedSecrets(b"secret"))
    google = a_profile("google", provider="google", grant_type="refresh_token")
    await oauth_profiles.add(connection, google, sealed=SealedSecrets())
    await sign_in(connection, "google", "a@campus.example", SUMMER + timedelta(days=1))
    await sign_in(connection, "google", "b@campus.example", SUMMER + timedelta(days=2))
    await sign_in(connection, "google", "c@campus.example", None)
    known = [(end.oauth_profile, end.credential, end.subject) for end in await read_known_ends(connection)]
    assert known == [
        ("both", "certificate", None),
        ("both", "client_secret", None),
        ("google", "refresh_token", "a@campus.example"),
        ("google", "refresh_token", "b@campus.example"),
    ]


async def test_microsofts_refresh_tokens_end_90_days_after_their_last_use(connection: Connection) -> None:
    await oauth_profiles.add(connection, a_profile("device", grant_type="device_code"), sealed=SealedSecrets())
    await sign_in(connection, "device", "a@campus.example", None)
    (end,) = await read_known_ends(connection)
    assert abs(end.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=5)


def test_the_metric_tells_the_first_end_of_each_kind_and_no_mailbox(database_url: str) -> None:
    import asyncio

    async def prepare() -> None:
        async with connect(database_url) as connection:
            new = a_profile("device", grant_type="device_code")
            await oauth_profiles.add(connection, new, sealed=SealedSecrets())
            await sign_in(connection, "device", "late@campus.example", SUMMER)
            await sign_in(connection, "device", "soon@campus.example", SPRING)

    asyncio.run(prepare())
    families = {family.name: family for family in LedgerAndQueues(database_url, None).collect()}
    (sample,) = families["tocsin_credential_expiry_timestamp_seconds"].samples
    assert sample.labels == {"oauth_profile": "device", "credential": "refresh_token"}
    assert sample.value == SPRING.timestamp()
