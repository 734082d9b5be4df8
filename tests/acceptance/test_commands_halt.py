"""`tocsin pause`, `tocsin resume`, and what `tocsin status` says meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import seed_job

if TYPE_CHECKING:
    from tests.acceptance.command_line import CommandLine


def is_allowed(tocsin: CommandLine) -> bool:
    [(allowed,)] = tocsin.rows("SELECT sending_is_allowed()")
    return allowed


def add_profile(tocsin: CommandLine) -> None:
    tocsin.ok(
        "profile", "add", "news", "--provider", "custom", "--host", "mail.example", "--port", "25", "--tls", "none",
        "--from", "news@example.org", "--auth", "none",
    )  # fmt: skip


def test_a_pause_halts_everything_and_status_says_so_first(tocsin: CommandLine) -> None:
    add_profile(tocsin)
    tocsin.ok("pause", "--reason", "wrong list was imported")
    assert not is_allowed(tocsin)
    [(actor_kind, actor)] = tocsin.rows("SELECT actor_kind, actor FROM sending_halt")
    assert actor_kind == "login"
    first, *rest = tocsin.ok("status").out.splitlines()
    assert first.startswith("sending:")
    for word in ("ALL HALTED since 20", f"by {actor}", "wrong list was imported", "`tocsin resume`"):
        assert word in first
    assert any(line.startswith("news\t") and line.endswith("all sending is halted") for line in rest)
    halt = tocsin.ok("status", "--json").json["halt"]
    assert (halt["cause"], halt["reason"], halt["actor"]) == ("by_hand", "wrong list was imported", actor)


def test_a_second_pause_keeps_the_first_reason(tocsin: CommandLine) -> None:
    tocsin.ok("pause", "--reason", "the first")
    assert "the first" in tocsin.ok("pause", "--reason", "the second").errors
    assert tocsin.rows("SELECT reason FROM sending_halt") == [("the first",)]


def test_a_resume_lets_it_go_on_and_is_remembered(tocsin: CommandLine) -> None:
    tocsin.ok("pause")
    assert "goes on" in tocsin.ok("resume").errors
    assert is_allowed(tocsin)
    again = tocsin.ok("resume").errors
    assert "not halted" in again
    assert "last resumed at 20" in again
    assert tocsin.ok("status", "--json").json["halt"] is None


def test_where_nothing_was_ever_halted_a_resume_does_no_harm(tocsin: CommandLine) -> None:
    said = tocsin.ok("resume").errors
    assert "not halted" in said
    assert "last resumed" not in said
    assert is_allowed(tocsin)


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 501])
def test_a_reason_is_one_line_that_says_something(tocsin: CommandLine, reason: str) -> None:
    assert tocsin("pause", "--reason", reason).code == 2
    assert is_allowed(tocsin)


def test_a_restored_ledger_goes_on_only_once_somebody_has_looked(tocsin: CommandLine) -> None:
    add_profile(tocsin)
    seed_job(tocsin, "news", batches=["p"])
    tocsin.rows("UPDATE ledger_origin SET database_oid = 1")
    # No sweeper has been here yet.
    assert "restored from a backup" in tocsin.ok("status").out.splitlines()[0]
    assert "restored from a backup" in tocsin.ok("pause").errors
    assert tocsin.rows("SELECT cause FROM sending_halt") == []
    refused = tocsin("resume")
    assert refused.code == 2
    for word in ("1 open job", "tocsin job list --open", "--yes"):
        assert word in refused.errors
    assert not is_allowed(tocsin)
    tocsin.ok("resume", "--yes")
    assert is_allowed(tocsin)


def test_status_tells_which_jobs_expire_soon_and_why(tocsin: CommandLine) -> None:
    add_profile(tocsin)
    late = seed_job(tocsin, "news", batches=["ppsu", "s"])
    seed_job(tocsin, "news", batches=["p"])
    tocsin.rows(
        "UPDATE jobs SET created_at = now() - interval '1 hour', expires_at = now() + interval '1 minute'"
        " WHERE number = %s",
        late.number,
    )
    tocsin.ok("profile", "pause", "news", "--reason", "mailbox is being moved")
    shown = tocsin.ok("status").out.splitlines()
    [line] = [line for line in shown if line.startswith(f"{late.id}\t")]
    assert line.split("\t")[3:] == ["2", "the sending profile is paused"]
    [job] = tocsin.ok("status", "--json").json["expiring_jobs"]
    assert job["id"] == str(late.id)
    assert job["holds"] == ["the sending profile is paused: mailbox is being moved"]


def test_status_points_to_dead_letters(tocsin: CommandLine) -> None:
    assert "dead letters:   0" in tocsin.ok("status").out
    tocsin.rows(
        "INSERT INTO dead_letters (queue, code, reason, body, digest, details) VALUES ('q', 'c', 'r', '', '', '{}')"
    )
    assert "1 to look at: `tocsin dead-letter list`" in tocsin.ok("status").out
