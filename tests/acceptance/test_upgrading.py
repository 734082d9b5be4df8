"""An upgrade under load: the release before and the next one side by side, and nobody is lost or written to twice."""

from __future__ import annotations

import subprocess
import sys
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.servers.availability import Unavailable
from tests.servers.faults import ledger
from tests.servers.faults.load import wave
from tests.servers.faults.mail_control import Configuration
from tests.servers.faults.mail_events import Accepted, MailEvent, MailEvents
from tests.servers.faults.mail_server import MailServerProcess
from tests.servers.faults.publishing import Upstream
from tests.servers.faults.report import Allowance, Published, compare
from tests.servers.installation import CLIENT_ID, CLIENT_SECRET, TENANT_ID, Installation
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.releases import PREVIOUS, Release, next_release, of_commit
from tocsin_schema.ledger.migration_steps import migrations, newest_version
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROCESSES = 2
PROFILES = {"by-token": ("--connections", "2"), "plain": ("--connections", "3")}
RECIPIENTS_A_WAVE = 150
PAUSE_SECONDS = 0.3
SECONDS_A_MESSAGE = 0.05
#: What the next release takes away: workers may no longer keep to themselves what they know.
NEXT_VERSION = newest_version() + 1
TAKES_AWAY = f"{NEXT_VERSION:04}_known_versions.after"
TAKES_AWAY_SQL = "ALTER TABLE workers ALTER COLUMN schema_version SET NOT NULL;\n"


class Upgraded(Installation):
    """An installation whose commands and new workers are of the release that it has been `moved` to."""

    def __init__(self, directory: Path, database_url: str, broker_url: str) -> None:
        super().__init__(directory, database_url, broker_url)
        self.environment["TOCSIN_METRICS_PORT"] = "0"
        self.mail = MailServerProcess(
            Configuration(
                directory=str(directory / "mail"),
                client_id=CLIENT_ID,
                client_secret=CLIENT_SECRET,
                seed=1,
                seconds_a_message=SECONDS_A_MESSAGE,
                token_seconds=30,
            )
        )
        self._mail_events = MailEvents(self.mail.whereabouts.events)
        self.events: list[MailEvent] = []

    def move(self, release: Release) -> None:
        """Run another release's code from now on."""
        self.environment |= release.environment

    def run(self, *arguments: str, given: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of that release, in a Python of its own: others are forked from the code under test."""
        merged = {**self.environment, **environment}
        return subprocess.run(
            [sys.executable, "-m", "tocsin_console", *arguments],
            env={name: value for name, value in merged.items() if value}, input=given or "",
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def make_profiles(self) -> None:
        """Make a profile that logs in by OAuth, and one that does not log in."""
        there = self.mail.whereabouts
        secret = self.directory / "secret"
        secret.write_text(CLIENT_SECRET)
        self.tocsin(
            "oauth", "add", "campus", "--provider", "custom", "--token-endpoint", there.token_endpoint,
            "--scope", "https://mail.campus.example/.default", "--tenant-id", TENANT_ID,
            "--client-id", CLIENT_ID, "--client-secret-file", str(secret), "--ca-file", there.ca_file,
        )  # fmt: skip
        signs_in = ("--port", str(there.token_port), "--tls", "implicit", "--ca-file", there.ca_file,
                    "--auth", "oauth", "--oauth", "campus")  # fmt: skip
        plain = ("--port", str(there.plain_port), "--tls", "none", "--auth", "none")
        for (name, limits), options in zip(PROFILES.items(), (signs_in, plain), strict=True):
            self.tocsin(
                "profile", "add", name, "--provider", "custom", "--host", "localhost", "--batch-size", "10",
                "--from", f"{name}@campus.example", *limits, *options,
            )  # fmt: skip

    def versions(self) -> list[tuple[int | None, int]]:
        """Give how many worker processes are there of each schema version that they say they know."""
        return [(version, count) for version, count in self.query(
            "SELECT schema_version, count(*)::int FROM workers GROUP BY 1 ORDER BY 1 NULLS FIRST"
        )]  # fmt: skip

    def end(self, supervisor: subprocess.Popen[bytes]) -> None:
        """End one supervisor's workers in good order."""
        supervisor.terminate()
        assert supervisor.wait(PATIENCE_SECONDS) == 0
        self.supervisors.remove(supervisor)

    def accepted(self) -> int:
        """Count the messages that the mail server has taken."""
        self.events += self._mail_events.read_new()
        return sum(isinstance(event, Accepted) for event in self.events)

    def wait_for_mail(self, *, more: int = 10) -> None:
        """Wait until so many more messages have gone out."""
        wanted = self.accepted() + more
        self.wait_until(lambda: self.accepted() >= wanted, f"{more} more messages go out")

    def wait_for_log(self, text: str) -> None:
        """Wait until a worker says something."""
        self.wait_until(lambda: text in self.log.read_text(errors="replace"), f"a worker says {text!r}")

    def stop(self) -> None:
        """End everything."""
        try:
            super().stop()
        finally:
            self.mail.stop()


@pytest.fixture
def installation(tmp_path: Path, empty_database_url: str, broker_url: str) -> Iterator[Upgraded]:
    installation = Upgraded(tmp_path, empty_database_url, broker_url)
    try:
        yield installation
    finally:
        installation.stop()


class Load:
    """Upstream systems that publish jobs of every sort, one after the other."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._choice = Random(6)
        self._upstreams: list[Upstream] = []

    def go_on(self) -> None:
        """Publish some more, and do not wait for it."""
        jobs = wave(self._choice, f"w{len(self._upstreams)}", RECIPIENTS_A_WAVE, list(PROFILES))
        urls = {"broker_url": self._installation.broker_url, "database_url": self._installation.database_url}
        self._upstreams.append(Upstream((*jobs.before, *jobs.amidst), **urls, pause=PAUSE_SECONDS))

    def finish(self) -> list[Published]:
        """Wait until all is published; give it."""
        return [job for upstream in self._upstreams for job in upstream.finish()]


def test_old_and_new_workers_side_by_side_lose_nobody_and_write_to_nobody_twice(
    installation: Upgraded, tmp_path: Path
) -> None:
    old = of_commit(PREVIOUS)
    if isinstance(old, Unavailable):
        # Nothing can be fetched that would help: a tree without its history is a fine place to run the other tests in.
        pytest.skip(old.reason)
    new = next_release(tmp_path / "next", migration=TAKES_AWAY, sql=TAKES_AWAY_SQL)

    installation.move(old)
    installation.tocsin("migrate")
    write_new_key_file(installation.directory / "master.key")
    old_workers = installation.start_workers(processes=PROCESSES)
    installation.make_profiles()
    load = Load(installation)
    load.go_on()
    installation.wait_for_mail()

    # Kubernetes starts new pods beside the migration: they wait for it.
    installation.move(new)
    new_workers = installation.start_workers(processes=PROCESSES)
    installation.wait_for_log("which this release needs. Run `tocsin migrate --before`")
    load.go_on()
    begun = time.time()
    assert f"applied {migrations()[-1].name}" in installation.tocsin("migrate", "--before")
    ended = time.time()
    installation.wait_until(
        lambda: installation.versions() == [(None, PROCESSES), (NEXT_VERSION, PROCESSES)], "both releases' workers run"
    )
    load.go_on()
    installation.wait_for_mail(more=30)
    assert [event for event in installation.events if isinstance(event, Accepted) and begun < event.at < ended]

    refused = installation.run("migrate", "--after")
    assert refused.returncode == 1
    assert f"{TAKES_AWAY} waits: workers of an older release are alive on " in refused.stderr
    assert f"(all, {PROCESSES} processes)" in refused.stderr

    load.go_on()
    installation.end(old_workers)
    assert installation.versions() == [(NEXT_VERSION, PROCESSES)]
    assert installation.tocsin("migrate", "--after") == f"applied {TAKES_AWAY}\n"
    load.go_on()
    installation.wait_for_mail()

    # A pod of the release before that comes back finds out, and does no harm.
    installation.move(old)
    late = installation.start_workers(processes=1)
    installation.wait_for_log("was set up by a newer release")
    installation.end(late)

    published = load.finish()
    ids = [job.id for job in published]
    installation.wait_until(lambda: not ledger.unfinished(installation.database_url, ids), "all jobs are finished")
    installation.accepted()
    report = compare(
        published, ledger.read_jobs(installation.database_url, ids), installation.events, Allowance(duplicates=0)
    )
    assert report.problems == ()
    assert report.sent == report.recipients == sum(len(job.addresses) for job in published)
    installation.end(new_workers)
    assert installation.query("SELECT 1 FROM workers") == []
