"""A mailbox's limits hold over the whole fleet, against a mail server that counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.servers.installation import Installation
from tocsin_console.demo.certificates import DemoCertificates
from tocsin_console.demo.mail_sink import MailSink, SinkOptions
from tocsin_console.demo.sink_script import DROP, Step
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
    recipients = [{"address": f"r{number}@campus.example"} for number in range(20)]
    job = fleet.job(profile="paced", mode="individual", recipients=recipients)
    await send(fleet, sink, [job], "--connections", "3", "--per-minute", "120")
    times = sorted(message.received_at for message in sink.received)
    assert len(times) == 20
    for first, earlier in enumerate(times):
        for later in range(first + 1, len(times)):
            assert times[later] - earlier > (later - first) * SPACING_SECONDS - SLACK_SECONDS
    assert times[-1] - times[0] < 20 * SPACING_SECONDS * 1.6


async def test_at_the_days_last_recipient_the_mailbox_rests_says_so_and_goes_on_when_there_is_room(
    fleet: Installation, sink: MailSink
) -> None:
    recipients = [{"address": f"r{number}@campus.example"} for number in range(40)]
    first = fleet.job(profile="daily", mode="individual", recipients=recipients)
    job = fleet.job(profile="daily", mode="individual", recipients=recipients)
    urgent = fleet.job(profile="daily", mode="individual", priority="urgent", recipients=recipients[:12])

    def set_up() -> None:
        fleet.tocsin(
            "profile", "add", "daily", "--provider", "custom", "--host", "localhost", "--port", str(sink.address[1]),
            "--from", "shared@campus.example", "--ca-file", str(fleet.directory / "ca.pem"), "--per-day", "60",
        )  # fmt: skip
        fleet.start_workers(processes=2)
        fleet.publish(first)
        fleet.wait_for_job(str(first["id"]))
        fleet.publish(job)
        kept = "SELECT 1 FROM mailboxes WHERE kept_for_urgent_until > now()"
        fleet.wait_until(lambda: fleet.query(kept) != [], "what is left is kept for urgent jobs")
        shown = fleet.read("job", "show", str(job["id"]))
        assert shown["state"] == "waiting"
        assert "60 recipients of 24 hours" in shown["state_reason"]
        assert len(sink.received) <= 48
        fleet.publish(urgent)
        fleet.wait_for_job(str(urgent["id"]))
        assert len(sink.received) == 60
        # A day goes by.
        fleet.query("UPDATE mailbox_usage SET minute = minute - interval '1 day 2 minutes' RETURNING 1")
        fleet.query(
            "UPDATE mailboxes SET parked_until = NULL, parked_reason = NULL, kept_for_urgent_until = NULL,"
            " kept_for_urgent_reason = NULL RETURNING 1"
        )
        fleet.wait_for_job(str(job["id"]))

    try:
        await asyncio.to_thread(set_up)
    finally:
        await asyncio.to_thread(fleet.stop)
    assert len(sink.received) == 92


async def test_a_day_with_less_room_than_a_batch_is_filled_and_nothing_is_stuck(
    fleet: Installation, sink: MailSink
) -> None:
    recipients = [{"address": f"r{number}@campus.example"} for number in range(100)]
    job = fleet.job(profile="small", recipients=recipients)

    def set_up() -> None:
        fleet.tocsin(
            "profile", "add", "small", "--provider", "custom", "--host", "localhost", "--port", str(sink.address[1]),
            "--from", "shared@campus.example", "--ca-file", str(fleet.directory / "ca.pem"), "--per-day", "30",
        )  # fmt: skip
        fleet.start_workers(processes=1)
        fleet.publish(job)
        kept = "SELECT 1 FROM mailboxes WHERE kept_for_urgent_until > now()"
        fleet.wait_until(lambda: fleet.query(kept) != [], "what is left is kept for urgent jobs")

    try:
        await asyncio.to_thread(set_up)
    finally:
        await asyncio.to_thread(fleet.stop)
    # A fifth of the day is for urgent jobs.
    assert sum(len(message.recipients) for message in sink.received) == 24
    assert fleet.query("SELECT sum(recipients)::integer FROM mailbox_usage") == [(24,)]


async def test_a_server_that_hangs_up_after_the_log_in_is_not_logged_into_without_pause(
    fleet: Installation, sink: MailSink
) -> None:
    sink.script.plan(Step.MAIL, *[DROP] * 1000)
    job = fleet.job(profile="rude")

    def set_up() -> None:
        fleet.tocsin(
            "profile", "add", "rude", "--provider", "custom", "--host", "localhost", "--port", str(sink.address[1]),
            "--from", "shared@campus.example", "--ca-file", str(fleet.directory / "ca.pem"),
        )  # fmt: skip
        fleet.start_workers(processes=2)
        fleet.publish(job)
        fleet.wait_until(
            lambda: fleet.query("SELECT 1 FROM mailboxes WHERE parked_reason LIKE '%%after the log-in%%'") != [],
            "the mailbox rests",
        )

    try:
        await asyncio.to_thread(set_up)
    finally:
        await asyncio.to_thread(fleet.stop)
    assert sink.sessions_total <= 4
