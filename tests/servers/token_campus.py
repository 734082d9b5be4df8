"""An installation whose mail server and token endpoint run in the test's own event loop, in the test's hand."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.servers.installation import Installation
from tests.servers.token_endpoint import CLIENT_ID, CLIENT_SECRET, TENANT, TokenEndpoint, token_endpoint
from tocsin_console.demo.certificates import DemoCertificates
from tocsin_console.demo.mail_sink import MailSink, SinkOptions
from tocsin_console.demo.sink_session import SinkSession
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

OAUTH_PROFILE = "campus"


class Gathering:
    """A door that opens for all once so many stand before it, or when the first has waited for too long."""

    def __init__(self, size: int, *, patience_seconds: float = 10.0) -> None:
        self.came = 0
        self._size = size
        self._patience_seconds = patience_seconds
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Come to the door."""
        self.came += 1
        if self.came >= self._size:
            self._open.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_seconds):
                await self._open.wait()
        self._open.set()


class GatheringSink(MailSink):
    """A mail sink that answers no log-in before all have come to `gathering`, where there is one."""

    gathering: Gathering | None = None

    def _new_session(self) -> SinkSession:
        self._sessions += 1
        return _GatheringSession(self, self._sessions)


class _GatheringSession(SinkSession):
    async def _check_token(self, initial: str) -> str | None:
        sink = self._sink
        assert isinstance(sink, GatheringSink)
        if sink.gathering is not None:
            await sink.gathering.wait()
        return await super()._check_token(initial)


@dataclass
class TokenCampus:
    """The servers, and what the mail server thinks of tokens."""

    installation: Installation
    endpoint: TokenEndpoint
    tls: ssl.SSLContext
    revoked: int = 0
    """Tokens up to this number are no longer taken."""
    refused: list[str] = field(default_factory=list)
    """The tokens that were refused, each as often as it was."""

    def __post_init__(self) -> None:
        self.sink = GatheringSink(SinkOptions(tls=self.tls, check_token=self.takes))

    def takes(self, token: str) -> bool:
        """Whether a token was given out, is not too old and not revoked."""
        number = int(token.removeprefix("tokentext-"))
        given_at = self.endpoint.requests[number - 1].at
        lifetime = float(str(self.endpoint.lifetime))
        good = number > self.revoked and asyncio.get_running_loop().time() < given_at + lifetime
        if not good:
            self.refused.append(token)
        return good

    def revoke_all(self) -> None:
        """Refuse every token so far from now on, and close every session."""
        self.revoked = self.endpoint.token_requests
        self.close_sessions()

    def close_sessions(self) -> None:
        """Break every connection to the mail server."""
        for session in list(self.sink._open):
            session.abort()

    async def add_oauth_profile(self) -> None:
        """Make the OAuth profile."""
        ca_file = self.installation.directory / "endpoint-ca.pem"
        ca_file.write_text(self.endpoint.ca_pem)
        await self.tocsin(
            "oauth", "add", OAUTH_PROFILE, "--provider", "custom", "--token-endpoint", self.endpoint.custom_url,
            "--scope", "mail", "--tenant-id", TENANT, "--client-id", CLIENT_ID, "--client-secret-file", "-",
            "--ca-file", str(ca_file), given=CLIENT_SECRET,
        )  # fmt: skip

    async def add_profiles(self, count: int, *, connections: int | None = None) -> list[str]:
        """Make sending profiles with a mailbox each, which all use the OAuth profile; give their names."""
        names = [f"profile-{number}" for number in range(count)]
        first, *others = names
        await self.tocsin(
            "profile", "add", first, "--provider", "custom", "--host", "localhost",
            "--port", str(self.sink.address[1]), "--from", f"{first}@campus.example", "--auth", "oauth",
            "--oauth", OAUTH_PROFILE, "--ca-file", str(self.installation.directory / "ca.pem"),
            "--connections", str(connections or "none"),
        )  # fmt: skip
        # The others as copies of the first: a command each would take longer than the test.
        for name in others:
            await asyncio.to_thread(
                self.installation.execute,
                "WITH mailbox AS (INSERT INTO mailboxes (host, login, connections)"
                " VALUES ('localhost', %(address)s, %(connections)s) RETURNING id)"
                " INSERT INTO sending_profiles (name, provider, host, port, tls, auth, from_address, oauth_profile_id,"
                " login, ca_pem, batch_size, mailbox_id) SELECT %(name)s, provider, host, port, tls, auth,"
                " %(address)s, oauth_profile_id, %(address)s, ca_pem, batch_size, mailbox.id"
                " FROM sending_profiles, mailbox WHERE name = %(first)s",
                {
                    "name": name,
                    "address": f"{name}@campus.example",
                    "connections": connections,
                    "first": first,
                },
            )
        return names

    def job(self, profile: str, recipients: int = 1) -> dict[str, Any]:
        """Give an individual job of a profile: urgent, since only such a one may have all threads."""
        addresses = [{"address": f"{profile}-{number}@campus.example"} for number in range(recipients)]
        return self.installation.job(profile=profile, mode="individual", priority="urgent", recipients=addresses)

    async def publish(self, *jobs: dict[str, Any]) -> None:
        """Put jobs on the intake queue."""

        def put() -> None:
            for job in jobs:
                self.installation.publish(job, rank="urgent")

        await asyncio.to_thread(put)

    async def all_sent(self, *jobs: dict[str, Any]) -> None:
        """Wait until the jobs are finished; every recipient must have been sent to, at the first try."""
        await self.until(
            lambda: (
                self.installation.query(
                    "SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND state = 'finished'",
                    [j["id"] for j in jobs],
                )
                == [(len(jobs),)]
            ),
            "all jobs are finished",
        )
        left = await asyncio.to_thread(
            self.installation.query,
            "SELECT b.job_number FROM batches b JOIN jobs j ON j.number = b.job_number"
            " WHERE j.id = ANY(%s::uuid[]) AND bit_count(b.sent) <> b.size",
            [j["id"] for j in jobs],
        )
        assert left == []
        assert await asyncio.to_thread(self.installation.query, "SELECT * FROM recipient_exceptions") == []

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Look until it is so, outside this loop, which serves meanwhile."""
        await asyncio.to_thread(self.installation.wait_until, condition, what)

    async def start_workers(self, *, processes: int, role: str = "all") -> int:
        """Start workers; give the process group that they are."""
        supervisor = await asyncio.to_thread(self.installation.start_workers, processes=processes, role=role)
        return supervisor.pid

    async def tocsin(self, *arguments: str, given: str | None = None) -> str:
        """Run a `tocsin` command that has to succeed."""
        return await asyncio.to_thread(self.installation.tocsin, *arguments, given=given)


@asynccontextmanager
async def token_campus(
    directory: Path, database_url: str, broker_url: str | None, **environment: str
) -> AsyncGenerator[TokenCampus]:
    """Run the servers; no worker yet, no sending profile."""
    installation = Installation(directory, database_url, broker_url)
    installation.environment.update(environment)
    write_new_key_file(directory / "master.key")
    tls = DemoCertificates(directory).server_context()
    async with token_endpoint() as endpoint:
        campus = TokenCampus(installation, endpoint, tls)
        sink = campus.sink
        await sink.start()
        try:
            await campus.add_oauth_profile()
            yield campus
        finally:
            await asyncio.to_thread(installation.stop)
            await sink.stop()
