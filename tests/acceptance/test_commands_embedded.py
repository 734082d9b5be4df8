"""Commands without TOCSIN_DATABASE_URL: they bring their own Postgres, and leave nothing behind."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import CommandLine
from tocsin_console.embedded import EmbeddedPostgres
from tocsin_console.reading.session import ledger_url
from tocsin_schema.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not under tmp_path, whose closed directories the server's own user cannot pass when the tests run as root.
    directory = Path(tempfile.mkdtemp(prefix="tocsin-test-embedded-"))
    directory.chmod(0o711)
    yield directory
    EmbeddedPostgres(directory).destroy()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def embedded(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], data_dir: Path
) -> CommandLine:
    return CommandLine(monkeypatch, capsysbinary, data_dir, None)


def test_the_first_command_makes_the_ledger_and_the_key_and_stops_the_server_again(embedded: CommandLine) -> None:
    assert embedded.ok("job", "list", "--json").raw == b""
    assert (embedded.data_dir / "master.key").exists()
    assert not EmbeddedPostgres(embedded.data_dir).is_running()
    embedded.ok("setting", "set", "RetryFirstDelaySeconds", "45")
    assert embedded.ok("setting", "get", "RetryFirstDelaySeconds", "--json").json["value"] == 45


def test_a_server_that_runs_already_is_used_and_left_running(embedded: CommandLine) -> None:
    postgres = EmbeddedPostgres(embedded.data_dir)
    postgres.start()
    assert embedded("migrate", "--check").code == 3
    embedded.ok("migrate")
    embedded.ok("job", "list")
    assert postgres.is_running()


def test_the_last_of_several_users_stops_the_server(embedded: CommandLine) -> None:
    postgres = EmbeddedPostgres(embedded.data_dir)
    entered, leave = threading.Event(), threading.Event()

    def use() -> None:
        with ledger_url(read_settings()):
            entered.set()
            leave.wait(60)

    other = threading.Thread(target=use)
    other.start()
    assert entered.wait(60)
    embedded.ok("job", "list")
    assert postgres.is_running(), "somebody still uses it"
    leave.set()
    other.join()
    assert not postgres.is_running()


def test_a_failing_command_stops_the_server_too(embedded: CommandLine) -> None:
    assert embedded("job", "show", "42").code == 2
    assert not EmbeddedPostgres(embedded.data_dir).is_running()


def test_the_sweeper_is_called_through_the_ledgers_own_queues(embedded: CommandLine) -> None:
    assert "Start `tocsin up`" in embedded.ok("sweep").errors
    assert not EmbeddedPostgres(embedded.data_dir).is_running()


@pytest.mark.usefixtures("logging_as_before")
def test_without_the_key_file_a_ledger_can_be_looked_at_and_halted_and_nothing_that_needs_the_key_begins(
    embedded: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = ("setting", "set", "EmailPassword", "--host", "smtp.example.org", "--value-file", "-")
    with ledger_url(read_settings()):
        embedded.ok(*secret, stdin=b"x")
        missing = embedded.data_dir / "nosuch.key"
        monkeypatch.setenv("TOCSIN_MASTER_KEY_FILE", str(missing))
        embedded.ok("status")
        embedded.ok("job", "list")
        embedded.ok("pause", "--reason", "the key is away")
        embedded.ok("resume", "--yes")
        for outcome in (embedded(*secret, stdin=b"y"), embedded("worker"), embedded("key", "rotate")):
            assert outcome.code == 1
            assert f"{missing} does not exist" in outcome.errors
            assert "TOCSIN_MASTER_KEY_FILE" in outcome.errors
            assert "key init" not in outcome.errors
        assert not missing.exists()
