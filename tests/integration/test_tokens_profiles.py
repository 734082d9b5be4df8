"""OAuth profiles in a real ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from tocsin_schema.errors import LedgerError, SealError, TokenError, UsageError
from tocsin_schema.ledger import access_tokens, oauth_profiles
from tocsin_schema.ledger.access_tokens import TokenKey, TokenRow
from tocsin_schema.ledger.oauth_profiles import NewOAuthProfile, OAuthProfile, SealedSecrets
from tocsin_schema.sealing import Keyring, load_sealer
from tocsin_schema.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from psycopg.rows import TupleRow

NEW = NewOAuthProfile(
    name="campus",
    provider="custom",
    grant_type="client_credentials",
    token_endpoint="https://id.example/{tenantId}/token",
    scope="mail",
    tenant_id="one",
    client_id="client",
)


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[psycopg.AsyncConnection[TupleRow]]:
    async with await psycopg.AsyncConnection.connect(database_url) as one:
        yield one


async def profile_with_a_token(connection: psycopg.AsyncConnection[TupleRow]) -> tuple[OAuthProfile, TokenRow]:
    profile = await oauth_profiles.add(connection, NEW, sealed=SealedSecrets(b"sealed"))
    key = TokenKey(profile.id, "")
    before = await access_tokens.read_row(connection, key)
    assert before is not None
    lease = await access_tokens.claim_refresh(connection, before, attempt=uuid4(), lease_seconds=10)
    assert lease is not None
    assert await access_tokens.record_token(connection, lease, sealed_token=b"token", lifetime_seconds=3600)
    return profile, await row_of(connection, profile)


async def row_of(connection: psycopg.AsyncConnection[TupleRow], profile: OAuthProfile) -> TokenRow:
    row = await access_tokens.read_row(connection, TokenKey(profile.id, ""))
    assert row is not None
    return row


async def use_in_a_sending_profile(connection: psycopg.AsyncConnection[TupleRow], profile: OAuthProfile) -> None:
    await connection.execute("INSERT INTO mailboxes (host, login) VALUES ('mail.example', 'a@campus.example')")
    await connection.execute(
        "INSERT INTO sending_profiles (name, provider, host, port, tls, auth, from_address, oauth_profile_id, login,"
        " batch_size, mailbox_id) SELECT 'news', 'custom', 'mail.example', 587, 'starttls', 'oauth',"
        " 'a@campus.example', %s, 'a@campus.example', 50, id FROM mailboxes",
        [profile.id],
    )


async def test_the_three_templates_are_there(connection: psycopg.AsyncConnection[TupleRow]):
    templates = {defaults.provider: defaults for defaults in await oauth_profiles.list_defaults(connection)}
    assert set(templates) >= {"microsoft365", "google", "custom"}
    assert "{tenantId}" in (templates["microsoft365"].token_endpoint or "")
    with pytest.raises(UsageError, match="custom, google, microsoft365"):
        await oauth_profiles.get_defaults(connection, "hotmail")


async def test_a_profile_is_found_again_and_its_secret_only_sealed(connection: psycopg.AsyncConnection[TupleRow]):
    added = await oauth_profiles.add(connection, NEW, sealed=SealedSecrets(b"sealed"))
    assert added.id == NEW.id
    assert added.secret_set_at is not None
    assert await oauth_profiles.get_by_name(connection, "campus") == added
    assert await oauth_profiles.get_by_id(connection, added.id) == added
    assert await oauth_profiles.list_profiles(connection) == [added]
    assert (await oauth_profiles.read_sealed_secrets(connection, added.id)).client_secret == b"sealed"
    assert "sealed'" not in repr(added)


async def test_a_profile_without_a_secret_says_so(connection: psycopg.AsyncConnection[TupleRow]):
    added = await oauth_profiles.add(connection, NEW, sealed=SealedSecrets())
    assert added.secret_set_at is None
    assert (await oauth_profiles.read_sealed_secrets(connection, added.id)).client_secret is None


async def test_a_name_is_given_once(connection: psycopg.AsyncConnection[TupleRow]):
    await oauth_profiles.add(connection, NEW, sealed=SealedSecrets())
    with pytest.raises(UsageError, match="'campus' already"):
        await oauth_profiles.add(connection, replace(NEW, id=uuid4()), sealed=SealedSecrets())
    other = await oauth_profiles.add(connection, replace(NEW, id=uuid4(), name="other"), sealed=SealedSecrets())
    with pytest.raises(UsageError, match="'campus' already"):
        await oauth_profiles.update(connection, replace(other, name="campus"))
    with pytest.raises(UsageError, match="There is no OAuth profile 'none'"):
        await oauth_profiles.get_by_name(connection, "none")


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "other"},
        {"tenant_id": "two"},
        {"token_endpoint": "https://elsewhere.example/token"},
        {"scope": None},
        {"ca_pem": "other"},
        {"grant_type": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_changed_profile_loses_its_tokens(
    connection: psycopg.AsyncConnection[TupleRow], change: dict[str, str | None]
):
    profile, before = await profile_with_a_token(connection)
    changed = await oauth_profiles.update(connection, replace(profile, **change))
    after = await row_of(connection, profile)
    assert {name: getattr(changed, name) for name in change} == change
    assert (before.sealed_token, after.sealed_token) == (b"token", None)
    assert after.version > before.version


async def test_a_renamed_profile_keeps_its_tokens(connection: psycopg.AsyncConnection[TupleRow]):
    profile, before = await profile_with_a_token(connection)
    await oauth_profiles.update(connection, replace(profile, name="renamed"))
    assert (await row_of(connection, profile)).version == before.version


async def test_a_new_secret_throws_tokens_and_remembered_failures_away(connection: psycopg.AsyncConnection[TupleRow]):
    profile, before = await profile_with_a_token(connection)
    lease = await access_tokens.claim_refresh(connection, before, attempt=uuid4(), lease_seconds=10)
    assert lease is not None
    await access_tokens.record_failure(connection, lease, TokenError("wrong", permanent=True), wait_seconds=3600)
    assert (await row_of(connection, profile)).failure_permanent
    await oauth_profiles.replace_client_secret(connection, profile, sealed_client_secret=b"other")
    after = await row_of(connection, profile)
    assert (after.sealed_token, after.failure, after.retry_at) == (None, None, None)
    assert (await oauth_profiles.read_sealed_secrets(connection, profile.id)).client_secret == b"other"


async def test_a_token_that_was_asked_for_with_the_old_secret_is_not_stored(
    connection: psycopg.AsyncConnection[TupleRow],
):
    profile, before = await profile_with_a_token(connection)
    lease = await access_tokens.claim_refresh(connection, before, attempt=uuid4(), lease_seconds=10)
    assert lease is not None
    await oauth_profiles.replace_client_secret(connection, profile, sealed_client_secret=b"other")
    assert not await access_tokens.record_token(connection, lease, sealed_token=b"late", lifetime_seconds=60)
    assert (await row_of(connection, profile)).sealed_token is None


async def test_a_profile_in_use_is_not_removed_and_its_users_are_named(connection: psycopg.AsyncConnection[TupleRow]):
    profile, _ = await profile_with_a_token(connection)
    await use_in_a_sending_profile(connection, profile)
    with pytest.raises(UsageError, match="used by sending profile news"):
        await oauth_profiles.remove(connection, profile)
    await connection.execute("DELETE FROM sending_profiles")
    await oauth_profiles.remove(connection, profile)
    assert await oauth_profiles.list_profiles(connection) == []
    with pytest.raises(UsageError, match="There is no OAuth profile"):
        await oauth_profiles.replace_client_secret(connection, profile, sealed_client_secret=b"late")


async def test_a_secret_opens_with_this_ledgers_key_only(
    connection: psycopg.AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOCSIN_MASTER_KEY", Keyring.generate().text())
    sealer = await load_sealer(connection, Settings(), is_to_seal=True)
    purpose = oauth_profiles.CLIENT_SECRET_PURPOSE
    sealed = sealer.seal("secret", purpose=purpose, row_id=str(NEW.id))
    assert (await load_sealer(connection, Settings())).open(sealed, purpose=purpose, row_id=str(NEW.id)) == "secret"
    monkeypatch.setenv("TOCSIN_MASTER_KEY", Keyring.generate().text())
    with pytest.raises(SealError, match="master key is not the one"):
        await load_sealer(connection, Settings())


async def test_no_master_key_and_no_ledger_are_told_apart(
    connection: psycopg.AsyncConnection[TupleRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(SealError, match="tocsin key init"):
        await load_sealer(connection, Settings(data_dir=tmp_path))
    monkeypatch.setenv("TOCSIN_MASTER_KEY", Keyring.generate().text())
    await connection.execute("ALTER TABLE settings DISABLE TRIGGER settings_read_only")
    await connection.execute("DELETE FROM settings WHERE key = 'DatabaseUniqueID'")
    with pytest.raises(LedgerError, match="tocsin migrate"):
        await load_sealer(connection, Settings())
