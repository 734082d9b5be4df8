"""What tests with a mail server of their own share: a ledger a module, servers a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers.checked_profiles import CheckedInstallation, checked_installation
from tests.servers.office import Office, open_office
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("check") / "master.key"
    write_new_key_file(file)
    return file


@pytest.fixture
async def installation(ledger_url: str, key_file: Path) -> AsyncIterator[CheckedInstallation]:
    async with checked_installation(ledger_url, key_file) as running:
        yield running


@pytest.fixture
async def office(ledger_url: str, key_file: Path) -> AsyncIterator[Office]:
    """A worker process's runtime with a scripted mail server and a profile that leads there."""
    async with open_office(ledger_url, key_file) as office:
        yield office
