"""What a rotation of the master key does next, from what the key file, the ledger and the workers say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tocsin_console.rotating.steps import (
    Done,
    FetchKeyFile,
    OpenNewKey,
    Promote,
    Reseal,
    Retire,
    Situation,
    Step,
    WaitUntilOpen,
    WaitUntilSealing,
    next_step,
)
from tocsin_schema.ledger.master_keys import KnownKey, LiveWorker

START = datetime(2026, 11, 22, tzinfo=UTC)


def key(key_id: str, opened: int, promoted: int | None = None, retired: int | None = None) -> KnownKey:
    def at(minutes: int) -> datetime:
        return START + timedelta(minutes=minutes)

    return KnownKey(
        key_id,
        at(opened),
        None if promoted is None else at(promoted),
        None if retired is None else at(retired),
    )


OLD = key("old", 0, 0)
OPENED = key("new", 10)
PROMOTED = key("new", 10, 20)
RETIRED = key("old", 0, 0, 30)


def situation(in_file: str, *known: KnownKey, workers: dict[str, str] | None = None, **sealed: int) -> Situation:
    return Situation(
        in_file=tuple(in_file.split()),
        known={one.id: one for one in known},
        workers=tuple(LiveWorker(host, ids.split()) for host, ids in (workers or {}).items()),
        sealed=sealed,
    )


@pytest.mark.parametrize(
    ("now", "step"),
    [
        (situation("old", OLD, old=3), OpenNewKey()),
        (situation("old", OLD), OpenNewKey()),
        (situation("old new", OLD, OPENED, workers={"a": "old new", "b": "old"}, old=3), WaitUntilOpen("new", ("b",))),
        (situation("old new", OLD, OPENED, workers={"a": "old new", "b": "old new"}, old=3), Promote("new")),
        (situation("old new", OLD, OPENED, old=3), Promote("new")),
        (situation("new old", OLD, PROMOTED, workers={"a": "old new"}, old=3), Reseal(3)),
        (situation("new old", OLD, PROMOTED, workers={"a": "old"}, old=3), WaitUntilOpen("new", ("a",))),
        (situation("new old", OLD, PROMOTED, workers={"a": "old new"}, new=3), WaitUntilSealing("new", ("a",))),
        (situation("new old", OLD, PROMOTED, workers={"a": "new old"}, new=2, old=1), Reseal(1)),
        (situation("new old", OLD, PROMOTED, workers={"a": "new old"}, new=3), Retire(("old",))),
        # Taken out of the file, and interrupted before that was noted.
        (situation("new", OLD, PROMOTED, workers={"a": "new old"}, new=3), Retire(("old",))),
        # Kept on purpose: the next rotation is another one.
        (situation("new old", RETIRED, PROMOTED, new=3), OpenNewKey()),
        (situation("new", RETIRED, PROMOTED, new=3), OpenNewKey()),
        # Somebody put a backup of the database back.
        (situation("new old", OLD, PROMOTED, old=3), Reseal(3)),
    ],
)
def test_a_run_begins_where_the_last_one_stopped(now: Situation, step: Step):
    assert next_step(now, begins=True) == step


@pytest.mark.parametrize("in_file", ["new", "new old"])
def test_a_run_that_has_retired_a_key_does_not_begin_another_rotation(in_file: str):
    assert next_step(situation(in_file, RETIRED, PROMOTED, new=3), begins=False) == Done()


def test_a_host_is_named_once_however_many_of_its_processes_lack_the_key():
    now = situation("old new", OLD, OPENED, old=1)
    workers = tuple(LiveWorker("pod-1", ["old"]) for _ in range(3))
    step = next_step(replace(now, workers=workers), begins=True)
    assert step == WaitUntilOpen("new", ("pod-1 (3 processes)",))


def test_a_worker_of_an_earlier_release_that_tells_no_keys_is_waited_for():
    now = situation("old new", OLD, OPENED, workers={"a": ""}, old=1)
    assert next_step(now, begins=True) == WaitUntilOpen("new", ("a",))


def test_a_key_that_a_rotation_elsewhere_has_opened_is_not_passed_over():
    now = situation("old", OLD, OPENED, workers={"there": "old new", "here": "old"}, old=1)
    assert next_step(now, begins=True) == FetchKeyFile("new", ("there",))
    promoted = situation("old", OLD, PROMOTED, workers={"there": "new old"}, old=1)
    assert next_step(promoted, begins=True) == FetchKeyFile("new", ("there",))


def test_a_key_that_was_opened_and_that_nobody_has_is_forgotten():
    now = situation("old", OLD, OPENED, workers={"here": "old"}, old=1)
    assert next_step(now, begins=True) == OpenNewKey()
    later = situation("newer old", OLD, OPENED, key("newer", 30, 40), newer=1)
    assert next_step(later, begins=False) == Retire(("old", "new"))


def test_of_two_new_keys_the_last_is_promoted_and_the_other_goes():
    both = situation("old one two", OLD, key("one", 10), key("two", 10), old=1)
    assert next_step(both, begins=True) == Promote("two")
    after = situation("two old one", OLD, key("one", 10), key("two", 10, 20), two=1)
    assert next_step(after, begins=False) == Retire(("old", "one"))


def test_a_key_that_does_not_open_its_value_stays_and_the_others_go():
    now = situation("new old older", OLD, PROMOTED, key("older", -5, -5), new=3, old=1)
    stuck = replace(now, unopenable={"old": 1})
    assert next_step(stuck, begins=False) == Retire(("older",))
    rest = replace(stuck, known={**stuck.known, "older": key("older", -5, -5, 30)})
    assert next_step(rest, begins=False) == Done()
    assert next_step(rest, begins=True) == Done()
    assert next_step(replace(rest, sealed={"new": 3, "old": 2}), begins=False) == Reseal(1)


def test_a_value_that_names_no_key_of_ours_does_not_keep_a_rotation_from_beginning():
    now = replace(situation("old", OLD, old=3, lost=1), unopenable={"lost": 1})
    assert next_step(now, begins=True) == OpenNewKey()
