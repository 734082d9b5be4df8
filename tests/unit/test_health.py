"""What the health endpoints answer: liveness only where a restart would help, readiness where work gets done."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from tocsin_workers.process.signs_of_life import SIGNS_VARIABLE, Sign, give_signs, signs_descriptor
from tocsin_workers.supervising.checks import check
from tocsin_workers.supervising.family import ChildState, FamilyState
from tocsin_workers.supervising.health import (
    HOPELESS_DEATHS,
    NO_PROCESS_SECONDS,
    STUCK_CHILD_SECONDS,
    STUCK_SUPERVISOR_SECONDS,
    liveness,
    readiness,
    start,
)

NOW = 1000.0
AT_WORK = ChildState(is_running=True, came_up=True, takes_work=True, silent_since=NOW - 0.5)
WAITING = ChildState(is_running=True, came_up=True, takes_work=False, silent_since=NOW - 0.5)
STARTING = ChildState(is_running=True, came_up=False, takes_work=False, silent_since=NOW - 5)
DEAD = ChildState(is_running=False, came_up=True, takes_work=False, silent_since=None, deaths_in_a_row=2)
GOOD = {"database": "ok", "message_broker": "ok", "schema": "ok"}


def family(*children: ChildState, seen_at: float = NOW, is_stopping: bool = False) -> FamilyState:
    return FamilyState(seen_at, is_stopping=is_stopping, restarts=0, children=children)


# Liveness


@pytest.mark.parametrize("child", [AT_WORK, WAITING, STARTING, DEAD])
def test_whoever_works_waits_starts_or_is_replaced_lives(child: ChildState):
    assert liveness(family(AT_WORK, child), NOW).is_good


def test_a_supervisor_that_is_stuck_does_not_live():
    late = family(AT_WORK, seen_at=NOW - STUCK_SUPERVISOR_SECONDS - 1)
    assert liveness(late, NOW).checks["supervisor"] == "the supervisor has been stuck for 16 s"


def test_a_child_that_gives_no_sign_for_long_does_not_live():
    silent = ChildState(is_running=True, came_up=True, takes_work=True, silent_since=NOW - STUCK_CHILD_SECONDS - 1)
    said = liveness(family(AT_WORK, silent), NOW).checks["workers"]
    assert said == "1 of 2 worker processes is stuck: no sign of life for 90 s"


def test_children_that_cannot_be_started_any_more_do_not_live():
    def refused(for_seconds: float) -> FamilyState:
        child = ChildState(
            is_running=False, came_up=True, takes_work=False, silent_since=None, not_started_since=NOW - for_seconds
        )
        return family(AT_WORK, child)

    assert liveness(refused(NO_PROCESS_SECONDS - 1), NOW).is_good
    assert not liveness(refused(NO_PROCESS_SECONDS + 1), NOW).is_good


def test_children_that_only_die_do_not_live_but_one_that_holds_out_is_enough():
    hopeless = ChildState(
        is_running=False, came_up=False, takes_work=False, silent_since=None, deaths_in_a_row=HOPELESS_DEATHS
    )
    assert not liveness(family(hopeless, hopeless), NOW).is_good
    assert liveness(family(hopeless, AT_WORK), NOW).is_good


def test_children_that_are_told_to_end_need_no_restart():
    silent = ChildState(is_running=True, came_up=True, takes_work=False, silent_since=NOW - 1000)
    assert liveness(family(silent, is_stopping=True), NOW).is_good


# Readiness and start


def test_readiness_wants_every_server_and_one_child_at_work():
    assert readiness(family(AT_WORK, DEAD), GOOD).is_good
    assert not readiness(family(WAITING), GOOD).is_good
    assert not readiness(family(AT_WORK, is_stopping=True), GOOD).is_good
    said = readiness(family(AT_WORK), {**GOOD, "schema": "the ledger lacks 0010_measuring"})
    assert said.body == {
        "status": "unavailable",
        "checks": {**GOOD, "schema": "the ledger lacks 0010_measuring", "workers": "ok"},
    }


def test_the_start_is_over_when_every_child_came_up_once_with_or_without_a_ledger():
    assert not start(family()).is_good
    assert start(family(AT_WORK, STARTING)).checks == {"workers": "1 of 2 worker processes is not up yet"}
    assert start(family(WAITING, DEAD)).is_good


# Asking


def test_what_does_not_answer_is_asked_once_and_told_as_such():
    release, calls = threading.Event(), []

    def ask() -> dict[str, str]:
        calls.append(1)
        release.wait(30)
        return {"database": "ok"}

    question = check(ask, unanswered={"database": "no answer"})
    asked = question.begin()
    assert question.begin() is asked
    assert question.result(asked, by=time.monotonic()) == {"database": "no answer"}
    release.set()
    assert asked.result(30) == {"database": "ok"}
    assert question.begin().result(0) == {"database": "ok"}
    assert len(calls) == 1


def test_where_no_thread_is_to_be_had_for_once_it_is_asked_again_the_next_time(monkeypatch: pytest.MonkeyPatch):
    question = check(lambda: {"database": "ok"}, unanswered={"database": "no answer"})

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as machine:
        machine.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            question.begin()
    assert question.begin().result(5) == {"database": "ok"}


def test_a_check_that_fails_unexpectedly_shows_only_the_kind_of_its_error():
    def ask() -> dict[str, str]:
        raise RuntimeError("postgresql://tocsin:hunter2@db/tocsin")

    question = check(ask, unanswered={"database": "no answer"})
    assert question.begin().result(30) == {"database": "the check failed: RuntimeError"}


# A child's signs


async def test_a_child_says_that_it_lives_before_it_takes_work():
    ours, its = os.pipe()
    takes_work = iter([False, True, True])
    environment = {SIGNS_VARIABLE: str(its), "PATH": ""}
    descriptor = signs_descriptor(environment)
    assert descriptor == its
    assert environment == {"PATH": ""}
    assert not os.get_inheritable(its)
    loop = asyncio.get_running_loop()
    give_signs(loop, descriptor, lambda: next(takes_work))
    first = await loop.run_in_executor(None, os.read, ours, 1)
    second = await loop.run_in_executor(None, os.read, ours, 1)
    assert [Sign.of(first), Sign.of(second)] == [Sign.LIVES, Sign.TAKES_WORK]
    os.close(ours)
    os.close(its)


@pytest.mark.parametrize("value", ["", "x", "-1", "999999"])
def test_a_child_without_a_supervisor_says_nothing(value: str):
    descriptor = signs_descriptor({SIGNS_VARIABLE: value})
    assert descriptor is None
