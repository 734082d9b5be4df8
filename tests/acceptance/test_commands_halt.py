"""`tocsin pause`, `tocsin resume`, and what `tocsin status` says meanwhile."""

from __future__ import annotations

from datetime import UTC
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


def test_a_check_of_a_profile_says_that_all_sending_is_halted(tocsin: CommandLine) -> None:
    add_profile(tocsin)
    tocsin.ok("profile", "set", "news", "--host", "127.0.0.1", "--port", "1")
    assert "halted" not in tocsin("profile", "check", "news").errors
    tocsin.ok("pause", "--reason", "wrong list")
    told = tocsin("profile", "check", "news", "--json")
    assert "All sending is halted" in told.errors
    assert told.json["halted"] is True


def test_a_second_pause_keeps_the_first_reason(tocsin: CommandLine) -> None:
    tocsin.ok("pause", "--reason", "the first")
    assert "the first" in tocsin.ok("pause", "--reason", "the second").errors
    assert tocsin.rows("SELECT reason FROM sending_halt") == [("the first",)]


def test_a_resume_lets_it_go_on_and_is_remembered(tocsin: CommandLine) -> None:
    tocsin.ok("pause", "--reason", "wrong list")
    assert "goes on" in tocsin.ok("resume").errors
    assert is_allowed(tocsin)
    again = tocsin.ok("resume").errors
    assert "not halted" in again
    [(actor,)] = tocsin.rows("SELECT lifted_by FROM sending_halts")
    for told in (again, tocsin.ok("status").out):
        assert f"All sending was halted by {actor} from 20" in told
        assert f": wrong list; resumed by {actor}" in told
    shown = tocsin.ok("status", "--json").json
    assert shown["halt"] is None
    assert (shown["last_halt"]["reason"], shown["last_halt"]["lifted_by"]) == ("wrong list", actor)
    tocsin.rows("UPDATE sending_halts SET lifted_at = now() - interval '8 days'")
    assert tocsin.ok("status", "--json").json["last_halt"] is None
    assert "wrong list" in tocsin.ok("resume").errors


def test_where_nothing_was_ever_halted_a_resume_does_no_harm(tocsin: CommandLine) -> None:
    said = tocsin.ok("resume").errors
    assert "not halted" in said
    assert "was halted" not in said
    assert is_allowed(tocsin)


@pytest.mark.parametrize("reason", ["", "  ", "red\x1b[31m", "x" * 501])
def test_a_reason_is_one_line_that_says_something(tocsin: CommandLine, reason: str) -> None:
    assert tocsin("pause", "--reason", reason).code == 2
    assert is_allowed(tocsin)


def test_a_restored_ledger_goes_on_only_once_somebody_has_looked(tocsin: CommandLine) -> None:
    add_profile(tocsin)
    seed_job(tocsin, "news", batches=["p"])
    tocsin.rows("UPDATE ledger_origin SET database_oid = 1")
    # No sweeper has been here yet.
    first = tocsin.ok("status").out.splitlines()[0]
    assert "restored from a backup" in first
    assert first.endswith("Then let it go on: `tocsin resume`.")
    assert "restored from a backup" in tocsin.ok("pause").errors
    assert tocsin.rows("SELECT cause FROM sending_halt") == []
    refused = tocsin("resume")
    assert refused.code == 2
    for word in ("1 open job", "tocsin job list --open", "--yes"):
        assert word in refused.errors
    assert "`tocsin resume`" not in refused.errors
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


def test_paused_and_later_jobs_wait_and_are_not_taken_for_mail_that_is_going_out(tocsin: CommandLine) -> None:
    add_profile(tocsin)
    tocsin.rows(
        "INSERT INTO workers (id, host, pid, role, lease_seconds) VALUES (gen_random_uuid(), 'vm', 1, 'all', 30)"
    )
    paused = seed_job(tocsin, "news", batches=["pps", "p"])
    tocsin.ok("job", "pause", str(paused.id), "--reason", "night")
    [(actor, since)] = tocsin.rows("SELECT actor, at FROM job_events")

    def news() -> tuple[int, int, str]:
        [profile] = tocsin.ok("status", "--json").json["profiles"]
        [row] = [line.split("\t") for line in tocsin.ok("status").out.splitlines() if line.startswith("news\t")]
        assert row[3:5] == [str(profile["due_recipients"]), str(profile["waiting_recipients"])]
        return profile["due_recipients"], profile["waiting_recipients"], row[6]

    assert news() == (0, 3, "its job is paused")
    shown = tocsin.ok("status").out.splitlines()
    assert any(line.startswith("paused jobs:") and "1 job is paused" in line for line in shown)
    [row] = [line.split("\t") for line in shown if line.startswith(f"{paused.id}\t")]
    assert row == [str(paused.id), "news", actor, f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", "3", "night"]
    [job] = tocsin.ok("status", "--json").json["paused_jobs"]
    assert (job["id"], job["actor"], job["reason"], job["unsettled"]) == (str(paused.id), actor, "night", 3)

    later = seed_job(tocsin, "news", batches=["pp"])
    tocsin.rows("UPDATE jobs SET send_after = '2099-01-01Z' WHERE number = %s", later.number)
    assert news() == (0, 5, "waiting for a retry or its time")
    assert "later jobs:     1 begins at 2099-01-01T00:00:00Z" in tocsin.ok("status").out

    seed_job(tocsin, "news", batches=["p"])
    assert news() == (1, 5, "sending")
    tocsin.ok("pause")
    assert news() == (0, 6, "all sending is halted")


def test_status_tells_who_waits_for_a_person(tocsin: CommandLine) -> None:
    add_profile(tocsin)
    assert "unknown" not in tocsin.ok("status").out
    assert tocsin.ok("status", "--json").json["unknown"] is None
    seed_job(tocsin, "news", batches=["u", "su"])
    job = seed_job(tocsin, "news", batches=["suu", "s"], state="finished")
    tocsin.rows("UPDATE jobs SET on_unknown = 'hold'")
    assert (
        f"4 recipients of 2 jobs wait for a person: the newest: `tocsin job recipients {job.id} --state unknown`"
        in (tocsin.ok("status").out)
    )
    unknown = tocsin.ok("status", "--json").json["unknown"]
    assert unknown == {"id": str(job.id), "unknown": 2, "jobs": 2, "recipients": 4}
