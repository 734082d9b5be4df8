"""Installations side by side in which something is wrong: for each alert a cause, and what an operator does about it.

`busy` sends, and has all that concerns mail, profiles and credentials; `stuck` reaches no mail server; the sweeper of
`idle` dies again and again and then hangs; `cut` is cut off from its ledger and its message broker. They are apart
since some causes hide others.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit, urlunsplit

import psutil
from psycopg.conninfo import conninfo_to_dict

from tests.servers.faults.mail_control import Configuration
from tests.servers.faults.mail_events import MailPhase
from tests.servers.faults.mail_moods import DroppingAfterDot, Refusing
from tests.servers.faults.mail_server import MailServerProcess
from tests.servers.installation import (
    CLIENT_ID,
    CLIENT_SECRET,
    TENANT_ID,
    Installation,
)
from tests.servers.limited_mail_server import LimitedMailServer
from tests.servers.line import Line
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.ports import free_port
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from pathlib import Path
    from types import TracebackType

INSTALLATIONS: Final = ("busy", "stuck", "idle", "cut")
DEATHS: Final = 5
REFUSED: Final = "refused@campus.example"

_LOOK_EVERY_SECONDS: Final = 0.05


class AlertScene:
    """The installations, their servers, and what is wrong with them, while its `with` statement runs."""

    def __init__(self, directory: Path, urls: Mapping[str, str], broker_urls: Mapping[str, str]) -> None:
        self._ledger_line = Line(_server_of(urls["cut"]))
        self._broker_line = Line(_broker_of(broker_urls["cut"]))
        self._urls = urls
        self._broker_urls = broker_urls
        self._directory = directory
        self._mail = LimitedMailServer()
        self._jobs: list[str] = []
        self._held = ""
        self._frozen: psutil.Process | None = None
        self._stack = ExitStack()

    @property
    def targets(self) -> dict[str, list[str]]:
        """Where each installation's workers tell of themselves."""
        ports = {name: one.environment["TOCSIN_METRICS_PORT"] for name, one in self._installations.items()}
        return {name: [f"127.0.0.1:{port}"] for name, port in ports.items()}

    def add_profiles(self, *, secret_lives: timedelta) -> None:
        """Make all profiles; a wrong secret is said to live so long from now on."""
        at_once(
            lambda: self._add_profile("busy", "slow", self._mail.port, "--connections", "3", "--per-minute", "120"),
            lambda: self._add_profile("busy", "used-up", self._mail.port, "--per-day", "100"),
            lambda: self._add_profile("stuck", "alone", free_port()),
            lambda: self._add_plain_profile("dropped", self._dropping),
            lambda: self._add_plain_profile("unwelcome", self._unwelcoming),
            lambda: self._add_refused_profile(datetime.now(UTC) + secret_lives),
        )

    def provoke(self) -> None:
        """Bring about every cause that lasts by itself."""
        self._ledger_line.cut()
        self._broker_line.cut()
        self._dropping.behave(DroppingAfterDot(1.0))
        self._unwelcoming.behave(Refusing(MailPhase.RCPT, for_good=True, probability=1.0))
        held = self._busy.job(profile="dropped", on_unknown="hold")
        self._held = str(held["id"])
        for part in (held, self._busy.job(profile="refused"), b"not a job"):
            self._busy.publish(part)
        self._busy.execute(
            "INSERT INTO mailbox_usage (mailbox_id, minute, recipients, urgent)"
            " SELECT id, date_trunc('minute', now()) - interval '1 hour', 95, 0 FROM mailboxes WHERE login = 'used-up'"
        )
        self._stuck.publish(self._stuck.job(profile="alone"))
        self._idle.tocsin("pause", "--reason", "the wrong list")

    def go_on(self) -> None:
        """Bring about what has to come again and again: more mail than goes out, and what is refused."""
        slow = self._busy.job(
            profile="slow", mode="individual", priority="bulk",
            recipients=[{"address": f"slow{number}@campus.example"} for number in range(200)],
        )  # fmt: skip
        self._jobs.append(str(slow["id"]))
        self._busy.publish(slow, rank="bulk")
        urgent = [{"address": "first@campus.example"}, {"address": REFUSED}]
        self._busy.publish(self._busy.job(priority="urgent", recipients=urgent), rank="urgent")
        self._write_to_unwelcoming(12)
        # The time has come to ask the token endpoint, and to try the profile, that has refused.
        self._busy.execute(
            "WITH asked AS (UPDATE access_tokens SET retry_at = now() WHERE retry_at > now())"
            " UPDATE sending_profiles SET probe_at = now() WHERE pause_cause = 'credentials' AND probe_at > now()"
        )

    def kill_workers(self) -> None:
        """Kill the idle installation's worker as soon as it is there, again and again, and freeze the last one."""
        killed: set[int] = set()
        for _ in range(DEATHS):
            child = self._wait_for_worker(killed)
            killed.add(child.pid)
            child.kill()
        self._frozen = self._wait_for_worker(killed)
        self._frozen.suspend()

    def mend(self) -> None:
        """End every cause, as an operator does."""
        at_once(
            self._cancel_all,
            lambda: self._busy.tocsin(
                "oauth", "replace-secret", "expiring", "--client-secret-file", "-", given=CLIENT_SECRET
            ),
            lambda: self._busy.tocsin("profile", "set", "used-up", "--per-day", "1000"),
            self._settle_unknown,
            self._be_welcome,
            self._discard_dead_letter,
            self._reach_mail_server,
            lambda: self._idle.tocsin("resume", "--yes"),
            self._thaw,
            self._ledger_line.mend,
            self._broker_line.mend,
        )

    def told_by(self, name: str) -> str:
        """Give the end of an installation's log."""
        return self._installations[name].log.read_text(errors="replace")[-3000:]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        """Start the servers, and the workers of all installations."""
        for server in (self._ledger_line, self._broker_line, self._mail):
            stack.enter_context(server)
        through = {
            "cut": (
                _through(self._urls["cut"], self._ledger_line),
                _through(self._broker_urls["cut"], self._broker_line),
            )
        }
        self._installations: dict[str, Installation] = {}
        for name in INSTALLATIONS:
            directory = self._directory / name
            directory.mkdir()
            self._installations[name] = Installation(
                directory, *through.get(name, (self._urls[name], self._broker_urls[name]))
            )
        self._busy, self._stuck, self._idle, _ = self._installations.values()
        stack.callback(lambda: at_once(*(one.stop for one in self._installations.values())))
        stack.callback(self._thaw)
        self._dropping = self._start_mail_server("dropping", stack)
        self._unwelcoming = self._start_mail_server("unwelcoming", stack)
        self._password = self._directory / "password"
        self._password.write_text("everybody may log in")
        for name, role in (("stuck", "all"), ("idle", "sweeper"), ("cut", "sweeper")):
            write_new_key_file(self._installations[name].directory / "master.key")
            self._installations[name].start_workers(processes=1, role=role)
        self._busy.start({REFUSED: ["550 5.1.1 No such user here"]})

    def _start_mail_server(self, name: str, stack: ExitStack) -> MailServerProcess:
        configuration = Configuration(
            directory=str(self._directory / name), client_id=CLIENT_ID, client_secret=CLIENT_SECRET, seed=1,
            seconds_a_message=0.0, token_seconds=3600,
        )  # fmt: skip
        server = MailServerProcess(configuration)
        stack.callback(server.stop)
        return server

    def _add_profile(self, installation: str, name: str, port: int, *limits: str) -> None:
        self._installations[installation].tocsin(
            "profile", "add", name, "--provider", "custom", "--host", self._mail.host, "--port", str(port), "--tls",
            "none", "--allow-plaintext-auth", "--auth", "basic", "--user", name, "--password-file", str(self._password),
            "--from", "news@campus.example", "--batch-size", "5", *limits,
        )  # fmt: skip

    def _add_plain_profile(self, name: str, server: MailServerProcess) -> None:
        self._busy.tocsin(
            "profile", "add", name, "--provider", "custom", "--host", "127.0.0.1", "--port",
            str(server.whereabouts.plain_port), "--tls", "none", "--auth", "none", "--from", f"{name}@campus.example",
        )  # fmt: skip

    def _add_refused_profile(self, secret_ends: datetime) -> None:
        servers = self._busy.servers
        self._busy.tocsin(
            "oauth", "add", "expiring", "--provider", "custom", "--token-endpoint", servers.token_endpoint,
            "--scope", "https://mail.campus.example/.default", "--tenant-id", TENANT_ID, "--client-id", CLIENT_ID,
            "--client-secret-file", "-", "--secret-expires", secret_ends.isoformat(),
            "--ca-file", str(servers.ca_file), given="not-the-secret",
        )  # fmt: skip
        self._busy.add_profile("refused", "--oauth", "expiring", "--from", "refused@campus.example")

    def _cancel_all(self) -> None:
        # One by the command, as an operator does; the others take too long that way.
        first, *others = self._jobs
        self._busy.tocsin("job", "cancel", first, "--yes")
        self._busy.execute("UPDATE jobs SET state = 'cancelled' WHERE id = ANY(%(jobs)s::uuid[])", {"jobs": others})

    def _settle_unknown(self) -> None:
        self._dropping.behave()
        self._busy.tocsin("job", "settle", self._held, "--as", "sent", "--yes")

    def _be_welcome(self) -> None:
        self._unwelcoming.behave()
        self._write_to_unwelcoming(1)

    def _write_to_unwelcoming(self, count: int) -> None:
        recipients = [{"address": f"anybody{number}@campus.example"} for number in range(count)]
        self._busy.publish(self._busy.job(profile="unwelcome", mode="shared", recipients=recipients))

    def _discard_dead_letter(self) -> None:
        [letter] = self._busy.read_lines("dead-letter", "list")
        self._busy.tocsin("dead-letter", "discard", str(letter["id"]))

    def _reach_mail_server(self) -> None:
        self._stuck.tocsin("profile", "set", "alone", "--port", str(self._mail.port))
        self._stuck.execute("UPDATE mailboxes SET parked_until = NULL, parked_reason = NULL")

    def _thaw(self) -> None:
        if self._frozen is not None:
            with suppress(psutil.NoSuchProcess):
                self._frozen.resume()

    def _wait_for_worker(self, others: set[int]) -> psutil.Process:
        """Wait for a worker process of the idle installation that is none of these."""
        [supervisor] = self._idle.supervisors
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for child in psutil.Process(supervisor.pid).children():
                with suppress(psutil.NoSuchProcess):
                    if child.pid not in others and "tocsin_workers.process" in child.cmdline():
                        return child
            time.sleep(_LOOK_EVERY_SECONDS)
        raise AssertionError(f"no worker is started again: {self.told_by('idle')}")


def at_once(*calls: Callable[[], object]) -> None:
    """Make calls side by side."""
    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        for made in [pool.submit(call) for call in calls]:
            made.result()


def _server_of(database_url: str) -> tuple[str, int] | str:
    """Tell where a database's server listens, for a line to it."""
    server = conninfo_to_dict(database_url)
    host, port = str(server["host"]), int(server.get("port") or 5432)
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def _broker_of(broker_url: str) -> tuple[str, int]:
    parts = urlsplit(broker_url)
    return parts.hostname or "127.0.0.1", parts.port or 5672


def _through(url: str, line: Line) -> str:
    """Give the URL of the same server through a line."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    place = f"{line.host}:{line.port}"
    # A Unix socket's directory stands in the query.
    query = "" if parts.scheme.startswith("postgres") else parts.query
    return urlunsplit(parts._replace(netloc=f"{login}@{place}" if login else place, query=query))
