"""No secret appears in any output, log or table in clear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.servers.installation import CLIENT_SECRET
from tocsin_schema.ledger.access_tokens import TOKEN_PURPOSE
from tocsin_schema.sealing import Keyring, Sealer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.installation import Installation

PASSWORD = "the-password-of-a-profile-in-clear"
SHARED_PASSWORD = "the-password-of-the-installation"
SHOWING = [
    ["status"],
    ["oauth", "list"],
    ["oauth", "show", "campus"],
    ["profile", "list"],
    ["profile", "show", "alerts"],
    ["profile", "show", "with-password"],
    ["setting", "list"],
    ["setting", "get", "EmailPassword"],
    ["job", "list"],
    ["dead-letter", "list"],
]


@pytest.fixture(scope="session")
def secrets(installation: Installation) -> list[str]:
    """Every secret that the installation holds, in clear: those given to it, and those that it obtained."""
    installation.tocsin(
        "profile", "add", "with-password", "--provider", "custom", "--host", "localhost", "--from",
        "pw@campus.example", "--auth", "basic", "--password-file", "-", given=PASSWORD,
    )  # fmt: skip
    installation.tocsin("setting", "set", "EmailUsername", "shared@campus.example")
    installation.tocsin(
        "setting", "set", "EmailPassword", "--host", "localhost", "--value-file", "-", given=SHARED_PASSWORD
    )
    job = installation.job()
    installation.publish(job)
    installation.wait_for_job(job["id"])
    return [CLIENT_SECRET, PASSWORD, SHARED_PASSWORD, *tokens(installation), *master_keys(installation)]


def master_keys(installation: Installation) -> list[str]:
    lines = (installation.directory / "master.key").read_text().split()
    return [word for word in lines if len(word) > 30]


def tokens(installation: Installation) -> list[str]:
    [(unique_id,)] = installation.query("SELECT value FROM settings WHERE key = 'DatabaseUniqueID'")
    sealer = Sealer(Keyring.parse((installation.directory / "master.key").read_text()), unique_id)
    rows = installation.query("SELECT id, sealed_token FROM access_tokens WHERE sealed_token IS NOT NULL")
    found = [sealer.open(bytes(sealed), purpose=TOKEN_PURPOSE, row_id=str(row_id)) for row_id, sealed in rows]
    assert found
    return found


@pytest.mark.parametrize("arguments", SHOWING, ids=" ".join)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_no_command_shows_a_secret(
    installation: Installation, secrets: list[str], arguments: list[str], form: list[str]
) -> None:
    ended = installation.run(*arguments, *form)
    assert ended.returncode == 0, ended.stderr
    for secret in secrets:
        assert secret not in ended.stdout + ended.stderr


def test_no_log_line_shows_a_secret(installation: Installation, secrets: list[str]) -> None:
    log = installation.log.read_text()
    assert "part taken in" in log
    for secret in secrets:
        assert secret not in log


def test_no_table_holds_a_secret_in_clear(installation: Installation, secrets: list[str]) -> None:
    with psycopg.connect(installation.database_url) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert ("public", "access_tokens") in tables
        for schema, table in tables:
            name = sql.Identifier(schema, table)
            rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(name)).fetchall()
            for (row,) in rows:
                for secret in secrets:
                    assert secret not in row, table
                    assert secret.encode().hex() not in row, table


def test_no_secret_stands_in_a_process_list(installation: Installation, secrets: list[str]) -> None:
    psutil = pytest.importorskip("psutil")
    shown = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert any("tocsin_workers.process" in line for line in shown)
    for secret in secrets:
        assert not any(secret in line for line in shown)


def test_the_master_key_file_is_for_its_owner_only(installation: Installation) -> None:
    file: Path = installation.directory / "master.key"
    assert file.stat().st_mode & 0o077 == 0
