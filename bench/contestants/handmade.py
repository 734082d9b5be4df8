"""The pipeline that one would write: dramatiq + RabbitMQ + smtplib + psycopg, with both a queue and a record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import psutil
import psycopg
from dramatiq import Message
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.contestants.client_process import ROOT
from bench.contestants.contestant import Contestant, MailServer
from bench.mail import BATCH_SIZE, SENDER, SHARED_SUBJECT, SHARED_TEXT, Load, Mode, individual_subject, individual_text

if TYPE_CHECKING:
    from pathlib import Path

QUEUE: Final = "handmade"
PROCESSES: Final = 2
THREADS: Final = 8
#: Confirms come one at a time on a channel, and each thread has its own.
PUBLISHING_THREADS: Final = 8

_NAME_TAG: Final = "{name}"
_POLL_SECONDS: Final = 0.05
_LEAST_RATE: Final = 20
_STOP_SECONDS: Final = 30
_SCHEMA: Final = """
CREATE TABLE handmade_jobs (id uuid PRIMARY KEY, sender text NOT NULL, subject text NOT NULL, body text NOT NULL);
CREATE TABLE handmade_recipients (
    job_id uuid NOT NULL, number integer NOT NULL, address text NOT NULL, name text,
    state text NOT NULL DEFAULT 'pending', reply text, sent_at timestamptz,
    PRIMARY KEY (job_id, number)
);
CREATE TABLE handmade_copies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job_id uuid NOT NULL, first integer NOT NULL,
    recipients integer NOT NULL, subject text NOT NULL, message_id text NOT NULL, size integer NOT NULL,
    digest bytea NOT NULL, sent_at timestamptz NOT NULL DEFAULT now()
);
"""
_IS_PENDING: Final = "SELECT FROM handmade_recipients WHERE job_id = %s AND state = 'pending' LIMIT 1"
_SENT: Final = "SELECT count(*) FROM handmade_recipients WHERE job_id = %s AND state = 'sent'"


class Handmade(Contestant):
    """Publishes a task for every message, with confirms, once the recipients stand in the ledger."""

    name = "handmade"

    def __init__(
        self, directory: Path, database_url: str, broker_url: str, mail_server: MailServer, *, connections: int | None
    ) -> None:
        """Make the tables in the (empty) database."""
        self._log = directory / "handmade.log"
        self._threads = THREADS if connections is None else max(1, connections // PROCESSES)
        self._broker_url = broker_url
        self._database_url = database_url
        self._settings = {
            "broker_url": broker_url,
            "database_url": database_url,
            "host": mail_server.host,
            "port": mail_server.port,
        }
        self._workers: subprocess.Popen[bytes] | None = None
        with psycopg.connect(database_url) as ledger:
            ledger.execute(_SCHEMA)

    def start(self) -> None:
        self._ledger = psycopg.connect(self._database_url, autocommit=True)
        self._broker = RabbitmqBroker(url=self._broker_url, confirm_delivery=True, middleware=[])
        self._broker.declare_queue(QUEUE, ensure=True)
        command = [sys.executable, "-m", "dramatiq", "bench.contestants.handmade_worker"]
        options = ["--processes", str(PROCESSES), "--threads", str(self._threads), "--skip-logging"]
        with self._log.open("ab") as log:
            self._workers = subprocess.Popen(
                [*command, *options], cwd=ROOT, env=self._environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def send(self, load: Load) -> None:
        job_id = uuid4()
        self._write(job_id, load)
        size = 1 if load.mode is Mode.INDIVIDUAL else BATCH_SIZE
        starts = range(0, load.recipients, size)
        with ThreadPoolExecutor(PUBLISHING_THREADS) as threads:
            for _ in threads.map(lambda first: self._publish(job_id, first, size), starts):
                pass
        self._wait(job_id, load)
        sent = self._ledger.execute(_SENT, (job_id,)).fetchone()
        if sent != (load.recipients,):
            raise RuntimeError(f"{self.name} sent {sent} of {load.recipients}")

    def _wait(self, job_id: UUID, load: Load) -> None:
        """Wait until nobody is pending, and look seldom enough that looking costs next to nothing."""
        deadline = time.monotonic() + 60 + load.recipients / _LEAST_RATE
        while True:
            asked = time.monotonic()
            if self._ledger.execute(_IS_PENDING, (job_id,)).fetchone() is None:
                return
            if asked > deadline:
                raise RuntimeError(f"{self.name} does not finish: {self._log.read_text()[-2000:]}")
            time.sleep(max(_POLL_SECONDS, 50 * (time.monotonic() - asked)))

    def stop(self) -> None:
        if self._workers is not None:
            self._workers.send_signal(signal.SIGTERM)
            try:
                self._workers.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._workers.pid, signal.SIGKILL)
                self._workers.wait()
            self._workers = None
            self._broker.close()
            self._ledger.close()

    def groups(self) -> dict[str, list[int]]:
        return {} if self._workers is None else {"workers": [self._workers.pid]}

    def worker_ids(self) -> list[int]:
        return [] if self._workers is None else [child.pid for child in psutil.Process(self._workers.pid).children()]

    def _write(self, job_id: UUID, load: Load) -> None:
        """Write the job and its recipients in one transaction."""
        subject, body = SHARED_SUBJECT, SHARED_TEXT
        if load.mode is Mode.INDIVIDUAL:
            subject, body = individual_subject(_NAME_TAG), individual_text(_NAME_TAG)
        with self._ledger.transaction():
            self._ledger.execute("INSERT INTO handmade_jobs VALUES (%s, %s, %s, %s)", (job_id, SENDER, subject, body))
            with self._ledger.cursor().copy(
                "COPY handmade_recipients (job_id, number, address, name) FROM STDIN"
            ) as rows:
                for number, (address, name) in enumerate(zip(load.addresses(), load.names(), strict=True)):
                    rows.write_row((job_id, number, address, name if load.mode is Mode.INDIVIDUAL else None))

    def _publish(self, job_id: UUID, first: int, size: int) -> None:
        task = Message(
            queue_name=QUEUE, actor_name="send", args=(str(job_id), first, size), kwargs={}, options={}
        )  # fmt: skip
        self._broker.enqueue(task)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HANDMADE_SETTINGS": json.dumps(self._settings)}
