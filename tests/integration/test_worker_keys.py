"""A worker process whose own key file is not the fleet's: it stands back, and the other workers go on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from dramatiq.brokers.stub import StubBroker
from structlog.testing import capture_logs

from tests.servers.ledger_rows import Profile, add_job
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.vault import QUICK, Vault, fill
from tocsin_schema.errors import UnknownKeyError
from tocsin_schema.ledger import sending
from tocsin_schema.ledger.access_tokens import TOKEN_PURPOSE
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.sending_profiles import PASSWORD_PURPOSE
from tocsin_schema.message_broker.topology import Role
from tocsin_schema.sealing import Keyring, MasterKey, load_sealer, read_keyring, write_new_key_file
from tocsin_schema.settings import Settings
from tocsin_workers.process.runtime import Runtime
from tocsin_workers.sender.slice import SliceResult, work_slice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from uuid import UUID

    from tocsin_schema.ledger.sending import SenderProfile

RANK = 1


@pytest.fixture
async def vault(database_url: str, tmp_path: Path) -> Vault:
    vault = Vault(database_url, Settings(data_dir=tmp_path))
    write_new_key_file(vault.settings.key_file)
    async with vault.ledger() as connection:
        await fill(connection, vault.settings)
    return vault


@asynccontextmanager
async def worker_elsewhere(vault: Vault) -> AsyncIterator[tuple[Runtime, Path]]:
    """Run a worker process's runtime with a copy of the key file of its own."""
    file = vault.settings.key_file.with_name("elsewhere.key")
    file.write_text(vault.settings.key_file.read_text())
    file.chmod(0o600)
    settings = Settings(data_dir=vault.settings.data_dir, master_key_file=file, lease_seconds=2)
    runtime = Runtime(settings, vault.url, Role.SENDER, StubBroker())
    assert await runtime.open()
    try:
        yield runtime, file
    finally:
        await runtime.close()


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - what another process would see
            await asyncio.sleep(0.05)


async def profile_with_mail(vault: Vault) -> UUID:
    """Give the sending profile, with due mail and a server that is not there."""
    [row] = vault.change(
        "UPDATE sending_profiles SET auth = 'basic', host = 'localhost', port = 1 RETURNING id, name, mailbox_id"
    )
    profile = Profile(*row)
    async with vault.ledger() as connection:
        await add_job(connection, profile, recipients=2)
    return profile.id


async def read(vault: Vault, profile_id: UUID) -> SenderProfile:
    async with vault.ledger() as connection:
        profile = await sending.read_sender_profile(connection, profile_id)
    assert profile is not None
    return profile


async def test_a_secret_whose_key_only_this_worker_lacks_pauses_nothing_and_is_logged_once(vault: Vault) -> None:
    profile_id = await profile_with_mail(vault)
    ours = read_keyring(vault.settings)
    promoted = Keyring((MasterKey.generate(), *ours.keys))
    async with vault.ledger() as connection:
        sealer = (await load_sealer(connection, vault.settings)).with_keys(promoted)
    async with worker_elsewhere(vault) as (runtime, file):
        sealed = sealer.seal("password", purpose=PASSWORD_PURPOSE, row_id=str(profile_id))
        vault.change("UPDATE sending_profiles SET sealed_password = %s", sealed)
        with capture_logs() as logs:
            for _ in range(3):
                assert await work_slice(runtime.sender, profile_id, RANK) is SliceResult.FAILED
        profile = await read(vault, profile_id)
        assert (profile.paused_reason, profile.parked_until) == (None, None)
        [told] = [line for line in logs if line["event"] == "this worker cannot send for a profile"]
        assert f"sealed with key {promoted.primary.id}, which is not in the master key file" in told["reason"]
        # With the fleet's file it gets as far as the server.
        file.write_text(promoted.text())
        assert await work_slice(runtime.sender, profile_id, RANK) is SliceResult.FAILED
        profile = await read(vault, profile_id)
        assert profile.paused_reason is None
        assert "localhost" in str(profile.parked_reason)


async def test_a_secret_that_does_not_open_although_the_key_is_there_pauses_the_profile(vault: Vault) -> None:
    profile_id = await profile_with_mail(vault)
    vault.change("UPDATE sending_profiles SET sealed_password = set_byte(sealed_password, 40, 0)")
    vault.change("UPDATE sending_profiles SET sealed_password = set_byte(sealed_password, 41, 0)")
    async with worker_elsewhere(vault) as (runtime, _):
        assert await work_slice(runtime.sender, profile_id, RANK) is SliceResult.FAILED
    assert "does not open in this row" in str((await read(vault, profile_id)).paused_reason)


async def test_a_worker_that_was_cut_off_during_a_rotation_takes_no_work_until_it_has_the_new_file(
    vault: Vault,
) -> None:
    def workers() -> list[tuple[Any, ...]]:
        return vault.change("SELECT key_ids FROM workers")

    async with worker_elsewhere(vault) as (runtime, file):
        sealer = runtime.sender.credentials._sealer
        with capture_logs() as logs:
            async with connect(vault.url) as between:
                # Its heartbeats do not come through until it has been taken for dead.
                await between.execute("LOCK TABLE workers IN SHARE ROW EXCLUSIVE MODE")
                await vault.rotate(replace(QUICK, patience_seconds=20))
                await between.execute("DELETE FROM workers")
            refused = "this worker takes no work: its master keys do not fit the ledger"
            await until(lambda: [line for line in logs if line["event"] == refused])
            beats = runtime.lease.generation
            await until(lambda: runtime.lease.generation > beats + 2)
            assert workers() == []
            assert runtime.lease.is_lost
            with pytest.raises(UnknownKeyError):
                sealer.seal("token", purpose=TOKEN_PURPOSE, row_id="1")
            file.write_text(vault.settings.key_file.read_text())
            await until(workers)
        assert len([line for line in logs if line["event"] == refused]) == 1
        await until(lambda: not runtime.lease.is_lost)
        assert workers() == [(list(vault.keys),)]
        assert sealer.seal("token", purpose=TOKEN_PURPOSE, row_id="1")
