"""Worker processes: when a dead one is started again, and the loop that actors run in."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import dramatiq.asyncio
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.settings import read_settings
from tocsin_workers.process.event_loop import ProcessLoop
from tocsin_workers.supervising.running import child_environment
from tocsin_workers.supervising.supervisor import LONGEST_PAUSE_SECONDS, pause_before_restart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# Restarts


def test_the_first_death_is_answered_at_once_and_further_ones_ever_later():
    assert [pause_before_restart(deaths) for deaths in range(9)] == [0, 0, 0.5, 1, 2, 4, 8, 16, 30]


@given(st.integers(0, 1000))
def test_pauses_grow_and_are_bounded(deaths: int):
    assert 0 <= pause_before_restart(deaths) <= pause_before_restart(deaths + 1) <= LONGEST_PAUSE_SECONDS


def test_a_child_that_dies_for_days_is_still_started_again():
    assert pause_before_restart(100_000) == LONGEST_PAUSE_SECONDS


# What children are told

URL = "postgresql://tocsin@db/tocsin"


def test_children_read_the_file_with_the_ledgers_address_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "url").write_text(URL)
    monkeypatch.delenv("TOCSIN_DATABASE_URL", raising=False)
    monkeypatch.setenv("TOCSIN_DATABASE_URL_FILE", str(tmp_path / "url"))
    environment = child_environment(read_settings(), URL)
    assert environment["TOCSIN_DATABASE_URL_FILE"] == str(tmp_path / "url")
    assert "TOCSIN_DATABASE_URL" not in environment


def test_children_are_told_where_the_embedded_ledger_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TOCSIN_DATABASE_URL", raising=False)
    monkeypatch.delenv("TOCSIN_DATABASE_URL_FILE", raising=False)
    assert child_environment(read_settings(), URL)["TOCSIN_DATABASE_URL"] == URL


# The event loop


@pytest.fixture
def loop() -> Iterator[ProcessLoop]:
    before = dramatiq.asyncio.get_event_loop_thread()
    loop = ProcessLoop()
    loop.begin()
    yield loop
    loop.stop()
    dramatiq.asyncio.set_event_loop_thread(before)


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_coroutines_run_on_uvloop_in_a_thread_that_keeps_no_process_alive(loop: ProcessLoop):
    assert isinstance(loop.run_to_end(running_loop()), uvloop.Loop)
    assert loop.daemon


def test_actors_run_in_the_same_loop(loop: ProcessLoop):
    assert dramatiq.asyncio.async_to_sync(running_loop)() is loop.loop


def test_an_exception_comes_out_where_it_is_waited_for(loop: ProcessLoop):
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        loop.run_to_end(fail())


def test_something_can_be_called_in_the_loop_from_outside(loop: ProcessLoop):
    seen: list[int] = []
    called = threading.Event()

    def act() -> None:
        seen.append(threading.get_ident())
        called.set()

    loop.call(act)
    assert called.wait(PATIENCE_SECONDS)
    assert seen == [loop.ident]


def test_a_stopped_loop_leaves_no_thread_behind():
    loop = ProcessLoop()
    loop.start(timeout=5.0)
    loop.stop()
    assert not loop.is_alive()
    assert loop.loop.is_closed()
