"""`tocsin job cancel|pause|resume|retry|settle`, and how soon and how exactly they hold."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import seed_job
from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.ledger.actors import login_of_this_process

if TYPE_CHECKING:
    from tests.acceptance.command_line import CommandLine
    from tests.servers.installation import Installation

ME = login_of_this_process().name
CTRL_C, CTRL_D = b"\x03", b"\x04"


@pytest.fixture
def news(tocsin: CommandLine) -> CommandLine:
    tocsin.ok("profile", "add", "news", "--provider", "custom", "--host", "h.example.org", "--from", "news@example.org")
    return tocsin


def on_a_terminal(tocsin: CommandLine, *arguments: str, typed: bytes) -> tuple[int, str]:
    """Run a command with a person at the terminal who types when asked; give its exit code and what the person saw."""
    ours, theirs = pty.openpty()
    # The leader of a session takes the terminal that it opens for its own; only so Ctrl-C reaches it.
    run = "import os, runpy, sys; os.open(os.ttyname(0), os.O_RDWR); runpy.run_module('tocsin_console', alter_sys=True)"
    with subprocess.Popen(
        [sys.executable, "-c", run, *arguments],
        stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True,
        env={**os.environ, "TOCSIN_DATABASE_URL": tocsin.database_url},
    ) as command:  # fmt: skip
        os.close(theirs)
        seen = b""
        with os.fdopen(ours, "r+b", buffering=0) as terminal:
            try:
                while piece := terminal.read(4096):
                    seen += piece
                    if piece.endswith(b"[y/N]: "):
                        terminal.write(typed)
            except OSError:  # how a terminal says that nobody is there any more
                pass
            return command.wait(PATIENCE_SECONDS), seen.decode()


def add_worker(tocsin: CommandLine) -> None:
    """Let a worker that sends have given a sign of life just now."""
    tocsin.rows(
        "INSERT INTO workers (id, host, pid, role, lease_seconds) VALUES (gen_random_uuid(), 'here', 1, 'sender', 30)"
    )


def test_a_cancelled_job_says_how_many_were_sent_and_how_many_will_not_be_and_by_whom(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["sssf", "sdpi", "pp"])
    outcome = news.ok("job", "cancel", str(job.id), "--reason", "wrong\nbuilding", "--yes", "--json")
    assert "4 recipients had been sent to; 4 will not be. 1 recipient is under way" in outcome.errors
    assert (outcome.json["state"], outcome.json["changed"]) == ("cancelled", True)
    assert outcome.json["recipients"] == {"in_flight": 1, "sent": 4, "failed": 1, "cancelled": 4}
    shown = news.ok("job", "show", str(job.id), "--json").json
    assert shown["state_reason"] == f"cancelled by {ME}: wrong building"
    [event] = shown["events"]
    assert (event["event"], event["actor_kind"], event["actor"]) == ("cancelled", "login", ME)
    assert event["details"] == {"reason": "wrong building", "sent": 4, "in_flight": 1, "not_sent": 4}
    assert shown["finished_at"] == event["at"]
    out = news.ok("job", "show", str(job.id)).out
    assert f"cancelled by {ME}: wrong building (4 sent, 1 under way, 4 not sent to)" in out
    again = news.ok("job", "cancel", str(job.id))
    assert f"was cancelled already (cancelled by {ME}: wrong building)" in again.errors


def test_cancelling_asks_on_a_terminal_and_a_no_changes_nothing(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["sfip"])
    for typed, ended in ((b"n\n", 1), (CTRL_D, 1), (CTRL_C, 130)):
        code, seen = on_a_terminal(news, "job", "cancel", str(job.id), typed=typed)
        assert code == ended, seen
        assert "1 of 4 are sent, 1 are under way, 1 are failed, unknown or suppressed, 1 will not be sent to." in seen
        assert "Nothing was changed." in seen
        assert "Traceback" not in seen
        assert news.rows("SELECT state FROM jobs") == [("running",)]
    code, seen = on_a_terminal(news, "job", "cancel", str(job.id), typed=b"y\n")
    assert (code, news.rows("SELECT state FROM jobs")) == (0, [("cancelled",)])


def test_where_nobody_can_be_asked_what_cannot_be_taken_back_wants_yes(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["sup"])
    for command in (("cancel", str(job.id)), ("settle", str(job.id), "--as", "failed")):
        refused = news("job", *command)
        assert (refused.code, refused.raw) == (2, b"")
        assert "--yes" in refused.errors
    assert news.rows("SELECT state FROM jobs") == [("running",)]
    assert news.rows("SELECT state FROM recipient_exceptions") == [("unknown",)]


def test_a_paused_job_says_when_it_expires_and_goes_on_when_it_is_resumed(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["pp"])
    paused = news.ok("job", "pause", str(job.number), "--reason", "night")
    [(expires_at,)] = news.rows("SELECT expires_at FROM jobs")
    assert f"it expires at {expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" in paused.errors
    assert paused.raw == b""
    facts = dict(line.split(": ", 1) for line in news.ok("job", "show", str(job.id)).out.splitlines())
    assert facts["State"].strip() == f"paused by {ME}: night"
    assert f"was paused already (paused by {ME}: night)" in news.ok("job", "pause", str(job.id)).errors
    add_worker(news)
    resumed = news.ok("job", "resume", str(job.id), "--reason", "morning", "--json")
    assert (resumed.json["state"], resumed.json["state_reason"], resumed.json["changed"]) == ("running", None, True)
    assert "goes on within seconds" in resumed.errors
    assert f"resumed by {ME}: morning" in news.ok("job", "show", str(job.id)).out
    assert "is not paused" in news.ok("job", "resume", str(job.id)).errors
    assert [one["event"] for one in news.ok("job", "show", str(job.id), "--json").json["events"]] == [
        "resumed",
        "paused",
    ]


@pytest.mark.parametrize(
    ("held_by", "said"),
    [
        ("INSERT INTO sending_halts (cause, reason) VALUES ('restored', 'put back')",
         "But all sending is halted: put back. `tocsin resume` lets it go on."),
        ("UPDATE sending_profiles SET paused_at = now(), pause_cause = 'by_hand', paused_reason = 'moving'",
         "But the sending profile is paused: moving. `tocsin profile resume news` lets it go on."),
        ("UPDATE mailboxes SET parked_until = '2099-01-01Z', parked_reason = 'too fast'",
         "It goes on at 2099-01-01T00:00:00Z: the mailbox rests: too fast."),
        ("UPDATE jobs SET send_after = '2099-01-01Z', expires_at = '2099-01-02Z'",
         "It goes on at 2099-01-01T00:00:00Z: send_after has not come."),
        ("DELETE FROM workers", "No worker that sends is running: start `tocsin up` or `tocsin worker`."),
    ],
    ids=["all sending", "the profile", "the mailbox", "send_after", "no worker"],
)  # fmt: skip
def test_a_resumed_job_that_something_else_holds_up_says_what_and_how_to_end_it(
    news: CommandLine, held_by: str, said: str
) -> None:
    add_worker(news)
    job = str(seed_job(news, "news", batches=["p"]).id)
    news.ok("job", "pause", job)
    news.rows(held_by)
    resumed = news.ok("job", "resume", job)
    assert said in resumed.errors
    assert "within seconds" not in resumed.errors


def test_what_cannot_be_done_says_why_and_changes_nothing(news: CommandLine) -> None:
    finished = str(seed_job(news, "news", batches=["sf"], state="finished").id)
    cancelled = str(seed_job(news, "news", batches=["fp"], state="cancelled").id)
    over = str(seed_job(news, "news", batches=["fs"], state="finished").id)
    news.rows("UPDATE jobs SET expires_at = now() - interval '1 hour' WHERE id = %s", over)
    before = news.rows("SELECT * FROM jobs ORDER BY number") + news.rows("SELECT * FROM recipient_exceptions")
    for said, *command in (
        ("is finished: there is nothing left to cancel", "cancel", finished),
        ("is finished, and cannot be paused", "pause", finished),
        ("is cancelled, and cannot be resumed", "resume", cancelled),
        ("is cancelled, and nothing more of it is sent", "retry", cancelled),
        ("Give it another one with --expires-at", "retry", over),
        ("--expires-at has gone by", "retry", over, "--expires-at", "2020-01-01T00:00:00Z"),
        ("is no time with a time zone", "retry", over, "--expires-at", "tomorrow"),
        ("r0@example.org is sent, not failed or suppressed; x@example.org is not in this job. Nothing was changed.",
         "retry", finished, "--address", "r0@example.org", "--address", "x@example.org"),
        ("r1@example.org is failed, not unknown", "settle", finished, "--as", "sent", "--address", "r1@example.org"),
        ("--reason is empty", "pause", finished, "--reason", " "),
        ("There is no job 42", "cancel", "42"),
    ):  # fmt: skip
        refused = news("job", *command)
        assert (refused.code, refused.raw) == (2, b""), command
        assert said in refused.errors
    after = news.rows("SELECT * FROM jobs ORDER BY number") + news.rows("SELECT * FROM recipient_exceptions")
    assert after == before
    assert news.rows("SELECT * FROM job_events") == []


def test_failed_recipients_are_tried_again_and_counted_at_once(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["sf", "ff", "ss"], state="finished")
    one = news.ok("job", "retry", str(job.id), "--address", "r1@EXAMPLE.org", "--json")
    assert one.json["retried"] == {"failed": 1, "expired": 0, "suppressed": 0, "left_out": 0}
    assert (one.json["state"], one.json["recipients"]) == ("waiting", {"pending": 1, "sent": 3, "failed": 2})
    assert "tries 1 failed recipient again. It expires at" in one.errors
    rest = news.ok("job", "retry", str(job.id))
    assert "tries 2 failed recipients again" in rest.errors
    assert "nothing to do" in news.ok("job", "retry", str(job.id)).errors
    assert news.ok("job", "show", str(job.id), "--json").json["recipients"] == {"pending": 3, "sent": 3}


def test_who_is_suppressed_is_not_tried_again_and_the_command_says_how_to_end_it(news: CommandLine) -> None:
    job = str(seed_job(news, "news", batches=["ff"], state="finished").id)
    news.ok("suppression", "add", "r0@example.org", "--reason", "left")
    refused = news("job", "retry", job, "--address", "r0@example.org")
    assert refused.code == 2
    assert "r0@example.org is suppressed and would not be sent to" in refused.errors
    assert "`tocsin suppression remove r0@example.org` first" in refused.errors
    told = news.ok("job", "retry", job)
    assert "tries 1 failed recipient again" in told.errors
    assert "1 failed recipient is suppressed and stays as before" in told.errors
    assert "`tocsin suppression remove ADDRESS`" in told.errors
    assert "1 failed recipient is suppressed" in news.ok("job", "retry", job).errors
    news.ok("suppression", "remove", "r0@example.org")
    assert "tries 1 failed recipient again" in news.ok("job", "retry", job).errors


def test_a_retry_of_nobody_says_what_may_be_done_for_the_others(news: CommandLine) -> None:
    job = str(seed_job(news, "news", batches=["suuf"], state="finished").id)
    news.rows("UPDATE recipient_exceptions SET state = 'suppressed' WHERE state = 'failed'")
    news.rows("UPDATE batches SET failed = 0, suppressed = 1")
    news.ok("suppression", "add", "r3@example.org", "--reason", "left")
    said = news.ok("job", "retry", job).errors
    assert "failed in a try: nothing to do." in said
    assert f"2 are unknown: `tocsin job settle {job} --as …`; 1 is suppressed" in said


def test_an_expired_job_is_tried_again_with_a_new_time(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["sf", "pp"], state="finished")
    news.rows("UPDATE jobs SET expires_at = now() - interval '1 hour'")
    news.rows("UPDATE batches SET state = 'done'")
    later = (datetime.now(UTC) + timedelta(hours=3)).replace(microsecond=0)
    outcome = news.ok("job", "retry", str(job.id), "--expires-at", later.isoformat(), "--json")
    assert outcome.json["retried"] == {"failed": 1, "expired": 2, "suppressed": 0, "left_out": 0}
    assert outcome.json["recipients"] == {"pending": 3, "sent": 1}
    assert "1 failed recipient and 2 who had expired again" in outcome.errors


def test_a_person_settles_whose_fate_is_unknown(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["su", "uu"], state="finished")
    settled = news.ok(
        "job",
        "settle",
        str(job.id),
        "--as",
        "sent",
        "--address",
        "r1@example.org",
        "--reason",
        "asked",
        "--yes",
        "--json",
    )
    assert (settled.json["settled"], settled.json["recipients"]) == (1, {"sent": 2, "unknown": 2})
    assert "1 recipient of job" in settled.errors
    assert f"settled by {ME}: asked (1 recipient as sent)" in news.ok("job", "show", str(job.id)).out
    code, seen = on_a_terminal(news, "job", "settle", str(job.id), "--as", "pending", typed=b"n\n")
    assert (code, "They may get it twice." in seen) == (1, True)
    code, seen = on_a_terminal(news, "job", "settle", str(job.id), "--as", "failed", typed=b"y\n")
    assert code == 0
    assert "Settle 2 recipients of job" in seen
    assert news.ok("job", "show", str(job.id), "--json").json["recipients"] == {"sent": 2, "failed": 2}
    [sent] = [one for one in news.ok("job", "recipients", str(job.id), "--json").lines if one["attempts"] == 1][1:2]
    assert (sent["state"], sent["reason"]) == ("sent", f"settled as sent, by {ME}")
    assert "nothing to do" in news.ok("job", "settle", str(job.id), "--as", "pending").errors
    assert news("job", "settle", str(job.id), "--as", "lost").code == 2


def test_the_whole_story_of_an_address_is_told(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["fs"], state="finished")
    news.rows(
        "INSERT INTO delivery_attempts (job_number, ordinal, lease_epoch, state, phase, code, enhanced_code, reply,"
        " reason, at) VALUES (%(job)s, 0, 1, 'pending', 'rcpt', 451, '4.7.1', 'Greylisted', 'deferred', '2026-11-21Z'),"
        " (%(job)s, 0, 2, 'failed', 'rcpt', 550, '5.1.1', 'no such user', 'refused', '2026-11-22Z')".replace(
            "%(job)s", str(job.number)
        )
    )
    [failed] = news.ok("job", "recipients", str(job.id), "--state", "failed", "--json").lines
    assert failed["tries"][0] == {
        "at": "2026-11-21T00:00:00Z", "state": "pending", "phase": "rcpt", "code": 451, "enhanced_code": "4.7.1",
        "reply": "Greylisted", "reason": "deferred",
    }  # fmt: skip
    assert [one["state"] for one in failed["tries"]] == ["pending", "failed"]
    _, line, *tries = news.ok("job", "recipients", str(job.id), "--state", "failed").out.splitlines()
    assert line.startswith("r0@example.org\tfailed\t550\t5.1.1")
    assert tries == [
        "  2026-11-21T00:00:00Z\ttried again\t451\t4.7.1\tat the address\tdeferred: Greylisted",
        "  2026-11-22T00:00:00Z\tfailed\t550\t5.1.1\tat the address\trefused: no such user",
    ]
    assert len(news.ok("job", "recipients", str(job.id), "--state", "sent").out.splitlines()) == 2
    assert len(news.ok("job", "recipients", str(job.id), "--state", "sent", "--tries").out.splitlines()) == 3


def test_a_halt_of_all_sending_is_what_a_job_waits_for(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["sp"])
    news.rows("INSERT INTO sending_halts (cause, reason) VALUES ('restored', 'put back from a backup')")
    shown = news.ok("job", "show", str(job.id), "--json").json
    assert (shown["state"], shown["state_reason"]) == ("waiting", "all sending is halted: put back from a backup")


def test_a_restored_ledger_that_no_sweeper_has_seen_is_what_a_job_waits_for(news: CommandLine) -> None:
    job = seed_job(news, "news", batches=["sp"])
    news.rows("UPDATE ledger_origin SET system_identifier = system_identifier + 1")
    assert "all sending is halted: the ledger was restored" in news.ok("job", "show", str(job.id)).out


# -- While workers send

RECIPIENTS = 1200
PER_MINUTE = 12_000
ENOUGH = 200
ONE_INSTALLATION = pytest.mark.parametrize("installation", ["postgres"], indirect=True, scope="session")


def publish(installation: Installation) -> tuple[str, set[str]]:
    """Publish a job that takes some seconds; give its id and its addresses."""
    name = f"slow-{uuid.uuid4().hex[:8]}"
    installation.add_profile(name, "--per-minute", str(PER_MINUTE), "--from", f"{name}@campus.example")
    addresses = [f"{name}-{number}@campus.example" for number in range(RECIPIENTS)]
    job = installation.job(mode="individual", profile=name)
    for number in (1, 2):
        chunk = addresses[(number - 1) * RECIPIENTS // 2 : number * RECIPIENTS // 2]
        recipients = [{"address": address} for address in chunk]
        installation.publish({**job, "part": {"number": number, "last": number == 2}, "recipients": recipients})
    installation.wait_until(lambda: len(received(installation, set(addresses))) >= ENOUGH, "sending is well under way")
    return job["id"], set(addresses)


def received(installation: Installation, addresses: set[str]) -> list[tuple[float, str]]:
    """Give when, and for whom of them, the mail server took a message."""
    return [
        (message.received_at, address)
        for message in installation.received()
        for address in message.recipients
        if address in addresses
    ]


def assert_quiet_since(installation: Installation, job: str, addresses: set[str], returned_at: float) -> int:
    """Nothing is sent a second after the command returned; give how many were sent, of whom everybody once."""
    leased = "SELECT FROM batches b JOIN job_ids i USING (job_number) WHERE i.id = %s AND b.state = 'leased'"
    installation.wait_until(lambda: not installation.query(leased, job), "nobody works on the job any more")
    sent = received(installation, addresses)
    assert max(at for at, _ in sent) <= returned_at + 1.0
    assert len(sent) < RECIPIENTS
    assert max(Counter(address for _, address in sent).values()) == 1
    return len(sent)


@ONE_INSTALLATION
def test_within_a_second_nothing_more_of_a_cancelled_job_is_sent(installation: Installation) -> None:
    job, addresses = publish(installation)
    installation.tocsin("job", "cancel", job, "--reason", "all clear", "--yes")
    sent = assert_quiet_since(installation, job, addresses, time.time())
    assert installation.read("job", "show", job)["recipients"] == {"sent": sent, "cancelled": RECIPIENTS - sent}


@ONE_INSTALLATION
def test_within_a_second_a_paused_job_rests_and_resumed_it_is_sent_to_everybody_once(
    installation: Installation,
) -> None:
    job, addresses = publish(installation)
    installation.tocsin("job", "pause", job)
    sent = assert_quiet_since(installation, job, addresses, time.time())
    assert installation.read("job", "show", job)["recipients"] == {"pending": RECIPIENTS - sent, "sent": sent}
    installation.tocsin("job", "resume", job)
    assert installation.wait_for_job(job)["recipients"] == {"sent": RECIPIENTS}
    assert Counter(address for _, address in received(installation, addresses)) == Counter(addresses)


@ONE_INSTALLATION
def test_a_refused_recipient_is_retried_and_refused_again_with_both_tries_told(installation: Installation) -> None:
    well = f"{uuid.uuid4().hex[:8]}@campus.example"
    # Urgent and of a source of its own: an address that was refused for good is suppressed for its source's other jobs.
    job = installation.job(
        recipients=[{"address": "refused@campus.example"}, {"address": well}], source=well, priority="urgent"
    )
    installation.publish(job, rank="urgent")
    assert installation.wait_for_job(job["id"])["recipients"] == {"sent": 1, "failed": 1}
    installation.tocsin("job", "retry", job["id"])
    installation.wait_for_job(job["id"])
    [failed] = installation.read_lines("job", "recipients", job["id"], "--state", "failed")
    assert (failed["address"], failed["attempts"]) == ("refused@campus.example", 2)
    assert [(one["state"], one["phase"], one["code"]) for one in failed["tries"]] == [("failed", "rcpt", 550)] * 2
    assert len(installation.received_by(well)) == 1
