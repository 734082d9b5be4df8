"""Settings that stand in files, as containers get their secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tocsin_schema.errors import ConfigurationError
from tocsin_schema.settings import read_settings

if TYPE_CHECKING:
    from pathlib import Path

URLS = {
    "DATABASE_URL": "postgresql://tocsin:hunter2@db:5432/tocsin",
    "BROKER_URL": "amqps://tocsin:hunter2@rabbit/vhost",
}


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
