"""A whole installation for acceptance tests: ledger, message broker, workers, mail server, token endpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from tests.servers import forked_commands
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.ports import free_port
from tocsin_console.demo.mail_sink import ReceivedMessage, read_received
from tocsin_console.demo.servers import DemoServers, RunningServers, ServersConfiguration
from tocsin_console.demo.token_endpoint import read_token_requests
from tocsin_schema.message_broker.publishing import open_publisher
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CLIENT_ID = "0f0f0f0f-1111-4222-8333-444444444444"
CLIENT_SECRET = "the-client-secret-of-the-acceptance-tests"
TENANT_ID = "0a0a0a0a-1111-4222-8333-444444444444"
SENDER = "alerts@campus.example"


class Installation:
    """Everything that one installation needs, reached as an operator and an upstream system would reach it."""

    def __init__(self, directory: Path, database_url: str, broker_url: str | None) -> None:
        self.directory = directory
        self.database_url = database_url
        self.broker_url = broker_url
        self.log = directory / "workers.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")},
            "TOCSIN_DATABASE_URL": database_url,
            "TOCSIN_DATA_DIR": str(directory / "data"),
            "TOCSIN_MASTER_KEY_FILE": str(directory / "master.key"),
            "TOCSIN_METRICS_PORT": str(free_port()),
            "TOCSIN_LEASE_SECONDS": "6",
            "TOCSIN_LOG_FORMAT": "json",
        }
        if broker_url is not None:
            self.environment["TOCSIN_BROKER_URL"] = broker_url
        self._servers: DemoServers | None = None
        self.supervisors: list[subprocess.Popen[bytes]] = []
        """Those that were started and are not ended, the oldest first."""
        self.servers: RunningServers

    def start(self, recipients: Mapping[str, list[str]] | None = None) -> None:
        """Start the servers and two worker processes, and make an OAuth profile and a sending profile."""
        write_new_key_file(Path(self.environment["TOCSIN_MASTER_KEY_FILE"]))
        self._servers = DemoServers(
            self.directory / "servers",
            ServersConfiguration(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, recipients=dict(recipients or {})),
        )
        self.servers = self._servers.start()
        self.start_workers()
        secret = self.directory / "secret"
        secret.write_text(CLIENT_SECRET)
        self.tocsin("setting", "set", "RetryFirstDelaySeconds", "1")
        self.tocsin(
            "oauth", "add", "campus", "--provider", "custom", "--token-endpoint", self.servers.token_endpoint,
            "--scope", "https://mail.campus.example/.default", "--tenant-id", TENANT_ID,
            "--client-id", CLIENT_ID, "--client-secret-file", str(secret), "--ca-file", str(self.servers.ca_file),
        )  # fmt: skip
        self.add_profile("alerts")
        self.wait_until(self._is_ready, "the workers are ready")

    def add_profile(self, name: str, *options: str) -> None:
        """Make a sending profile that signs in with the OAuth profile."""
        self.tocsin(
            "profile", "add", name, "--provider", "custom", "--host", self.servers.smtp_host,
            "--port", str(self.servers.smtp_port), "--from", SENDER, "--auth", "oauth", "--oauth", "campus",
            "--ca-file", str(self.servers.ca_file), *options,
        )  # fmt: skip

    def add_template(self, name: str, *, subject: str, text: str, **options: str) -> None:
        """Make a template."""
        file = self.directory / f"{name}.txt"
        file.write_text(text, encoding="utf-8")
        more = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
        self.tocsin("template", "add", name, "--subject", subject, "--text-file", str(file), *more)

    def start_workers(self, *, processes: int = 2, role: str = "all") -> subprocess.Popen[bytes]:
        """Start worker processes under a supervisor; give the supervisor, which leads a process group."""
        command = [sys.executable, "-m", "tocsin_console", "worker", "--role", role, "--processes", str(processes)]
        # One of several supervisors serves the metrics.
        environment = {**self.environment, **({"TOCSIN_METRICS_PORT": "0"} if self.supervisors else {})}
        with self.log.open("ab") as log:
            supervisor = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.supervisors.append(supervisor)
        return supervisor

    def stop_workers(self, number: int = signal.SIGTERM) -> int:
        """End the workers; give the supervisor's exit code, of several the highest."""
        for supervisor in self.supervisors:
            supervisor.send_signal(number)
        code = max(supervisor.wait(PATIENCE_SECONDS) for supervisor in self.supervisors)
        self.supervisors.clear()
        return code

    def stop(self) -> None:
        """End everything."""
        if self.supervisors:
            self.stop_workers()
        if self._servers is not None:
            self._servers.stop()

    def run(self, *arguments: str, given: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a `tocsin` command; a variable of value "" is taken out of its environment."""
        merged = {**self.environment, **environment}
        environment = {name: value for name, value in merged.items() if value}
        return forked_commands.run(arguments, environment=environment, given=given)

    def tocsin(self, *arguments: str, given: str | None = None) -> str:
        """Run a `tocsin` command that has to succeed; give its standard output."""
        ended = self.run(*arguments, given=given)
        assert ended.returncode == 0, f"tocsin {' '.join(arguments)}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def read(self, *arguments: str) -> Any:
        """Run a `--json` command that prints one object."""
        return json.loads(self.tocsin(*arguments, "--json"))

    def read_lines(self, *arguments: str) -> list[Any]:
        """Run a `--json` command that prints one object a line."""
        return [json.loads(line) for line in self.tocsin(*arguments, "--json").splitlines()]

    def publish(self, job: Mapping[str, Any] | bytes, *, rank: str = "normal") -> None:
        """Put a part on the intake queue."""
        body = job if isinstance(job, bytes) else json.dumps(job).encode()
        with open_publisher(broker_url=self.broker_url, database_url=self.database_url) as publisher:
            publisher.publish(body, rank)

    def metrics(self) -> dict[str, float]:
        """Scrape the workers; give each sample's value by its name and labels, as they are written."""
        lines = self._asked("metrics").text.splitlines()
        samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in samples}

    def _is_ready(self) -> bool:
        try:
            return self._asked("readyz").is_success
        except httpx.TransportError:
            return False

    def _asked(self, page: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.environment['TOCSIN_METRICS_PORT']}/{page}", trust_env=False)

    def job(self, **fields: Any) -> dict[str, Any]:
        """Give a valid whole job with an id and a source of its own: whom it suppresses is suppressed for no other."""
        job_id = str(uuid.uuid4())
        return {
            "id": job_id,
            "source": job_id,
            "profile": "alerts",
            "content": {"subject": "Water damage", "text": "Please leave the building."},
            "recipients": [{"address": "someone@campus.example"}],
            **fields,
        }

    def wait_for_job(self, job_id: str, *, state: str = "finished") -> dict[str, Any]:
        """Wait until a job is in a state; give it as `job show --json` does."""

        def is_there() -> bool:
            row = self.query("SELECT state FROM jobs WHERE id = %s", job_id)
            return bool(row) and row[0][0] == state

        self.wait_until(is_there, f"job {job_id} is {state}")
        return self.read("job", "show", job_id)

    def wait_for_dead_letter(self, code: str) -> dict[str, Any]:
        """Wait for a dead letter with a code; give the newest as `dead-letter show --json` does."""
        found: list[tuple[Any, ...]] = []

        def is_there() -> bool:
            found[:] = self.query(
                "SELECT id FROM dead_letters WHERE code = %s AND state = 'kept' ORDER BY id DESC", code
            )
            return bool(found)

        self.wait_until(is_there, f"a dead letter with code {code}")
        return self.read("dead-letter", "show", str(found[0][0]))

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Look until it is so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                dead = self.query("SELECT code, reason FROM dead_letters ORDER BY id DESC LIMIT 3")
                held = self.query(
                    "SELECT p.name, p.paused_reason, m.parked_reason FROM sending_profiles p"
                    " JOIN mailboxes m ON m.id = p.mailbox_id"
                )
                tail = self.log.read_text(errors="replace")[-3000:]
                raise AssertionError(f"not within {PATIENCE_SECONDS} s: {what}; {dead}; {held}\n{tail}")
            time.sleep(0.1)  # each look may be a connection to the ledger

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the ledger directly."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(statement.encode(), parameters).fetchall()

    def execute(self, statement: str, parameters: Mapping[str, object] | None = None) -> None:
        """Change something in the ledger directly."""
        with psycopg.connect(self.database_url, autocommit=True, prepare_threshold=None) as connection:
            connection.execute(statement.encode(), parameters)

    def received(self) -> list[ReceivedMessage]:
        """Give what the mail server has taken."""
        return read_received(self.servers.received_file)

    def received_by(self, address: str) -> list[ReceivedMessage]:
        """Give the messages that one address was sent."""
        return [message for message in self.received() if address in message.recipients]

    def token_requests(self) -> int:
        """Count the requests to the token endpoint."""
        return len(read_token_requests(self.servers.token_requests_file))
