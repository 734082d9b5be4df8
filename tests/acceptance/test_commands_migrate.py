"""`tocsin migrate` in the two steps of an upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tocsin_schema.ledger.migration_steps import Migration, migrations

if TYPE_CHECKING:
    from tests.acceptance.command_line import CommandLine

ADDS, DROPS = Migration("9001_adds", "SELECT 1"), Migration("9002_drops.after", "SELECT 1")


@pytest.fixture
def upgraded(tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command of a release with two steps more, and a worker of the release before."""
    steps = [*migrations(), ADDS, DROPS]
    monkeypatch.setattr("tocsin_schema.ledger.migrate.migrations", lambda: steps)
    tocsin.rows(
        "INSERT INTO workers (id, host, pid, role, lease_seconds) VALUES (gen_random_uuid(), 'pod-7', 1, 'sender', 600)"
    )
    return tocsin


def test_an_upgrade_adds_first_and_takes_away_when_no_older_worker_is_alive(upgraded: CommandLine) -> None:
    added = upgraded.ok("migrate", "--before")
    assert added.out == "applied 9001_adds\n"
    assert "1 migration is left for after the upgrade" in added.errors
    assert "alive: pod-7 (sender, 1 process)" in added.errors

    held_up = upgraded("migrate", "--after")
    assert (held_up.code, held_up.out) == (1, "")
    for word in ("9002_drops.after waits", "pod-7", "End them, then run `tocsin migrate --after`."):
        assert word in held_up.errors

    upgraded.rows("DELETE FROM workers")
    assert upgraded.ok("migrate", "--after").out == "applied 9002_drops.after\n"
    assert upgraded.ok("migrate", "--check").out == ""


def test_without_a_step_it_does_what_is_safe_and_says_what_is_left(upgraded: CommandLine) -> None:
    done = upgraded.ok("migrate")
    assert done.out == "applied 9001_adds\n"
    assert "run `tocsin migrate --after`" in done.errors
    upgraded.rows("DELETE FROM workers")
    assert upgraded.ok("migrate").out == "applied 9002_drops.after\n"


def test_check_tells_what_is_pending_of_the_step_that_is_asked_for(upgraded: CommandLine) -> None:
    for options, pending in (
        ((), "pending 9001_adds\npending 9002_drops.after\n"),
        (("--before",), "pending 9001_adds\n"),
        (("--after",), "pending 9002_drops.after\n"),
    ):
        told = upgraded("migrate", "--check", *options)
        assert (told.code, told.out) == (3, pending)
    upgraded.ok("migrate", "--before")
    assert upgraded.ok("migrate", "--check", "--before").out == ""


def test_a_check_that_cannot_be_made_does_not_end_like_one_that_found_something(
    upgraded: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upgraded("migrate", "--check").code == 3
    monkeypatch.setenv("TOCSIN_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    failed = upgraded("migrate", "--check")
    assert (failed.code, failed.out) == (1, "")
    assert "127.0.0.1" in failed.errors
    assert upgraded("migrate", "--check", "--before", "--after").code == 2


def test_taking_away_before_the_new_code_is_refused_and_so_are_both_steps_by_name(upgraded: CommandLine) -> None:
    early = upgraded("migrate", "--after")
    assert early.code == 1
    assert "The ledger lacks 9001_adds" in early.errors
    assert upgraded("migrate", "--before", "--after").code == 2
