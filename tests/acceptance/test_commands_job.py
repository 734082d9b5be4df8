"""`tocsin job` and `tocsin copy`."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.acceptance.command_line import SeededJob, seed_job
from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.acceptance.command_line import CommandLine

SEVERAL_LOOKS = 4


@pytest.fixture(autouse=True)
def news(tocsin: CommandLine) -> None:
    """A profile, and a worker that has just given a sign of life."""
    tocsin.ok("profile", "add", "news", "--provider", "custom", "--host", "h.example.org", "--from", "news@example.org")
    tocsin.rows(
        "INSERT INTO workers (id, host, pid, role, lease_seconds) VALUES (gen_random_uuid(), 'here', 1, 'all', 30)"
    )


def test_a_job_is_shown_by_id_and_by_number_with_its_recipients_counted(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["sssf", "sdpi", "pp"])
    shown = tocsin.ok("job", "show", str(job.id), "--json").json
    assert shown == tocsin.ok("job", "show", str(job.number), "--json").json
    assert (shown["id"], shown["number"], shown["state"]) == (str(job.id), job.number, "running")
    assert (shown["profile"], shown["mode"], shown["priority"]) == ("news", "shared", "normal")
    assert shown["total"] == 10
    assert shown["recipients"] == {"pending": 4, "in_flight": 1, "sent": 4, "failed": 1}
    assert shown["parts"] == {"received": 1, "last": 1}
    assert shown["duplicates_dropped"] == 2
    assert shown["finished_at"] is None
    out = tocsin.ok("job", "show", str(job.id)).out
    assert "Recipients:" in out
    assert "failed:" in out


@pytest.mark.parametrize("name", ["nonsense", "00000000-0000-0000-0000-000000000001", "42", "9" * 30, "'; --"])
def test_what_names_no_job_is_refused(tocsin: CommandLine, name: str) -> None:
    for command in ("show", "recipients", "watch"):
        outcome = tocsin("job", command, name)
        assert outcome.code == 2
        assert outcome.raw == b""
        assert "job" in outcome.errors


def test_why_a_job_waits_is_shown(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["sp"])
    tocsin.rows("UPDATE mailboxes SET parked_until = now() + interval '1 hour', parked_reason = '432 4.3.2 slow down'")
    shown = tocsin.ok("job", "show", str(job.id), "--json").json
    assert shown["state"] == "waiting"
    assert "432 4.3.2 slow down" in shown["state_reason"]
    assert shown["state_until"] is not None
    tocsin.rows("UPDATE jobs SET send_after = now() + interval '2 hours'")
    assert tocsin.ok("job", "show", str(job.id), "--json").json["state"] == "scheduled"


def test_a_job_that_waits_for_its_part_1_is_shown_listed_and_says_so(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["pp", "p"], state="receiving")
    other = seed_job(tocsin, "news", batches=["p"])
    tocsin.rows("UPDATE job_parts SET number = 2 WHERE job_number = %s", job.number)
    tocsin.rows("UPDATE batches SET due_at = 'infinity' WHERE job_number = %s", job.number)
    shown = tocsin.ok("job", "show", str(job.id), "--json").json
    assert (shown["state"], shown["state_reason"], shown["state_until"]) == ("receiving", "waits for part 1", None)
    assert shown["recipients"] == {"pending": 3}
    assert "receiving (waits for part 1)" in tocsin.ok("job", "show", str(job.id)).out
    listed = {line["id"]: line["state"] for line in tocsin.ok("job", "list", "--json").lines}
    assert listed == {str(job.id): "receiving", str(other.id): "running"}
    assert [line["due_at"] for line in tocsin.ok("job", "recipients", str(job.id), "--json").lines] == [None] * 3


def test_a_job_of_which_nothing_has_come_yet_waits_for_no_part_in_particular(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=[], state="receiving")
    tocsin.rows("DELETE FROM job_parts")
    shown = tocsin.ok("job", "show", str(job.id), "--json").json
    assert (shown["state"], shown["state_reason"]) == ("receiving", None)


def test_what_a_finished_job_left_undone_has_expired(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["sspp"], state="finished")
    assert tocsin.ok("job", "show", str(job.id), "--json").json["recipients"] == {"sent": 2, "expired": 2}


def test_jobs_are_listed_newest_first_and_by_state_and_profile(tocsin: CommandLine) -> None:
    flags = ("--provider", "custom", "--host", "i.example.org", "--from", "x@example.org")
    tocsin.ok("profile", "add", "other", *flags)
    first = seed_job(tocsin, "news", batches=["s"], state="finished")
    second = seed_job(tocsin, "news", batches=["p"])
    third = seed_job(tocsin, "other", batches=["p"])
    paused = "paused_at = now(), pause_cause = 'credentials', paused_reason = 'x'"
    tocsin.rows(f"UPDATE sending_profiles SET {paused} WHERE name = 'other'")

    def listed(*flags: str) -> list[str]:
        return [line["id"] for line in tocsin.ok("job", "list", *flags, "--json").lines]

    assert listed() == [str(third.id), str(second.id), str(first.id)]
    assert listed("--limit", "1") == [str(third.id)]
    assert listed("--open") == [str(third.id), str(second.id)]
    assert listed("--profile", "news") == [str(second.id), str(first.id)]
    assert listed("--state", "waiting") == [str(third.id)]
    assert listed("--state", "running") == [str(second.id)]
    assert tocsin("job", "list", "--profile", "nobody").code == 2
    assert tocsin("job", "list", "--state", "nonsense").code == 2


def test_more_jobs_than_a_page_are_found(tocsin: CommandLine) -> None:
    old = seed_job(tocsin, "news", batches=["s"], state="finished")
    for _ in range(101):
        seed_job(tocsin, "news", batches=["p"])
    found = tocsin.ok("job", "list", "--state", "finished", "--json").lines
    assert [line["id"] for line in found] == [str(old.id)]


def test_every_recipient_is_accounted_for(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["sf", "dup", "is"])
    found = tocsin.ok("job", "recipients", str(job.id), "--json").lines
    assert [(line["address"], line["state"], line["attempts"]) for line in found] == [
        ("r0@example.org", "sent", 1),
        ("r1@example.org", "failed", 1),
        ("r2@example.org", "pending", 1),
        ("r3@example.org", "unknown", 1),
        ("r4@example.org", "pending", 0),
        ("r5@example.org", "in_flight", 1),
        ("r6@example.org", "sent", 1),
    ]
    sent, failed, deferred = found[0], found[1], found[2]
    assert (sent["code"], sent["enhanced_code"], sent["reply"]) == (250, "2.0.0", "Ok: queued")
    assert sent["message_id"] == f"<{job.number}.0@example.org>"
    assert found[6]["message_id"] == f"<{job.number}.2@example.org>"
    assert (failed["code"], failed["enhanced_code"], failed["reply"]) == (550, "5.1.1", "no such user")
    assert failed["reason"] == "the recipient was refused"
    assert failed["message_id"] is None
    assert deferred["due_at"] is not None
    assert found[4]["code"] is None


def test_recipients_of_one_state_only(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["sf", "dup"])
    found = tocsin.ok("job", "recipients", str(job.id), "--state", "failed", "--json").lines
    assert [line["address"] for line in found] == ["r1@example.org"]
    wrong = tocsin("job", "recipients", str(job.id), "--state", "lost")
    assert wrong.code == 2
    assert "suppressed" in wrong.errors


def test_a_long_list_comes_in_order_over_many_fetches(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["s" * 50] * 90)
    lines = tocsin.ok("job", "recipients", str(job.id), "--json").lines
    assert [line["address"] for line in lines] == [f"r{n}@example.org" for n in range(4500)]
    assert all(line["message_id"] == f"<{job.number}.{n // 50}@example.org>" for n, line in enumerate(lines))


def test_what_others_wrote_is_harmless_on_a_terminal_and_exact_in_json(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["f"], source="\x1b]0;evil\x07[red]")
    tocsin.rows("UPDATE recipients SET address = E'a\\x1b[2J@example.org'")
    for command in (("show", str(job.id)), ("recipients", str(job.id))):
        outcome = tocsin.ok("job", *command)
        assert "\x1b" not in outcome.out
        assert "\\x1b" in outcome.out
    assert tocsin.ok("job", "show", str(job.id), "--json").json["source"] == "\x1b]0;evil\x07[red]"


def test_watching_ends_when_the_job_does_and_prints_its_progress(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["sp"])
    finisher = threading.Thread(target=_finish_when_watched, args=(tocsin.database_url, job))
    finisher.start()
    outcome = tocsin("job", "watch", str(job.id), "--json")
    finisher.join()
    assert outcome.code == 3
    assert "Not everyone was sent to" in outcome.errors
    assert [line["state"] for line in outcome.lines] == ["running", "finished"]
    assert "1 of 2 done; running" in outcome.errors
    assert "1 of 2 done; finished; 1 sent, 1 expired" in outcome.errors
    everyone = seed_job(tocsin, "news", batches=["s"], state="finished")
    assert tocsin.ok("job", "watch", str(everyone.id)).code == 0


def test_a_job_that_is_due_waits_for_a_worker_where_none_sends(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["p"])
    tocsin.rows("UPDATE workers SET role = 'intake'")
    assert "waiting for a worker: none that sends is running" in tocsin.ok("job", "show", str(job.id)).out


def test_a_list_of_jobs_says_how_many_are_sent(tocsin: CommandLine) -> None:
    seed_job(tocsin, "news", batches=["spppf"], state="cancelled")
    headings, line = (line.split("\t") for line in tocsin.ok("job", "list").out.splitlines())
    assert dict(zip(headings, line, strict=True))["SENT"] == "1"


def _finish_when_watched(url: str, job: SeededJob) -> None:
    """Finish the job once another session has looked at it several times: the first looks are told by then."""
    looks: set[object] = set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    with psycopg.connect(url, autocommit=True) as connection:
        while len(looks) < SEVERAL_LOOKS and time.monotonic() < deadline:
            looks |= set(
                connection.execute(
                    b"SELECT state_change FROM pg_stat_activity WHERE datname = current_database()"
                    b" AND pid <> pg_backend_pid() AND query = 'COMMIT'"
                )
            )
            time.sleep(0.01)
        connection.execute(b"UPDATE jobs SET state = 'finished', finished_at = now() WHERE number = %s", (job.number,))


def test_copies_of_a_job_are_listed_with_their_recipients(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["sfs", "p", "fs"])
    seed_job(tocsin, "news", batches=["s"])
    copies = tocsin.ok("copy", "list", "--job", str(job.id), "--json").lines
    assert [copy["recipients"] for copy in copies] == [["r0@example.org", "r2@example.org"], ["r5@example.org"]]
    assert copies[0]["job"] == str(job.id)
    assert (copies[0]["code"], copies[0]["message_id"]) == (250, f"<{job.number}.0@example.org>")
    assert copies[0]["content"] == "full"
    assert len(copies[0]["sha256"]) == 64


def test_copies_of_a_profile_are_listed_newest_first(tocsin: CommandLine) -> None:
    first = seed_job(tocsin, "news", batches=["s", "s"])
    second = seed_job(tocsin, "news", batches=["s"])
    jobs = [copy["job_number"] for copy in tocsin.ok("copy", "list", "--profile", "news", "--json").lines]
    assert jobs == [second.number, first.number, first.number]
    assert len(tocsin.ok("copy", "list", "--profile", "news", "--limit", "1", "--json").lines) == 1
    assert "r0@example.org" in tocsin.ok("copy", "list", "--profile", "news").out
    assert tocsin("copy", "list").code == 2


def test_a_copy_is_shown_and_its_kept_bytes_are_written_exactly(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["sfs"])
    (copy,) = tocsin.ok("copy", "list", "--job", str(job.id), "--json").lines
    assert tocsin.ok("copy", "show", str(copy["id"]), "--json").json == copy
    out = tocsin.ok("copy", "show", str(copy["id"])).out
    assert "250 2.0.0 Ok: queued" in out
    assert "r2@example.org" in out
    assert tocsin.ok("copy", "show", str(copy["id"]), "--raw").raw == f"bytes of {job.number}/0".encode()
    assert tocsin("copy", "show", "999999").code == 2


def test_bytes_that_do_not_give_the_stored_hash_are_not_shown(tocsin: CommandLine) -> None:
    job = seed_job(tocsin, "news", batches=["s"])
    (copy,) = tocsin.ok("copy", "list", "--job", str(job.id), "--json").lines
    tocsin.rows("UPDATE email_copies SET content = 'something else'")
    outcome = tocsin("copy", "show", str(copy["id"]), "--raw")
    assert outcome.code == 1
    assert outcome.raw == b""
    assert "not those that were sent" in outcome.errors
