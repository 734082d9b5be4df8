"""The `tocsin` command, run in this process against a real ledger, and rows for it to show."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tocsin_console.main import main

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What a command printed and how it ended."""

    code: int
    raw: bytes
    errors: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def json(self) -> dict[str, Any]:
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """Runs commands with an environment and a data directory of their own."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[bytes],
        data_dir: Path,
        database_url: str | None,
    ) -> None:
        self.data_dir = data_dir
        self.database_url = database_url or ""
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for variable in ("TOCSIN_MASTER_KEY", "TOCSIN_MASTER_KEY_FILE", "TOCSIN_BROKER_URL", "TOCSIN_LOG_LEVEL"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("TOCSIN_DATA_DIR", str(data_dir))
        monkeypatch.setenv("TOCSIN_DATABASE_URL", self.database_url)

    def __call__(self, *arguments: str, stdin: bytes | io.BytesIO = b"") -> Outcome:
        stream = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream, encoding="utf-8"))
        self._capsys.readouterr()
        code = main(arguments)
        printed = self._capsys.readouterr()
        return Outcome(code, printed.out, printed.err.decode())

    def ok(self, *arguments: str, stdin: bytes | io.BytesIO = b"") -> Outcome:
        """Run a command that has to succeed."""
        outcome = self(*arguments, stdin=stdin)
        assert outcome.code == 0, outcome.errors
        return outcome

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Look into the ledger past the command, or change it."""
        with psycopg.connect(self.database_url) as connection:
            cursor = connection.execute(query.encode(), parameters)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def tocsin(
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    database_url: str,
) -> CommandLine:
    """The command, against a fresh ledger and with a master key."""
    command = CommandLine(monkeypatch, capsysbinary, tmp_path / "data", database_url)
    command.ok("key", "init")
    return command


@dataclass(frozen=True)
class SeededJob:
    """A job as intake and senders would have left it."""

    number: int
    id: UUID


def seed_job(
    tocsin: CommandLine,
    profile: str,
    *,
    batches: list[str],
    state: str = "running",
    source: str | None = None,
) -> SeededJob:
    """Write a job whose batches have these states, a letter a recipient.

    s sent by one message a batch, p pending, i in flight, f failed (550 5.1.1), d deferred (451 4.2.0, due in an
    hour), u unknown. Recipients are `r0@example.org` and so on.
    """
    job_id = uuid4()
    with psycopg.connect(tocsin.database_url) as connection:
        row = connection.execute(b"SELECT next_job_number()").fetchone()
        assert row is not None
        number = int(row[0])
        connection.execute(b"INSERT INTO job_ids (id, job_number, digest) VALUES (%s, %s, '\\x00')", (job_id, number))
        connection.execute(
            b"""INSERT INTO jobs (number, id, source, profile_id, mode, rank, on_unknown, state, last_part, expires_at,
                                 finished_at)
               SELECT %s, %s, %s, id, 'shared', 1, 'resend', %s::text, 1, now() + interval '3 days',
                      CASE WHEN %s::text = 'finished' THEN now() END
               FROM sending_profiles WHERE name = %s""",
            (number, job_id, source, state, state, profile),
        )
        connection.execute(
            b"INSERT INTO job_parts (job_number, number, digest, recipients, duplicates) VALUES (%s, 1, '\\x00', 9, 2)",
            (number,),
        )
        first = 0
        for batch_number, letters in enumerate(batches):
            _seed_batch(connection, number, batch_number, first=first, letters=letters, profile=profile)
            first += len(letters)
    return SeededJob(number, job_id)


def _seed_batch(
    connection: psycopg.Connection[Any], job: int, number: int, *, first: int, letters: str, profile: str
) -> None:
    sent = "".join("1" if letter == "s" else "0" for letter in letters)
    in_flight = "".join("1" if letter == "i" else "0" for letter in letters)
    connection.execute(
        b"""INSERT INTO batches (job_number, number, first_ordinal, size, state, due_at, sent, in_flight, failed,
                                unknown, leased_by)
           VALUES (%s, %s, %s, %s, %s::text, now(), %s, %s, %s, %s,
                   CASE WHEN %s::text = 'leased' THEN gen_random_uuid() END)""",
        (
            job, number, first, len(letters), _batch_state(letters), sent, in_flight, letters.count("f"),
            letters.count("u"), _batch_state(letters),
        ),
    )  # fmt: skip
    for index, letter in enumerate(letters):
        ordinal = first + index
        connection.execute(
            b"INSERT INTO recipients (job_number, ordinal, batch_number, address, name) VALUES (%s, %s, %s, %s, %s)",
            (job, ordinal, number, f"r{ordinal}@example.org", f"R {ordinal}"),
        )
        if letter in "fdu":
            _seed_exception(connection, job, number, ordinal, letter)
    if "1" in sent:
        content = f"bytes of {job}/{number}".encode()
        connection.execute(
            b"""INSERT INTO email_copies (job_number, batch_number, lease_epoch, first_index, recipients, profile,
                                         from_address, visible_to, subject, message_id, dated_at, accepted_at,
                                         reply_code, enhanced_code, reply, size, sha256, content)
               VALUES (%s, %s, 1, %s, %s, %s, 'news@example.org', 'news@example.org', 'Hello', %s, now(), now(), 250,
                       '2.0.0', 'Ok: queued', %s, %s, %s)""",
            (
                job, number, sent.index("1"), sent, profile, f"<{job}.{number}@example.org>", len(content),
                hashlib.sha256(content).digest(), content,
            ),
        )  # fmt: skip


def _seed_exception(connection: psycopg.Connection[Any], job: int, batch: int, ordinal: int, letter: str) -> None:
    state, code, enhanced, reply, reason = {
        "f": ("failed", 550, "5.1.1", "no such user", "the recipient was refused"),
        "d": ("pending", 451, "4.2.0", "try later", "the recipient was deferred"),
        "u": ("unknown", None, None, None, "no reply came"),
    }[letter]
    connection.execute(
        b"""INSERT INTO recipient_exceptions (job_number, ordinal, batch_number, state, attempts, due_at, code,
                                             enhanced_code, reply, reason)
           VALUES (%s, %s, %s, %s::text, 1, CASE WHEN %s::text = 'pending' THEN now() + interval '1 hour' END,
                   %s, %s, %s, %s)""",
        (job, ordinal, batch, state, state, code, enhanced, reply, reason),
    )


def _batch_state(letters: str) -> str:
    if "i" in letters:
        return "leased"
    return "due" if set(letters) & {"p", "d"} else "done"


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the command as a process of its own, with this test's environment."""
    return subprocess.Popen(
        [sys.executable, "-c", "from tocsin_console.main import run; run()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
