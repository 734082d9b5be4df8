"""When mail will be through, as `send --dry-run`, `job show`, `job watch` and `status` tell it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import seed_job, start
from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.command_line import CommandLine

HOST = ("--provider", "custom", "--host", "h.example.org")
INLINE = ("send", "--profile", "news", "--subject", "Hello", "--text-file", "-")


@pytest.fixture(autouse=True)
def news(tocsin: CommandLine) -> None:
    """A profile of 30 messages a minute and 100 recipients a day, and a worker that is alive."""
    tocsin.ok("profile", "add", "news", *HOST, "--from", "news@example.org", "--per-minute", "30", "--per-day", "100")
    tocsin.rows(
        "INSERT INTO workers (id, host, pid, role, lease_seconds) VALUES (gen_random_uuid(), 'here', 1, 'all', 30)"
    )


def people(directory: Path, count: int) -> str:
    file = directory / "people.csv"
    file.write_text("address,name\n" + "".join(f"r{number}@example.org,R\n" for number in range(count)))
    return str(file)


def minutes_until(text: str) -> float:
    return (datetime.fromisoformat(text) - datetime.now(UTC)) / timedelta(minutes=1)


def test_a_dry_run_tells_messages_end_and_limit(tocsin: CommandLine, tmp_path: Path) -> None:
    flags = (*INLINE, "--recipients", people(tmp_path, 60), "--mode", "individual", "--dry-run")
    shown = tocsin.ok(*flags, "--json", stdin=b"Hi").json
    assert (shown["recipients"], shown["messages"], shown["published"]) == (60, 60, False)
    assert (shown["estimate"]["limited_by"], shown["estimate"]["is_after_expiry"]) == ("rate", False)
    assert minutes_until(shown["estimate"]["done_at"]) == pytest.approx(2, abs=1.1)
    assert minutes_until(shown["expires_at"]) == pytest.approx(72 * 60, abs=1)
    shared = tocsin.ok(*flags[:-3], "--mode", "shared", "--dry-run", stdin=b"Hi")
    assert (
        "UTC (in 2 min); at 30 messages a minute, its mailbox's limit" in shared.out or "within a minute" in shared.out
    )
    assert "Messages:" in shared.out
    assert "Warning" not in shared.errors


def test_the_backlog_of_the_mailbox_counts_and_a_late_end_is_warned_of(tocsin: CommandLine, tmp_path: Path) -> None:
    seed_job(tocsin, "news", batches=["p" * 50] * 10)
    tocsin.rows("UPDATE jobs SET rank = 0")
    flags = (*INLINE, "--recipients", people(tmp_path, 40), "--dry-run", "--mode", "individual")
    dry = tocsin.ok(*flags, stdin=b"Hi")
    assert "Warning: as things stand the job will be through about" in dry.errors
    assert "It expires at" in dry.errors
    assert "that is after it expires" in dry.out
    assert "100 recipients in 24 hours" in dry.out
    assert "500 recipients" in dry.out
    in_time = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    assert "Warning" not in tocsin.ok(*flags, "--expires-at", in_time, stdin=b"Hi").errors


def test_a_job_is_published_all_the_same_with_its_warning_on_standard_error(
    tocsin: CommandLine, tmp_path: Path
) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    flags = (*INLINE, "--recipients", people(tmp_path, 400), "--mode", "individual", "--expires-at", soon, "--yes")
    outcome = tocsin.ok(*flags, "--json", stdin=b"Hi")
    assert outcome.errors.count("Warning:") == 1
    assert outcome.json["published"] is True
    assert outcome.json["estimate"]["is_after_expiry"] is True


def test_a_shared_job_of_more_than_a_day_is_cut_and_has_an_end(tocsin: CommandLine, tmp_path: Path) -> None:
    tocsin.ok("profile", "set", "news", "--per-day", "20")
    flags = (*INLINE, "--recipients", people(tmp_path, 60), "--mode", "shared")
    shown = tocsin.ok(*flags, "--dry-run", "--json", stdin=b"Hi").json
    assert (shown["messages"], shown["estimate"]["limited_by"]) == (4 + 1, "day")
    assert shown["estimate"]["done_at"] is not None
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    sent = tocsin.ok(*flags, "--expires-at", soon, stdin=b"Hi").errors
    assert "Published all the same. To change it: `tocsin job cancel" in sent


def test_what_keeps_a_new_job_back_is_told_instead_of_a_time(tocsin: CommandLine) -> None:
    flags = (*INLINE, "--to", "ann@example.org", "--dry-run")
    tocsin.rows("DELETE FROM workers")
    assert "not without a worker" in tocsin.ok(*flags, stdin=b"Hi").out
    tocsin.ok("profile", "pause", "news", "--reason", "moving")
    assert "not while profile news is paused (`tocsin profile resume news`); then" in tocsin.ok(*flags, stdin=b"Hi").out
    tocsin.ok("pause", "--reason", "fire drill")
    estimate = tocsin.ok(*flags, "--json", stdin=b"Hi").json["estimate"]
    assert (estimate["done_at"], estimate["limited_by"], estimate["takes_seconds"] > 0) == (None, "halted", True)


def test_a_job_shows_when_it_will_be_through_and_an_ended_one_does_not(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["ssss", "p" * 50])
    shown = tocsin.ok("job", "show", str(job.id), "--json").json["estimate"]
    assert (shown["limited_by"], shown["recipients_ahead"], shown["is_after_expiry"]) == ("rate", 0, False)
    tocsin.rows("UPDATE jobs SET expires_at = now() + interval '1 hour'")
    tocsin.rows(
        "INSERT INTO mailbox_usage (mailbox_id, minute, recipients)"
        " SELECT id, date_trunc('minute', now()) - interval '20 hours', 100 FROM mailboxes"
    )
    line = next(line for line in tocsin.ok("job", "show", str(job.id)).out.splitlines() if line.startswith("Through:"))
    assert "(in 4 h " in line
    assert (
        "its mailbox may send to 100 recipients in 24 hours, 20 of them for urgent jobs; that is after it expires"
        in line
    )
    tocsin.ok("job", "pause", str(job.id))
    assert "not while this job is paused (`tocsin job resume" in tocsin.ok("job", "show", str(job.id)).out
    tocsin.ok("job", "cancel", str(job.id), "--yes")
    assert "Through" not in tocsin.ok("job", "show", str(job.id)).out
    assert tocsin.ok("job", "show", str(job.id), "--json").json["estimate"] is None


def test_watching_a_job_tells_when_it_will_be_through(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["p"] * 60)

    watching = start("job", "watch", str(job.id), "--json")
    assert watching.stdout is not None
    assert watching.stderr is not None
    first, first_told = watching.stdout.readline(), watching.stderr.readline()
    tocsin.rows("UPDATE batches SET sent = '1', state = 'done'")
    tocsin.rows("UPDATE jobs SET state = 'finished', finished_at = now()")
    rest, errors = watching.communicate(timeout=PATIENCE_SECONDS)
    told, seen = [first_told, *errors.splitlines()], [json.loads(line) for line in (first, *rest.splitlines())]
    assert [one["state"] for one in seen] == ["running", "finished"]
    assert seen[0]["estimate"]["done_at"] is not None
    assert "; through about " in told[0]
    assert "through" not in told[-1]


def test_a_job_that_waits_since_the_rest_is_for_urgent_ones_says_so(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["p"])
    tocsin.rows(
        "UPDATE mailboxes SET kept_for_urgent_until = now() + interval '1 hour', kept_for_urgent_reason = 'kept'"
    )
    assert "(only urgent jobs are sent: kept)" in tocsin.ok("job", "show", str(job.id)).out
    tocsin.rows("UPDATE mailboxes SET parked_until = now() + interval '2 hours', parked_reason = 'full'")
    assert "(the mailbox rests: full)" in tocsin.ok("job", "show", str(job.id)).out
    assert "only urgent jobs" not in tocsin.ok("status").out


def test_status_tells_what_each_mailbox_may_use_has_used_and_when_it_is_through(tocsin: CommandLine) -> None:
    seed_job(tocsin, "news", batches=["p" * 50])
    tocsin.ok("profile", "add", "free", *HOST, "--from", "free@example.org")
    shown = {one["login"]: one for one in tocsin.ok("status", "--json").json["mailboxes"]}
    news, free = shown["news@example.org"], shown["free@example.org"]
    assert (news["profiles"], news["messages_per_minute"], news["recipients_per_day"]) == (["news"], 30, 100)
    assert (news["backlog"], news["estimate"]["limited_by"]) == (50, "rate")
    assert (free["backlog"], free["estimate"], free["messages_per_minute"]) == (0, None, None)
    tocsin.rows(
        "UPDATE mailboxes SET learned_per_minute = 12, per_minute_lowered_at = now(),"
        " per_minute_reason = '421 4.4.2 slow down' WHERE messages_per_minute = 30"
    )
    out = tocsin.ok("status").out
    assert "news@example.org at h.example.org\t12 (set: 30)\t0\t0 of 100\t50\t" in out
    assert "news@example.org at h.example.org: slowed to 12 messages a minute since" in out
    assert "421 4.4.2 slow down" in out
    assert "free@example.org at h.example.org\tno limit\t0\tno limit\t0\t0\t-\t-" in out
    tocsin.ok("pause", "--reason", "fire drill")
    assert "news@example.org at h.example.org: all sending is halted" in tocsin.ok("status").out
    tocsin.ok("resume")
    tocsin.ok("profile", "pause", "news", "--reason", "moving")
    out = tocsin.ok("status").out
    assert "news@example.org at h.example.org\t12 (set: 30)\t0\t0 of 100\t0\t50\tnot known\tpaused" in out
    assert (
        "news@example.org at h.example.org: 50 recipients wait while profile news is paused"
        " (`tocsin profile resume news`)" in out
    )
    shown = {one["login"]: one for one in tocsin.ok("status", "--json").json["mailboxes"]}
    assert [shown[f"{one}@example.org"]["paused"] for one in ("news", "free")] == [50, 0]
