"""What is taken for a setting and what is refused, by name; URLs also from files, as containers get their secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tocsin_schema.errors import ConfigurationError
from tocsin_schema.settings import LogLevel, read_settings

if TYPE_CHECKING:
    from pathlib import Path

URLS = {
    "DATABASE_URL": "postgresql://tocsin:hunter2@db:5432/tocsin",
    "BROKER_URL": "amqps://tocsin:hunter2@rabbit/vhost",
}
SCHEMES = {"DATABASE_URL": "postgresql", "BROKER_URL": "amqp"}
MISTAKEN = [
    "//tocsin:geh/eim17@127.0.0.1:55432/tocsin",
    "//tocsin:geh/ei@eim17@127.0.0.1/tocsin",
    "//tocsin:geh@ei/eim17@127.0.0.1/tocsin",
    "//tocsin:geh?ei@eim17@127.0.0.1/tocsin",
    "//tocsin:12/34eim17@127.0.0.1/tocsin",
    "//tocsin:geh?host=ei/eim17@127.0.0.1/tocsin",
    "//toc/sin:eim17@127.0.0.1/tocsin",
]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*URLS, *(f"{name}_FILE" for name in URLS)):
        monkeypatch.delenv(f"TOCSIN_{name}", raising=False)


def in_force(name: str) -> str | None:
    value = getattr(read_settings(), name.lower())
    return None if value is None else value.get_secret_value()


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_url_is_read_from_a_file(name: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "url"
    file.write_text(URLS[name] + ending)
    monkeypatch.setenv(f"TOCSIN_{name}_FILE", str(file))
    assert in_force(name) == URLS[name]
    monkeypatch.setenv(f"TOCSIN_{name}", URLS[name] + "2")
    assert in_force(name) == URLS[name] + "2"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        *((name, url) for name in URLS for url in MISTAKEN),
        # libpq ends the password at the first @, the library for AMQP at the last.
        ("DATABASE_URL", "//tocsin:geh@eim17@127.0.0.1:55432/tocsin"),
        # Here the library for AMQP ends the host, and libpq does not.
        ("BROKER_URL", "//tocsin:12?eim17@127.0.0.1:5432/tocsin"),
        ("BROKER_URL", "//tocsin:12#eim17@127.0.0.1:5432/tocsin"),
    ],
)
def test_a_url_of_which_a_piece_of_the_password_would_be_taken_for_the_host_is_refused(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(f"TOCSIN_{name}", f"{SCHEMES[name]}:{url}")
    with pytest.raises(ConfigurationError, match=f"TOCSIN_{name} .* / as %2F, @ as %40") as refused:
        read_settings()
    assert "eim17" not in str(refused.value)
    assert "geh" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgresql://tocsin:a%2Fb%40c@one:5432,two:5432/tocsin?target_session_attrs=read-write"),
        ("DATABASE_URL", "postgresql:///tocsin?host=/run/postgresql&user=tocsin@org&password=a@b"),
        ("DATABASE_URL", "postgresql://tocsin:hunter2@%2Frun%2Fpostgresql/tocsin"),
        ("DATABASE_URL", "postgresql://tocsin:hunter2@[::1]:5432/tocsin?user=tocsin@org"),
        ("DATABASE_URL", "postgres://db?sslmode=require"),
        ("DATABASE_URL", "postgresql://tocsin:what?#!@db/tocsin"),
        ("BROKER_URL", "amqp://tocsin:a%2Fb%40c@rabbit:5672/%2Fmail?heartbeat=30"),
        ("BROKER_URL", "amqp://tocsin:geh@eim17@rabbit:5672/tocsin"),
        ("BROKER_URL", "amqps://rabbit"),
    ],
)
def test_a_url_that_says_plainly_what_is_what_is_taken(name: str, url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"TOCSIN_{name}", url)
    assert in_force(name) == url


@pytest.mark.parametrize("word", ["debug", "Info", "WARNING", "ERROR"])
def test_the_log_level_is_one_of_four_words_in_any_case(word: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOCSIN_LOG_LEVEL", word)
    assert read_settings().log_level is LogLevel(word.upper())


@pytest.mark.parametrize("word", ["loud", "", "10"])
def test_another_log_level_is_refused_by_name_with_the_words_there_are(word: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOCSIN_LOG_LEVEL", word)
    with pytest.raises(ConfigurationError, match=r"TOCSIN_LOG_LEVEL .*'DEBUG', 'INFO', 'WARNING' or 'ERROR'"):
        read_settings()


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("content", [None, b"", b"\xff", b"hunter2", b"two hunter2", b"h" * 100_000])
def test_a_file_without_a_url_is_refused_by_name_without_what_it_holds(
    name: str, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv(f"TOCSIN_{name}_FILE", str(file))
    with pytest.raises(ConfigurationError, match=f"TOCSIN_{name} is not usable") as refused:
        read_settings()
    assert "hunter2" not in str(refused.value)


def test_without_variable_and_file_the_embedded_servers_are_used():
    assert [in_force(name) for name in URLS] == [None, None]


def test_variables_that_are_set_to_nothing_are_as_good_as_unset(monkeypatch: pytest.MonkeyPatch):
    for name in URLS:
        monkeypatch.setenv(f"TOCSIN_{name}", "")
        monkeypatch.setenv(f"TOCSIN_{name}_FILE", "")
    assert [in_force(name) for name in URLS] == [None, None]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("TOCSIN_DATABSE_URL", "TOCSIN_DATABASE_URL"),
        ("TOCSIN_DATABASEURL", "TOCSIN_DATABASE_URL"),
        ("TOCSIN_DATABASE_URL_FILES", "TOCSIN_DATABASE_URL_FILE"),
        ("TOCSIN_BROKER_URI", "TOCSIN_BROKER_URL"),
        ("TOCSIN_WORKER_PROCESS", "TOCSIN_WORKER_PROCESSES"),
        ("TOCSIN_METRIC_PORT", "TOCSIN_METRICS_PORT"),
        ("tocsin_log_levle", "TOCSIN_LOG_LEVEL"),
    ],
)
def test_a_variable_that_is_nearly_one_of_ours_is_refused_with_the_one_that_is_meant(
    written: str, meant: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(written, "hunter2")
    with pytest.raises(
        ConfigurationError, match=rf"{written} is no setting of Tocsin's\. Rename it to {meant},"
    ) as refused:
        read_settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "others",
    [
        "TOCSIN_TEST_DATABASE_URL",
        "TOCSIN_TEST_BROKER_URL",
        "TOCSIN_METRICS_PORT_9191_TCP",
        "TOCSIN_POSTGRES_SERVICE_HOST",
        "TOCSIN_VERSION",
        "MY_TOCSIN_DATABSE_URL",
        "DATABSE_URL",
    ],
)
def test_variables_of_others_are_let_be(others: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(others, "tcp://10.0.0.7:9191")
    assert read_settings().is_embedded


def test_our_variables_may_be_written_in_lower_case(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("tocsin_worker_processes", "3")
    assert read_settings().worker_processes == 3
