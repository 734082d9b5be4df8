"""Eight real worker processes, and a mail server that counts what each login does: one mailbox a login."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.servers.installation import Installation
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers.limited_mail_server import LimitedMailServer
    from tests.servers.login_account import LoginAccount

PROCESSES = 8
#: A mailbox that was throttled rests for up to a minute.
_STILL_SECONDS = 120.0
_LOOK_EVERY_SECONDS = 0.2


class Fleet:
    """The processes, reached as an operator and an upstream system would, and the mail server's account of them."""

    def __init__(self, directory: Path, database_url: str, broker_url: str, server: LimitedMailServer) -> None:
        self.installation = Installation(directory, database_url, broker_url)
        self._server = server
        self._password_file = directory / "password"

    def start(self) -> None:
        """Start the processes, and wait until all of them are there."""
        write_new_key_file(self.installation.directory / "master.key")
        self._password_file.write_text("everybody may log in")
        self.installation.tocsin("setting", "set", "RetryFirstDelaySeconds", "1")
        self.installation.start_workers(processes=PROCESSES)
        self.installation.wait_until(
            lambda: self.installation.query("SELECT count(*) FROM workers") == [(PROCESSES,)], "all processes are there"
        )

    def stop(self) -> None:
        """End the processes."""
        self.installation.stop()

    def add_profile(self, name: str, *limits: str, login: str | None = None) -> None:
        """Make a sending profile on the mailbox of a login; its own name, if it is not said."""
        self.installation.tocsin(
            "profile", "add", name, "--provider", "custom", "--host", self._server.host, "--port",
            str(self._server.port), "--tls", "none", "--allow-plaintext-auth", "--auth", "basic",
            "--user", login or name, "--password-file", str(self._password_file), "--from", "news@campus.example",
            "--batch-size", "5", *limits,
        )  # fmt: skip

    def publish(self, profile: str, recipients: int, *, rank: str = "normal", **fields: Any) -> str:
        """Publish a job with a message of their own for so many recipients, 1,000 at most; give its id."""
        job = self.installation.job(
            profile=profile,
            mode="individual",
            priority=rank,
            recipients=[{"address": f"{profile}-{number}@campus.example"} for number in range(recipients)],
            **fields,
        )
        self.installation.publish(job, rank=rank)
        return str(job["id"])

    def wait_until_all_sent(self, *jobs: str) -> None:
        """Wait until jobs are finished; everybody must have been sent to."""
        for job in jobs:
            self.installation.wait_until(lambda job=job: self._state(job) == "finished", f"job {job} is finished")
        left = self.installation.query(
            "SELECT c.total - c.sent FROM job_counts c JOIN jobs j ON j.number = c.job_number"
            " WHERE j.id = ANY(%s::uuid[])",
            list(jobs),
        )
        assert left == [(0,)] * len(jobs)

    def watch(self, login: str, is_over: Callable[[LoginAccount], bool]) -> LoginAccount:
        """Look at what a login does until it is over; give up when it has done nothing for too long."""
        did_at, attempts = time.monotonic(), 0
        while not is_over(seen := self._server.seen(login)):
            if len(seen.attempts) > attempts:
                did_at, attempts = time.monotonic(), len(seen.attempts)
            if time.monotonic() > did_at + _STILL_SECONDS:
                told = self.installation.log.read_text(errors="replace")[-3000:]
                raise AssertionError(f"{login} offers nothing any more after {attempts} messages\n{told}")
            time.sleep(_LOOK_EVERY_SECONDS)
        return seen

    def slices(self) -> float:
        """Count the slices of all processes so far, whatever came of them."""
        return sum(
            value for name, value in self.installation.metrics().items() if name.startswith("tocsin_slices_total")
        )

    def logged(self, event: str, login: str) -> list[dict[str, Any]]:
        """Give what the processes have logged of an event in a login's mailbox, in the order of time."""
        lines = self.installation.log.read_text(errors="replace").splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{") and event in line]
        mailbox = f"{login} at {self._server.host}"
        return sorted(
            (line for line in told if line.get("event") == event and line.get("mailbox") == mailbox),
            key=lambda line: str(line["timestamp"]),
        )

    def use_up(self, login: str, *, recipients: int, hours_ago: int, urgent: int = 0) -> None:
        """Let a mailbox have tried so many recipients hours ago, so many of them urgent."""
        self.installation.execute(
            "INSERT INTO mailbox_usage (mailbox_id, minute, recipients, urgent)"
            " SELECT id, date_trunc('minute', now()) - make_interval(hours => %(hours_ago)s::integer),"
            " %(recipients)s, %(urgent)s"
            " FROM mailboxes WHERE login = %(login)s",
            {"login": login, "hours_ago": hours_ago, "recipients": recipients, "urgent": urgent},
        )

    def let_pass(self, minutes: int, login: str, *jobs: str) -> None:
        """Put what the ledger dates of a mailbox's rest and day, of jobs and of their retries so many minutes back."""
        self.installation.execute(
            "WITH gone AS (SELECT make_interval(mins => %(minutes)s::integer) AS by),"
            " mailbox AS (UPDATE mailboxes SET parked_until = parked_until - by,"
            "  kept_for_urgent_until = kept_for_urgent_until - by FROM gone WHERE login = %(login)s RETURNING id),"
            " used AS (UPDATE mailbox_usage u SET minute = u.minute - by FROM gone, mailbox m"
            "  WHERE u.mailbox_id = m.id),"
            " job AS (UPDATE jobs SET created_at = created_at - by, expires_at = expires_at - by FROM gone"
            "  WHERE id = ANY(%(jobs)s::uuid[]) RETURNING number),"
            " retry AS (UPDATE recipient_exceptions e SET due_at = e.due_at - by FROM gone, job j"
            "  WHERE e.job_number = j.number)"
            " UPDATE batches b SET due_at = b.due_at - by FROM gone, job j WHERE b.job_number = j.number",
            {"minutes": minutes, "login": login, "jobs": list(jobs)},
        )

    def wait_until_let_go(self, why: str) -> None:
        """Wait until no process has anything in hand."""
        self.installation.wait_until(
            lambda: self.installation.query("SELECT 1 FROM batches WHERE state = 'leased'") == [], why
        )

    def _state(self, job: str) -> str | None:
        rows = self.installation.query("SELECT state FROM jobs WHERE id = %s", job)
        return str(rows[0][0]) if rows else None
