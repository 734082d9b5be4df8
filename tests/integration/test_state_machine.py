"""The ledger's state machine and the SMTP dialogue's outcomes, driven together by chance, on a real Postgres.

Parts come twice and in any order, workers are killed, frozen past their leases and woken again, cut off from the ledger
before and after commits, servers refuse, cut and fall silent at every step, people pause, cancel, retry and settle, and
time passes: after every single move the invariants of `state_model` hold, and in the end everybody has a final state.

With TOCSIN_TEST_LONG=1 it plays for minutes, and differently each time. A failure shows the shortest play that fails.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.servers.gates import Place
from tests.servers.played_chance import Play, play_of, shortened
from tests.servers.played_job import PlayedJob
from tests.servers.played_scene import WINDOW, JobPlan
from tests.servers.played_worker import LedgerAccess, Pace
from tests.servers.virtual_clock import VirtualClock, VirtualTimeLoop, make_ledger
from tocsin_schema.contract.part import Mode
from tocsin_workers import sender
from tocsin_workers.sender import claiming, recording, windows
from tocsin_workers.smtp.pipelining import Pipelining

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from tests.servers.postgres import PostgresServer

IS_LONG: Final = os.environ.get("TOCSIN_TEST_LONG") == "1"

#: What all plays together must have come across, or they would show nothing.
INTERESTING: Final = frozenset(
    {
        *("buried worker thawed", "stopped in the middle", "the ledger is away"),
        *("delivery in doubt", "double", "held in doubt", "late part", "part taken in twice"),
        *("in_flight to unknown", "in_flight to failed", "unknown to sent", "pending to expired"),
    }
)


@dataclass(slots=True)
class Stage:
    """Where all plays take place: one ledger, and one event loop."""

    loop: asyncio.AbstractEventLoop
    access: LedgerAccess
    clock: VirtualClock
    seen: Counter[str] = field(default_factory=Counter[str])

    def play(self, play: Play) -> PlayedJob:
        """Play a job from its first part to its end."""
        job = PlayedJob(self.access, self.clock, play.plan, self.seen)
        self.loop.run_until_complete(job.play(play.moves))
        return job

    def fails(self, play: Play) -> bool:
        """Play, and tell whether it came out badly."""
        try:
            self.play(play)
        except Exception:  # noqa: BLE001  # whatever it is, it shall not happen
            return True
        return False


@pytest.fixture(scope="module")
def stage(postgres_server: PostgresServer) -> Iterator[Stage]:
    url = postgres_server.create_database()
    make_ledger(url)
    loop = VirtualTimeLoop()
    connection = loop.run_until_complete(psycopg.AsyncConnection.connect(url, autocommit=True))
    yield Stage(loop, LedgerAccess(connection), VirtualClock(connection, loop))
    loop.run_until_complete(connection.close())
    loop.close()
    postgres_server.drop_database(url)


@pytest.fixture(autouse=True)
def _small_and_timeless(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", WINDOW)
    monkeypatch.setattr(windows, "MARKED_AT_ONCE", WINDOW // 2)
    monkeypatch.setattr(claiming, "RELEASE_RETRY_SECONDS", 0)
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0)
    monkeypatch.setattr(recording, "GATHERING_SECONDS", 0)
    for module in map(import_module, (f"{sender.__name__}.{one.name}" for one in iter_modules(sender.__path__))):
        for clock in {"monotonic", "lease_clock"} & vars(module).keys():
            monkeypatch.setattr(module, clock, stage.clock.read)


def test_whatever_happens_nobody_is_lost_and_every_double_is_explained(stage: Stage) -> None:
    @given(st.integers(0, 2**32 - 1))
    @settings(
        max_examples=500 if IS_LONG else 60,
        deadline=None,
        derandomize=not IS_LONG,
        database=None,
        phases=[Phase.generate],
    )
    def play_by_chance(seed: int) -> None:
        play = play_of(seed, moves=80 if IS_LONG else 40)
        try:
            stage.play(play)
        except Exception as error:
            error.add_note(f"The shortest play that fails, of seed {seed}: {shortened(play, stage.fails)}")
            raise

    play_by_chance()
    print(*sorted(f"{count:6} {what}" for what, count in stage.seen.items()), sep="\n")  # noqa: T201  # shown where it fails
    assert stage.seen.keys() >= INTERESTING, stage.seen


@pytest.mark.parametrize("pipelining", list(Pipelining))
@pytest.mark.parametrize("gates_before", [0, 5], ids=lambda gates: f"slow after {gates} gates")
def test_a_kill_puts_no_more_than_a_window_in_doubt_however_slow_the_recorder_is(
    stage: Stage, pipelining: Pipelining, gates_before: int
) -> None:
    plan = JobPlan(mode=Mode.INDIVIDUAL, parts=(12,), batch_size=4, pipelining=pipelining)
    moves = (
        ("go_on", 0, 0, gates_before, []),
        ("change_pace", 0, Pace.HOLDS_OUTCOMES),
        ("go_on", 0, 0, 60, []),
        ("kill", 0),
    )
    played = stage.play(Play(plan, moves))
    assert max(delivery.worker.most_in_doubt for delivery in played.mail.deliveries) == WINDOW


@pytest.mark.parametrize("pipelining", list(Pipelining))
@pytest.mark.parametrize("place", [Place.BODY, Place.REPLY])
def test_who_was_frozen_past_his_lease_begins_no_body_when_he_goes_on(
    stage: Stage, pipelining: Pipelining, place: Place
) -> None:
    plan = JobPlan(mode=Mode.INDIVIDUAL, parts=(12,), batch_size=4, pipelining=pipelining)
    moves = (("go_on", 0, 0, 7, []), ("freeze_past_the_lease", 0, place), ("thaw", 0), ("go_on", 0, 0, 9, []))
    played = stage.play(Play(plan, moves))  # a body that is begun without a lease ends the play
    assert [len(played.mail.taken(address)) for address in plan.addresses(1)] == [1] * 12
