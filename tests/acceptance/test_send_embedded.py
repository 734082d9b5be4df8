"""`tocsin send` on one machine while `tocsin up` does not run: nothing is lost, and nobody waits for ever."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import CommandLine
from tocsin_console.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[CommandLine]:
    # Not under tmp_path, whose closed directories the server's own user cannot pass when the tests run as root.
    directory = Path(tempfile.mkdtemp(prefix="tocsin-test-send-"))
    directory.chmod(0o711)
    yield CommandLine(monkeypatch, capsysbinary, directory, None)
    EmbeddedPostgres(directory).destroy()
    shutil.rmtree(directory, ignore_errors=True)


def test_without_up_the_job_is_kept_and_waiting_for_it_ends_at_once(embedded: CommandLine) -> None:
    postgres = EmbeddedPostgres(embedded.data_dir)
    postgres.start()  # kept running, so that each command does not start it anew
    embedded.ok("migrate")
    embedded.ok(
        "profile", "add", "news", "--provider", "custom", "--host", "127.0.0.1", "--tls", "none", "--auth", "none",
        "--from", "news@example.org",
    )  # fmt: skip
    arguments = ("send", "--profile", "news", "--subject", "Hello", "--text-file", "-", "--to", "ann@example.org")
    stored = embedded.ok(*arguments, stdin=b"Text")
    assert "nothing is sending now: start `tocsin up`" in stored.errors
    waited = embedded(*arguments, "--wait", "--json", stdin=b"Text")
    assert waited.code == 1
    assert "nothing is sending now: start `tocsin up`" in waited.errors
    assert waited.json["job"] is None
    assert waited.json["published"] is True
    embedded.database_url = postgres.url
    assert embedded.rows("SELECT count(*) FROM dramatiq.queue WHERE queue_name = 'tocsin.intake.normal'") == [(2,)]
