"""Tocsin, all of it: from the publisher through RabbitMQ, intake, claims, marks and SMTP to outcomes and copies."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psutil
import psycopg

from bench.contestants.contestant import Contestant, MailServer
from bench.mail import (
    BATCH_SIZE,
    SENDER,
    SHARED_SUBJECT,
    SHARED_TEXT,
    Load,
    Mode,
    individual_subject,
    individual_text,
)
from tests.servers.installation import Installation
from tocsin_producers import Content, Publisher, Recipient
from tocsin_schema.ledger.migrate import migrate
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from uuid import UUID

PROFILE: Final = "bench"
NAME_TAG: Final = "{{ recipient.name }}"

_POLL_SECONDS: Final = 0.01
_READY_SECONDS: Final = 60.0
#: Far below any rate worth measuring.
_LEAST_RATE: Final = 50

_STATE: Final = "SELECT state FROM jobs WHERE id = %s"
_STAGES: Final = """
SELECT (SELECT max(received_at) FROM job_parts p WHERE p.job_number = j.number), min(c.accepted_at), max(c.accepted_at)
FROM jobs j JOIN email_copies c ON c.job_number = j.number
WHERE j.id = %s
GROUP BY j.number
"""
_COUNTS: Final = "SELECT c.total, c.sent FROM job_counts c JOIN jobs j ON j.number = c.job_number WHERE j.id = %s"


class Tocsin(Contestant):
    """An installation with a profile that has no limits but, where given, its connections."""

    name = "tocsin"

    def __init__(
        self,
        directory: Path,
        database_url: str,
        broker_url: str,
        mail_server: MailServer,
        *,
        processes: int = 2,
        threads: int | None = None,
        connections: int | None = None,
        profile_options: Sequence[str] = (),
    ) -> None:
        """Migrate the (empty) database and add the profile."""
        asyncio.run(migrate(database_url))
        self.installation = Installation(directory, database_url, broker_url)
        del self.installation.environment["TOCSIN_LEASE_SECONDS"]  # the tests' is a short one
        if threads is not None:
            self.installation.environment["TOCSIN_WORKER_THREADS"] = str(threads)
        write_new_key_file(directory / "master.key")
        self.broker_url = broker_url
        self._processes = processes
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.installation.tocsin(
            "profile", "add", PROFILE, "--provider", "custom", "--host", mail_server.host,
            "--port", str(mail_server.port), "--batch-size", str(BATCH_SIZE),
            "--connections", "none" if connections is None else str(connections),
            *self._way_in(mail_server), *profile_options,
        )  # fmt: skip

    def _way_in(self, mail_server: MailServer) -> list[str]:
        """Give the profile's options for how to log in; make the OAuth profile where there is one."""
        sign_in = mail_server.sign_in
        if sign_in is None:
            return ["--tls", "none", "--auth", "none", "--from", SENDER]
        authorities = {"mail": sign_in.ca_pem, "token": sign_in.token_ca_pem}
        files = {name: self.installation.directory / f"{name}-ca.pem" for name in authorities}
        for name, file in files.items():
            file.write_text(authorities[name])
        self.installation.tocsin(
            "oauth", "add", PROFILE, "--provider", "custom", "--token-endpoint", sign_in.token_endpoint,
            "--scope", sign_in.scope, "--client-id", sign_in.client_id, "--client-secret-file", "-",
            "--ca-file", str(files["token"]), given=sign_in.client_secret,
        )  # fmt: skip
        return ["--from", sign_in.mailbox, "--auth", "oauth", "--oauth", PROFILE, "--ca-file", str(files["mail"])]

    def start(self) -> None:
        self._supervisor = self.installation.start_workers(processes=self._processes)
        self._connection = psycopg.connect(self.installation.database_url, autocommit=True)

    def stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor = None
            self.installation.stop()
            self._connection.close()

    def send(self, load: Load) -> None:
        with Publisher(broker_url=self.broker_url) as publisher:
            self._began_at = datetime.now(UTC)
            self._last_job = publish(publisher, load)
        self.wait(self._last_job, load)
        self._ended_at = datetime.now(UTC)

    def note(self) -> str:
        """Say when, in seconds from the publishing, the job reached which stage."""
        stages = self._ask(_STAGES, self._last_job)
        assert stages is not None
        names = ("taken in", "first accepted", "last accepted", "seen finished")
        times = [moment - self._began_at for moment in (*stages, self._ended_at) if isinstance(moment, datetime)]
        return ", ".join(f"{name} {passed.total_seconds():.2f} s" for name, passed in zip(names, times, strict=True))

    def wait(self, job_id: UUID, load: Load) -> None:
        """Wait until the ledger says that a job is finished; RuntimeError where not everybody was sent to."""
        deadline = time.monotonic() + _READY_SECONDS + load.recipients / _LEAST_RATE
        while self._ask(_STATE, job_id) != ("finished",):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Tocsin does not finish: {self._ask(_COUNTS, job_id)}; {self._log_tail()}")
            time.sleep(_POLL_SECONDS)
        if self._ask(_COUNTS, job_id) != (load.recipients, load.recipients):
            raise RuntimeError(f"not all of {load.recipients}: {self._ask(_COUNTS, job_id)}; {self._log_tail()}")

    def groups(self) -> dict[str, list[int]]:
        return {} if self._supervisor is None else {"workers": [self._supervisor.pid]}

    def worker_ids(self) -> list[int]:
        if self._supervisor is None:
            return []
        return [child.pid for child in psutil.Process(self._supervisor.pid).children()]

    def _ask(self, statement: str, job_id: UUID) -> tuple[object, ...] | None:
        return self._connection.execute(statement.encode(), (job_id,)).fetchone()

    def _log_tail(self) -> str:
        return self.installation.log.read_text(errors="replace")[-2000:]


def publish(publisher: Publisher, load: Load, *, priority: str = "normal") -> UUID:
    """Publish one job; it returns when all of it is confirmed."""
    job_id = uuid4()
    match load.mode:
        case Mode.INDIVIDUAL:
            content = Content(individual_subject(NAME_TAG), individual_text(NAME_TAG))
        case Mode.SHARED:
            content = Content(SHARED_SUBJECT, SHARED_TEXT)
    publisher.publish(
        id=job_id,
        profile=PROFILE,
        mode=load.mode.value,
        priority=priority,
        content=content,
        recipients=_recipients(load),
    )
    return job_id


def _recipients(load: Load) -> Iterator[Recipient | str]:
    match load.mode:
        case Mode.INDIVIDUAL:
            return (Recipient(address, name) for address, name in zip(load.addresses(), load.names(), strict=True))
        case Mode.SHARED:
            return load.addresses()
