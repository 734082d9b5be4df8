"""`tocsin key rotate`, by itself and beside a fleet that sends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
import pytest

from tests.servers.installation import CLIENT_ID, CLIENT_SECRET, TENANT_ID
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.sealing import Keyring, MasterKey

if TYPE_CHECKING:
    from tests.acceptance.command_line import CommandLine
    from tests.servers.installation import Installation


BASIC = ("--provider", "custom", "--host", "smtp.example.org", "--from", "news@example.org", "--auth", "basic")
SWAP = """UPDATE {table} one SET {column} = other.{column} FROM {table} other
          WHERE one.name IN (%s, %s) AND other.name IN (%s, %s) AND one.name <> other.name"""


def keys(file: Path) -> Keyring:
    return Keyring.parse(file.read_text())


def add_basic(tocsin: CommandLine, name: str, password: str) -> None:
    tocsin.ok("profile", "add", name, *BASIC, "--user", name, "--password-file", "-", stdin=password.encode())


def swap(table: str, column: str, one: str, other: str) -> tuple[str, ...]:
    """Give the statement and its parameters that put two rows' sealed values into each other's place."""
    return (SWAP.format(table=table, column=column), one, other, one, other)


def test_rotating_seals_everything_anew_and_takes_the_old_key_out(tocsin: CommandLine) -> None:
    add_basic(tocsin, "one", "tr0ub4dor~and~three")
    file = tocsin.data_dir / "master.key"
    before = keys(file)
    done = tocsin.ok("key", "rotate")
    after = keys(file)
    assert len(after.keys) == 1
    assert after.primary.id != before.primary.id
    assert done.out == ""
    for told in ("is new at the end of", "seals from now on", f"Taken out of {file}: {before.primary.id}", "Done:"):
        assert told in done.errors
    for key in (before.primary, after.primary):
        assert key.line.split()[1] not in done.errors
    ((sealed,),) = tocsin.rows("SELECT sealed_password FROM sending_profiles")
    assert after.primary.id.encode() in bytes(sealed)
    tocsin.ok("profile", "replace-password", "one", "--password-file", "-", stdin=b"another")


def test_passwords_that_changed_places_are_named_with_what_to_do(tocsin: CommandLine) -> None:
    add_basic(tocsin, "one", "first")
    add_basic(tocsin, "other", "second")
    tocsin.rows(*swap("sending_profiles", "sealed_password", "one", "other"))
    stuck = tocsin("key", "rotate")
    assert stuck.code == 1
    for name in ("one", "other"):
        assert f"Not sealed anew: the password of sending profile '{name}'" in stuck.errors
    assert "does not open in this row or database: it was sealed for another one" in stuck.errors
    assert len(keys(tocsin.data_dir / "master.key").keys) == 2
    for name in ("one", "other"):
        tocsin.ok("profile", "replace-password", name, "--password-file", "-", stdin=b"anew")
    tocsin.ok("key", "rotate")
    assert len(keys(tocsin.data_dir / "master.key").keys) == 1


def test_a_single_key_in_the_environment_is_changed_by_a_person(
    tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_MASTER_KEY", MasterKey.generate().line)
    told = tocsin("key", "rotate")
    assert told.code == 2
    assert "TOCSIN_MASTER_KEY cannot be changed by this command" in told.errors
    assert "tocsin key init" in told.errors


def test_ctrl_c_while_it_waits_says_how_to_go_on(tocsin: CommandLine) -> None:
    tocsin.rows(
        "INSERT INTO workers (id, host, pid, role, lease_seconds) VALUES (gen_random_uuid(), 'pod-7', 1, 'all', 600)"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "tocsin_console", "key", "rotate"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        waits = next(line for line in running.stderr if "Waiting" in line)
        assert "pod-7" in waits
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 130
    assert "Run `tocsin key rotate` again to go on" in said
    tocsin.rows("DELETE FROM workers")
    tocsin.ok("key", "rotate")
    assert len(keys(tocsin.data_dir / "master.key").keys) == 1


class Load:
    """Upstream systems that publish, and an operator who adds profiles, for as long as a test wants."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._failure: BaseException | None = None
        self.jobs: list[str] = []
        self.addresses: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while not self._enough.is_set():
                name = f"rotated-{uuid.uuid4().hex[:8]}"
                add_oauth(self._installation, name)
                self._installation.add_profile(name, "--oauth", name, "--from", f"{name}@campus.example")
                for profile in (name, "alerts"):
                    addresses = [f"{uuid.uuid4().hex}@campus.example" for _ in range(30)]
                    recipients = [{"address": address} for address in addresses]
                    job = self._installation.job(profile=profile, mode="individual", recipients=recipients)
                    self._installation.publish(job)
                    self.jobs.append(job["id"])
                    self.addresses += addresses
        except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
            self._failure = error


def add_oauth(installation: Installation, name: str) -> None:
    installation.tocsin(
        "oauth", "add", name, "--provider", "custom", "--token-endpoint", installation.servers.token_endpoint,
        "--scope", "https://mail.campus.example/.default", "--tenant-id", TENANT_ID, "--client-id", CLIENT_ID,
        "--client-secret-file", "-", "--ca-file", str(installation.servers.ca_file), given=CLIENT_SECRET,
    )  # fmt: skip


# One message broker is enough: it knows nothing of keys.
@pytest.mark.parametrize("installation", ["postgres"], indirect=True)
def test_a_fleet_that_sends_notices_nothing_of_a_rotation(installation: Installation) -> None:
    file = Path(installation.environment["TOCSIN_MASTER_KEY_FILE"])
    old = keys(file).primary.id
    with Load(installation) as load:
        said = installation.run("key", "rotate")
    assert said.returncode == 0, said.stderr
    [new] = keys(file).ids
    assert new != old
    finished = "SELECT count(*) FROM jobs WHERE id = ANY (%s) AND state = 'finished'"
    installation.wait_until(
        lambda: installation.query(finished, load.jobs) == [(len(load.jobs),)], "all that was published is sent"
    )
    received = Counter(address for message in installation.received() for address in message.recipients)
    assert {received[address] for address in load.addresses} == {1}
    ours = "(name = 'alerts' OR name LIKE 'rotated-%%')"
    assert installation.query(f"SELECT name FROM sending_profiles WHERE {ours} AND paused_at IS NOT NULL") == []
    installation.wait_until(
        lambda: installation.query("SELECT DISTINCT key_ids FROM workers") == [([new],)], "the old key is out of use"
    )
    used = "SELECT DISTINCT encode(substring(sealed_token FROM 3 FOR get_byte(sealed_token, 1)), 'escape')"
    assert installation.query(f"{used} FROM access_tokens WHERE sealed_token IS NOT NULL") == [(new,)]
    # A worker that starts now has the new key only, and the others' tokens and secrets.
    installation.stop_workers()
    installation.start_workers()
    job = installation.job()
    installation.publish(job)
    assert installation.wait_for_job(job["id"])["recipients"] == {"sent": 1}


@pytest.mark.parametrize("installation", ["postgres"], indirect=True)
def test_a_password_of_another_profile_pauses_with_the_reason_and_is_never_sent(installation: Installation) -> None:
    one, other = (f"moved-{uuid.uuid4().hex[:8]}" for _ in range(2))
    for name in (one, other):
        installation.tocsin("profile", "add", name, *BASIC, "--password-file", "-", given=f"password of {name}")
    with psycopg.connect(installation.database_url) as connection:
        statement, *parameters = swap("sending_profiles", "sealed_password", one, other)
        connection.execute(statement.encode(), parameters)
    job = installation.job(profile=one)
    installation.publish(job)

    def reason() -> str:
        [(reason,)] = installation.query("SELECT paused_reason FROM sending_profiles WHERE name = %s", one)
        return reason or ""

    installation.wait_until(lambda: bool(reason()), f"{one} is paused")
    assert "The password in sending_profiles.sealed_password" in reason()
    assert "does not open in this row or database: it was sealed for another one" in reason()
    assert "tocsin profile replace-password" in reason()
    # What does not open would hold up the other tests' rotations.
    with psycopg.connect(installation.database_url) as connection:
        connection.execute("UPDATE jobs SET state = 'finished', finished_at = now() WHERE id = %s", [job["id"]])
    for name in (one, other):
        installation.tocsin("profile", "remove", name)
