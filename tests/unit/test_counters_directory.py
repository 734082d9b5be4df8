"""A supervisor that was killed leaves its counters behind; the next one removes them, and nobody else's."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from tocsin_workers.supervising.counters_directory import counters_directory

if TYPE_CHECKING:
    from pathlib import Path

#: Linux gives out none so high (proc(5), /proc/sys/kernel/pid_max).
NOBODY = 2**22 + 1


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_there_while_it_is_used(place: Path) -> None:
    with counters_directory() as directory:
        assert list(place.iterdir()) == [directory]
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("supervisor", [NOBODY, os.getpid()], ids=["gone", "one with our id in another life"])
def test_what_a_killed_supervisor_left_behind_goes(place: Path, supervisor: int) -> None:
    left_behind = place / f"tocsin-metrics-{supervisor}-abc" / "counters"
    left_behind.mkdir(parents=True)
    (left_behind / "counter_7.db").touch()
    with counters_directory() as directory:
        assert list(place.iterdir()) == [directory]


@pytest.mark.parametrize("name", [f"tocsin-metrics-{os.getppid()}-abc", "tocsin-metrics-notes", "others"])
def test_what_somebody_uses_stays(place: Path, name: str) -> None:
    (place / name).mkdir()
    with counters_directory():
        pass
    assert [found.name for found in place.iterdir()] == [name]
