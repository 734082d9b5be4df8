"""Rotating the master key on a real ledger: whatever interrupts it, every secret opens, at last with one new key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.servers import pgbouncer
from tests.servers.availability import or_skip
from tests.servers.ledger_rows import add_worker
from tests.servers.pgbouncer import PgBouncer
from tests.servers.vault import QUICK, SECRETS, Vault, fill
from tocsin_schema.errors import SealError, UnknownKeyError, UsageError
from tocsin_schema.ledger import master_keys, resealing, worker_leases
from tocsin_schema.ledger.connection import connect, open_pool
from tocsin_schema.ledger.sending_profiles import PASSWORD_PURPOSE
from tocsin_schema.sealing import Keyring, MasterKey, Sealer, load_sealer, read_keyring, write_new_key_file
from tocsin_schema.sealing.purposes import KEY_CHECK_PURPOSE, PURPOSES
from tocsin_schema.settings import Settings
from tocsin_workers.process.master_keys import ProcessKeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers.postgres import PostgresServer


class KilledError(Exception):
    """Stands for Ctrl-C, or kill -9, at a certain point."""


@pytest.fixture
async def vault(database_url: str, tmp_path: Path) -> Vault:
    vault = Vault(database_url, Settings(data_dir=tmp_path))
    write_new_key_file(vault.settings.key_file)
    async with vault.ledger() as connection:
        await fill(connection, vault.settings)
    return vault


async def test_everything_is_sealed_with_a_new_key_and_nothing_else_is_touched(vault: Vault) -> None:
    [old] = vault.keys
    before = vault.all_but_secrets()
    await vault.rotate()
    [new] = vault.keys
    assert new != old
    assert await vault.sealed_with() == {new: len(SECRETS)}
    assert await vault.opened() == SECRETS
    assert vault.all_but_secrets() == before
    async with vault.ledger() as connection:
        known = {key.id: key for key in await master_keys.list_keys(connection)}
    assert known.keys() == {old, new}
    assert (known[new].promoted_at is not None, known[new].retired_at) == (True, None)
    assert known[old].retired_at is not None
    assert f"everything is sealed with key {new}" in vault.said[-1]


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
async def test_a_rotation_that_was_interrupted_goes_on_where_it_stopped(vault: Vault, steps: int) -> None:
    """Each step is told after it is done, and before it is noted: what follows finds the worst of both."""
    [old] = vault.keys

    def interrupt(_said: str) -> None:
        if len(vault.said) == steps:
            raise KilledError

    with pytest.raises(KilledError):
        await vault.rotate(then=interrupt)
    assert await vault.opened() == SECRETS
    new = next(key for key in vault.keys if key != old)
    await vault.rotate()
    assert vault.keys == (new,)
    assert await vault.sealed_with() == {new: len(SECRETS)}
    assert await vault.opened() == SECRETS


async def test_a_second_rotation_brings_another_key(vault: Vault) -> None:
    await vault.rotate()
    first = vault.keys
    await vault.rotate()
    assert len(vault.keys) == 1
    assert vault.keys != first
    assert await vault.opened() == SECRETS


async def test_two_rotations_at_a_time_are_one_too_many(vault: Vault) -> None:
    async with connect(vault.url) as other:
        assert await master_keys.lock_rotation(other)
        with pytest.raises(SealError, match="Another `tocsin key rotate` is running"):
            await vault.rotate()
    await vault.rotate()


async def test_machines_with_copies_of_the_file_are_named_and_nothing_is_broken_meanwhile(vault: Vault) -> None:
    [old] = vault.keys
    async with vault.ledger() as connection:
        worker = await add_worker(connection, lease_seconds=60)
        dead = await add_worker(connection, lease_seconds=60)
        await worker_leases.beat(connection, worker, key_ids=[old])
        await connection.execute("UPDATE workers SET heartbeat_at = now() - interval '2 min' WHERE id = %s", [dead])

        async def stops(told: str) -> None:
            with pytest.raises(SealError, match=told) as stopped:
                await vault.rotate()
            assert "Copy" in str(stopped.value.fix)
            assert await vault.opened() == SECRETS

        await stops("Workers on here do not have key")
        await stops("Workers on here do not have key")
        _, new = vault.keys
        assert await vault.sealed_with() == {old: len(SECRETS)}
        await worker_leases.beat(connection, worker, key_ids=[old, new])
        await stops("Workers on here do not yet seal with key")
        assert vault.keys == (new, old)
        assert await vault.sealed_with() == {new: len(SECRETS)}
        await worker_leases.beat(connection, worker, key_ids=[new, old])
        await vault.rotate()
    assert vault.keys == (new,)


async def test_a_check_of_a_profile_that_was_killed_holds_no_rotation_up(vault: Vault) -> None:
    async with vault.ledger() as connection:
        await worker_leases.register_worker(connection, uuid4(), host="here", pid=1, role="check", lease_seconds=300)
    await vault.rotate()
    assert len(vault.keys) == 1


async def test_a_rotation_that_began_on_another_machine_wants_its_key_file(vault: Vault) -> None:
    [old] = vault.keys
    async with vault.ledger() as connection:
        await master_keys.note_keys(connection, [old, "from-there"], in_use=[old])
        worker = await add_worker(connection, lease_seconds=60)
        await worker_leases.beat(connection, worker, key_ids=[old, "from-there"])
    with pytest.raises(SealError, match="workers on here have key from-there"):
        await vault.rotate()
    assert vault.keys == (old,)


async def test_what_is_sealed_with_the_old_key_at_the_last_moment_is_sealed_anew(vault: Vault) -> None:
    async with vault.ledger() as connection:
        before = await load_sealer(connection, vault.settings)
        late = before.with_keys(read_keyring(vault.settings))

        def seal_late(said: str) -> None:
            if said.startswith("Taken out"):
                [(row_id,)] = vault.change("SELECT id FROM sending_profiles")
                sealed = late.seal("late", purpose=PASSWORD_PURPOSE, row_id=str(row_id))
                vault.change("UPDATE sending_profiles SET sealed_password = %s", sealed)

        await vault.rotate(then=seal_late)
    assert await vault.opened() == {**SECRETS, PASSWORD_PURPOSE: "late"}
    assert await vault.sealed_with() == {vault.keys[0]: len(SECRETS)}


class Meddling(Sealer):
    """Changes a password at the moment between reading and sealing it anew."""

    meddle: Callable[[], object] = staticmethod(lambda: None)

    def open(self, sealed: bytes, *, purpose: str, row_id: str) -> str:
        if purpose == PASSWORD_PURPOSE:
            self.meddle()
        return super().open(sealed, purpose=purpose, row_id=row_id)


async def test_a_secret_that_somebody_changes_meanwhile_stays_as_they_left_it(vault: Vault) -> None:
    keyring = read_keyring(vault.settings)
    promoted = Keyring((MasterKey.generate(), *keyring.keys))
    [(unique_id,)] = vault.change("SELECT value FROM settings WHERE key = 'DatabaseUniqueID'")
    sealer = Meddling(promoted, unique_id)
    [(row_id,)] = vault.change("SELECT id FROM sending_profiles")
    theirs = Sealer(keyring, unique_id).seal("theirs", purpose=PASSWORD_PURPOSE, row_id=str(row_id))
    sealer.meddle = lambda: vault.change("UPDATE sending_profiles SET sealed_password = %s", theirs)
    async with vault.ledger() as connection:
        done = await resealing.reseal(connection, sealer)
        assert done.count == len(SECRETS) - 1
        assert vault.change("SELECT sealed_password FROM sending_profiles") == [(theirs,)]
        sealer.meddle = lambda: None
        assert (await resealing.reseal(connection, sealer)).count == 1


async def test_values_that_were_moved_are_named_keep_their_key_and_hold_nothing_up(vault: Vault) -> None:
    [old] = vault.keys
    async with vault.ledger() as connection:
        other = await fill(connection, vault.settings, "other")
    for table, column in (
        ("oauth_profiles", "sealed_client_secret"),
        ("sending_profiles", "sealed_password"),
        ("access_tokens", "sealed_token"),
    ):
        vault.change(
            f"UPDATE {table} a SET {column} = b.{column} FROM {table} b"
            f" WHERE a.id <> b.id AND a.ctid = (SELECT min(ctid) FROM {table})"
        )
    vault.change("UPDATE oauth_profiles SET sealed_private_key = '\\x01' WHERE id = %s", other)

    with pytest.raises(SealError, match="3 values do not open"):
        await vault.rotate()
    new, kept = vault.keys
    assert kept == old
    told = "\n".join(vault.said)
    assert "the password of sending profile 'profile-" in told
    assert "the client secret of OAuth profile '" in told
    assert "the private key of OAuth profile 'other'. The private key in oauth_profiles.sealed_private_key" in told
    assert "is damaged" in told
    assert "does not open in this row or database" in told
    assert "tocsin profile replace-password" in told
    assert "Thrown away, since it does not open and another one can be had: the access token of OAuth profile" in told
    assert vault.change("SELECT count(*) FROM access_tokens WHERE sealed_token IS NULL") == [(1,)]
    sealed = await vault.sealed_with()
    assert (sealed[old], sealed[new]) == (2, len(SECRETS) + 5 - 4)
    # They are entered anew, or removed: then the old key can go.
    vault.change("UPDATE sending_profiles SET sealed_password = NULL")
    vault.change("UPDATE oauth_profiles SET sealed_client_secret = NULL, sealed_private_key = NULL")
    await vault.rotate()
    assert vault.keys == (new,)


async def test_a_secret_that_was_copied_to_another_ledger_does_not_open_there(
    vault: Vault, postgres_server: PostgresServer
) -> None:
    copy = Vault(postgres_server.create_database(vault.url), vault.settings)
    copy.change("ALTER TABLE settings DISABLE TRIGGER settings_read_only")
    copy.change("UPDATE settings SET value = gen_random_uuid()::text WHERE key = 'DatabaseUniqueID'")
    with pytest.raises(SealError, match="not the one that this ledger's secrets are sealed with"):
        await copy.opened()
    copy.change("DELETE FROM settings WHERE key = 'MasterKeyCheck'")
    with pytest.raises(SealError, match="does not open in this row or database: it was sealed for another one"):
        await copy.opened()
    postgres_server.drop_database(copy.url)


async def test_old_keys_can_stay_in_the_file_for_another_ledger_that_uses_it(
    vault: Vault, postgres_server: PostgresServer
) -> None:
    [old] = vault.keys
    second = Vault(postgres_server.create_database(vault.url), vault.settings)
    await vault.rotate(replace(QUICK, keep_old_keys=True))
    new, kept = vault.keys
    assert kept == old
    assert f"may be taken out of {vault.settings.key_file} everywhere: {old}" in "\n".join(vault.said)
    await second.rotate()
    assert vault.keys == (new,)
    assert await vault.opened() == await second.opened() == SECRETS
    postgres_server.drop_database(second.url)


def keys_in_the_environment(vault: Vault, *keys: MasterKey) -> Vault:
    text = Keyring(keys).text()
    return Vault(vault.url, Settings(data_dir=vault.settings.data_dir, master_key=text))  # pyright: ignore[reportArgumentType]  # pydantic makes a SecretStr


async def test_keys_in_the_environment_are_changed_by_a_person_who_is_told_how(vault: Vault) -> None:
    old, new = read_keyring(vault.settings).primary, MasterKey.generate()
    with pytest.raises(UsageError, match="cannot be changed by this command") as told:
        await keys_in_the_environment(vault, old).rotate()
    assert "tocsin key init" in str(told.value.fix)
    with pytest.raises(UsageError, match="cannot be changed by this command") as told:
        await keys_in_the_environment(vault, old, new).rotate()
    assert f"key {new.id} open: put its line first in TOCSIN_MASTER_KEY" in str(told.value.fix)
    promoted = keys_in_the_environment(vault, new, old)
    await promoted.rotate()
    assert f"may be taken out of TOCSIN_MASTER_KEY everywhere: {old.id}" in "\n".join(promoted.said)
    assert await keys_in_the_environment(vault, new).opened() == SECRETS


async def test_two_keys_that_nobody_has_noted_are_told_apart_by_what_is_sealed_with_them(vault: Vault) -> None:
    old, new = read_keyring(vault.settings).primary, MasterKey.generate()
    vault.settings.key_file.write_text(Keyring((new, old)).text())
    await vault.rotate()
    assert vault.keys == (new.id,)
    assert await vault.opened() == SECRETS


async def test_nobody_seals_with_a_key_that_was_retired(vault: Vault) -> None:
    stale = read_keyring(vault.settings)
    await vault.rotate()
    [new] = read_keyring(vault.settings).keys
    vault.settings.key_file.write_text(Keyring((*stale.keys, new)).text())
    async with vault.ledger() as connection:
        with pytest.raises(SealError, match="was retired by `tocsin key rotate`"):
            await load_sealer(connection, vault.settings)
        vault.settings.key_file.write_text(stale.text())
        with pytest.raises(SealError, match="not the one that this ledger's secrets are sealed with"):
            await load_sealer(connection, vault.settings)


async def test_a_running_worker_uses_a_changed_file_and_never_one_that_is_somebody_elses(vault: Vault) -> None:
    ours = read_keyring(vault.settings)
    new = MasterKey.generate()
    pool = open_pool(vault.url, size=2)
    await pool.open()
    try:
        keys = ProcessKeys(vault.settings)
        async with pool.connection() as connection:
            sealer = await keys.load(connection)
        assert not await keys.renew(pool)
        vault.settings.key_file.write_text(Keyring((*ours.keys, new)).text())
        assert await keys.renew(pool)
        assert keys.ids == sealer.keyring.ids == (ours.primary.id, new.id)
        vault.settings.key_file.write_text(Keyring.generate().text())
        assert not await keys.renew(pool)
        assert keys.ids == (ours.primary.id, new.id)
        vault.settings.key_file.write_text(Keyring((new, *ours.keys)).text())
        assert await keys.renew(pool)
        assert keys.ids == (new.id, ours.primary.id)
    finally:
        await pool.close()


async def test_a_running_worker_never_seals_with_a_retired_key_of_an_old_copy_of_the_file(vault: Vault) -> None:
    stale = read_keyring(vault.settings)
    await vault.rotate()
    current = read_keyring(vault.settings)
    async with open_pool(vault.url, size=2) as pool:
        keys = ProcessKeys(vault.settings)
        async with pool.connection() as connection:
            sealer = await keys.load(connection)
        vault.settings.key_file.write_text(Keyring((*stale.keys, *current.keys)).text())
        sealed = sealer.seal("x", purpose=PASSWORD_PURPOSE, row_id="1")
        assert sealer.with_keys(current).open(sealed, purpose=PASSWORD_PURPOSE, row_id="1") == "x"
        assert not await keys.renew(pool)
        assert keys.ids == current.ids


async def test_a_file_that_was_away_for_a_moment_is_used_again(vault: Vault) -> None:
    file = vault.settings.key_file
    async with open_pool(vault.url, size=2) as pool:
        keys = ProcessKeys(vault.settings)
        async with pool.connection() as connection:
            sealer = await keys.load(connection)
        ours = file.rename(file.with_name("ours"))
        file.write_text(Keyring.generate().text())
        file.chmod(0o600)
        with pytest.raises(UnknownKeyError):
            sealer.seal("x", purpose=PASSWORD_PURPOSE, row_id="1")
        ours.rename(file)
        assert await keys.renew(pool)
        assert sealer.seal("x", purpose=PASSWORD_PURPOSE, row_id="1")


def test_every_sealed_column_of_the_ledger_is_known_to_the_rotation(vault: Vault) -> None:
    columns = vault.change(
        "SELECT table_name || '.' || column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name LIKE 'sealed%%' AND table_name NOT IN"
        " (SELECT table_name FROM information_schema.views WHERE table_schema = 'public')"
    )
    assert {name for (name,) in columns} == PURPOSES.keys() - {KEY_CHECK_PURPOSE}


async def test_a_rotation_goes_through_pgbouncer_in_transaction_mode(
    vault: Vault, postgres_server: PostgresServer
) -> None:
    with PgBouncer(or_skip(pgbouncer.from_debian()), postgres_server.url, pool_size=3) as bouncer:
        through = Vault(bouncer.url_for(vault.url), vault.settings)
        await through.rotate()
        assert await through.opened() == SECRETS
    assert len(vault.keys) == 1
