"""The pure parts of the embedded Postgres: reading its files and its words."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tocsin_console.embedded.postmaster import Postmaster, is_postmaster_of, parse_postmaster_file
from tocsin_console.embedded.sockets import fits, url_of
from tocsin_console.embedded.trouble import cause_of, fix_for, is_passing

DATA = Path("/srv/tocsin/postgres/data")
COMPLETE = f"4711\n{DATA}\n1795500000\n5432\n/srv/tocsin/postgres/socket\n\n  1234 5\nready   \n"


def test_a_complete_process_file_names_process_and_socket() -> None:
    assert parse_postmaster_file(COMPLETE) == Postmaster(4711, Path("/srv/tocsin/postgres/socket"))


@pytest.mark.parametrize("lines", [1, 2, 3, 4])
def test_an_unfinished_process_file_names_the_process_only(lines: int) -> None:
    text = "\n".join(COMPLETE.splitlines()[:lines])
    assert parse_postmaster_file(text) == Postmaster(4711, None)


@pytest.mark.parametrize("text", ["", "\n", "-3\n", "word\n/x\n", "²\n"])
def test_a_process_file_without_a_process_number_names_nothing(text: str) -> None:
    assert parse_postmaster_file(text) is None


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        (b"/opt/bin/postgres\0-D\0/srv/tocsin/postgres/data\0-c\0port=5432\0", True),
        (b"/opt/bin/postgres\0-D\0/srv/other/data\0", False),
        (b"/usr/bin/vim\0/srv/tocsin/postgres/data\0", False),
        (b"postgres: checkpointer \0", False),
        (b"\xff\xfe\0", False),
        (b"", False),
    ],
)
def test_only_a_postgres_of_the_same_directory_counts_as_the_server(command_line: bytes, expected: bool) -> None:
    assert is_postmaster_of(DATA, command_line) is expected


@pytest.mark.parametrize("directory", ["/srv/socket", "/srv/a b/ü/100%40", "/srv/a?host=x&y#z"])
def test_the_url_leads_libpq_to_the_socket_whatever_its_path(directory: str) -> None:
    parameters = conninfo_to_dict(url_of(Path(directory)))
    assert parameters == {"host": directory, "port": "5432", "user": "tocsin", "dbname": "tocsin"}


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/" + "x" * 91, True),  # 92 + "/.s.PGSQL.5432" makes 107 - 1
        ("/" + "x" * 92, True),
        ("/" + "x" * 93, False),
        ("/" + "ü" * 46, True),
        ("/" + "ü" * 47, False),
        ("/a,b", False),
    ],
)
def test_a_socket_needs_a_path_of_at_most_107_bytes_without_a_comma(directory: str, expected: bool) -> None:
    assert fits(Path(directory)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it said nothing"),
        ("something\nodd\n", "odd"),
        (
            "2026-11-21 21:27:36 UTC [1] LOG:  starting\n2026-11-21 UTC [1] FATAL:  could not bind\nlater\n",
            "could not bind",
        ),
        (
            'x [1] FATAL:  database files are incompatible with server\nx [1] DETAIL:  Made by "16".\n',
            'database files are incompatible with server (Made by "16")',
        ),
        (
            'initdb: error: could not change "/x": Denied\nhint',
            'initdb: error: could not change "/x": Denied',
        ),
        (
            'FATAL:  could not extend file "b/1": No space left on device\nPANIC:  cannot abort\n',
            'could not extend file "b/1": No space left on device',
        ),
    ],
)
def test_the_cause_is_the_line_that_says_why(text: str, expected: str) -> None:
    assert cause_of(text) == expected


def test_a_full_disk_has_its_own_advice_and_all_else_points_to_the_log() -> None:
    assert "Free some space" in fix_for("could not write: No space left on device", "/x/log")
    assert "/x/log" in fix_for("anything else", "/x/log")


def test_orphans_of_a_killed_server_are_waited_for() -> None:
    assert is_passing("pre-existing shared memory block (key 1, ID 2) is still in use")
    assert not is_passing("could not bind")
