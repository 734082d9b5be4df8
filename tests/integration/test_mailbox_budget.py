"""A mailbox's limits hold over the whole fleet, against a mail server that counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.servers.installation import Installation
from tocsin_console.demo.certificates import DemoCertificates
from tocsin_console.demo.mail_sink import MailSink, SinkOptions
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

SPACING_SECONDS = 61.0 / 120
#: A message may leave up to a second after its time slot.
SLACK_SECONDS = 1.0


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[MailSink]:
    def never(token: str) -> bool:
        return not token

    context: ssl.SSLContext = DemoCertificates(tmp_path).server_context()
    sink = MailSink(SinkOptions(tls=context, check_token=never, auth_required=False))
    await sink.start()
    yield sink
    await sink.stop()


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Installation:
    installation = Installation(tmp_path, database_url, None)
    write_new_key_file(tmp_path / "master.key")
    return installation


async def send(fleet: Installation, sink: MailSink, jobs: list[dict[str, object]], *limits: str) -> None:
    """Send jobs with four worker processes through profiles that share one mailbox; return when all is sent."""
    host, port = sink.address
    ca_file = fleet.directory / "ca.pem"

    def set_up() -> None:
        for profile in sorted({str(job["profile"]) for job in jobs}):
            fleet.tocsin(
                "profile", "add", profile, "--provider", "custom", "--host", "localhost", "--port", str(port),
                "--from", "shared@campus.example", "--ca-file", str(ca_file), *limits,
            )  # fmt: skip
        fleet.start_workers(processes=4)
        for job in jobs:
            fleet.publish(job)
        for job in jobs:
            fleet.wait_for_job(str(job["id"]))

    assert host
    try:
        await asyncio.to_thread(set_up)
    finally:
        await asyncio.to_thread(fleet.stop)


async def test_two_profiles_and_four_processes_never_open_more_connections_than_their_mailbox_may(
    fleet: Installation, sink: MailSink
) -> None:
    jobs = [
        fleet.job(
            profile=profile,
            mode="individual",
            recipients=[{"address": f"{profile}{number}@campus.example"} for number in range(400)],
        )
        for profile in ("one", "two")
    ]
    await send(fleet, sink, jobs, "--connections", "3")
    assert len(sink.received) == 800
    assert sink.sessions_max == 3


async def test_messages_are_spaced_so_that_no_minute_holds_more_than_the_mailbox_may(
    fleet: Installation, sink: MailSink
) -> None:
    recipients = [{"address": f"r{number}@campus.example"} for number in range(30)]
    job = fleet.job(profile="paced", mode="individual", recipients=recipients)
    await send(fleet, sink, [job], "--connections", "3", "--per-minute", "120")
    times = sorted(message.received_at for message in sink.received)
    assert len(times) == 30
    for first, earlier in enumerate(times):
        for later in range(first + 1, len(times)):
            assert times[later] - earlier > (later - first) * SPACING_SECONDS - SLACK_SECONDS
    assert times[-1] - times[0] < 30 * SPACING_SECONDS * 1.6
