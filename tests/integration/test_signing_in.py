"""The ways in which workers sign in to a mail server, each from the command to the delivered message."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers.installation import Installation
from tocsin_console.demo.certificates import DemoCertificates
from tocsin_console.demo.mail_sink import MailSink, SinkOptions
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PASSWORDS = {"ada@campus.example": "lovelace-1843", "shared@campus.example": "shared-secret-1"}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Installation:
    installation = Installation(tmp_path, database_url, None)
    write_new_key_file(tmp_path / "master.key")
    return installation


@asynccontextmanager
async def mail_server(tmp_path: Path, *, implicit_tls: bool = False) -> AsyncIterator[MailSink]:
    tls = DemoCertificates(tmp_path).server_context()
    sink = MailSink(SinkOptions(tls=tls, implicit_tls=implicit_tls, passwords=PASSWORDS))
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()


async def work(fleet: Installation, act: Callable[[], None]) -> None:
    """Do something with a worker running, beside the mail server in this loop."""

    def with_worker() -> None:
        fleet.start_workers(processes=1)
        act()

    try:
        await asyncio.to_thread(with_worker)
    finally:
        await asyncio.to_thread(fleet.stop)


def add_profile(fleet: Installation, sink: MailSink, *options: str, given: str | None = None) -> None:
    fleet.tocsin(
        "profile", "add", "alerts", "--provider", "custom", "--host", "localhost", "--port", str(sink.address[1]),
        "--from", "ada@campus.example", *options, given=given,
    )  # fmt: skip


def send_one(fleet: Installation) -> dict[str, int]:
    job = fleet.job()
    fleet.publish(job)
    return fleet.wait_for_job(job["id"])["recipients"]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_profile_signs_in_with_its_own_password(fleet: Installation, tmp_path: Path, tls: str) -> None:
    async with mail_server(tmp_path, implicit_tls=tls == "implicit") as sink:

        def act() -> None:
            options = ("--tls", tls, "--auth", "basic", "--password-file", "-", "--ca-file", str(tmp_path / "ca.pem"))
            add_profile(fleet, sink, *options, given=PASSWORDS["ada@campus.example"])
            assert send_one(fleet) == {"sent": 1}

        await work(fleet, act)
        [message] = sink.received
        assert (message.user, message.tls) == ("ada@campus.example", True)


async def test_without_a_password_of_its_own_a_profile_uses_that_of_the_installation(
    fleet: Installation, tmp_path: Path
) -> None:
    async with mail_server(tmp_path) as sink:

        def act() -> None:
            fleet.tocsin("setting", "set", "EmailUsername", "shared@campus.example")
            fleet.tocsin(
                "setting", "set", "EmailPassword", "--host", "localhost", "--value-file", "-",
                given=PASSWORDS["shared@campus.example"],
            )  # fmt: skip
            add_profile(fleet, sink, "--auth", "basic", "--ca-file", str(tmp_path / "ca.pem"))
            assert send_one(fleet) == {"sent": 1}

        await work(fleet, act)
        assert [message.user for message in sink.received] == ["shared@campus.example"]


async def test_a_wrong_password_pauses_the_profile_and_a_right_one_lets_its_mail_out(
    fleet: Installation, tmp_path: Path
) -> None:
    async with mail_server(tmp_path) as sink:

        def act() -> None:
            options = ("--auth", "basic", "--password-file", "-", "--ca-file", str(tmp_path / "ca.pem"))
            add_profile(fleet, sink, *options, given="not-the-password")
            job = fleet.job()
            fleet.publish(job)
            fleet.wait_until(
                lambda: fleet.query("SELECT 1 FROM sending_profiles WHERE paused_reason LIKE '%%535%%'") != [],
                "the profile is paused",
            )
            right = PASSWORDS["ada@campus.example"]
            fleet.tocsin("profile", "replace-password", "alerts", "--password-file", "-", given=right)
            assert fleet.wait_for_job(job["id"])["recipients"] == {"sent": 1}

        await work(fleet, act)
        assert len(sink.received) == 1


async def test_an_untrusted_certificate_is_refused_with_words_and_no_credentials_are_sent(
    fleet: Installation, tmp_path: Path
) -> None:
    async with mail_server(tmp_path) as sink:

        def act() -> None:
            add_profile(fleet, sink, "--auth", "basic", "--password-file", "-", given="never-sent")
            job = fleet.job()
            fleet.publish(job)
            fleet.wait_until(
                lambda: fleet.query("SELECT 1 FROM mailboxes WHERE parked_reason LIKE '%%certificate%%'") != [],
                "the mailbox rests",
            )
            reason = fleet.read("job", "show", job["id"])["state_reason"]
            assert "--ca-file" in reason

        await work(fleet, act)
        assert sink.received == []


async def test_credentials_that_the_provider_takes_again_let_the_profile_go_on_by_itself(
    fleet: Installation, tmp_path: Path
) -> None:
    async with mail_server(tmp_path) as sink:

        def probe() -> None:
            fleet.execute("UPDATE sending_profiles SET probe_at = now()")

        def act() -> None:
            options = ("--auth", "basic", "--password-file", "-", "--ca-file", str(tmp_path / "ca.pem"))
            add_profile(fleet, sink, *options, given="not-yet-known-there")
            job = fleet.job()
            fleet.publish(job)
            paused = "SELECT probes FROM sending_profiles WHERE pause_cause = 'credentials' AND probe_at > now()"
            fleet.wait_until(lambda: fleet.query(paused) == [(1,)], "the profile is paused")
            probe()
            fleet.wait_until(lambda: fleet.query(paused) == [(2,)], "a worker has tried again, in vain")
            sink.options.passwords["ada@campus.example"] = "not-yet-known-there"  # type: ignore[index]  # a dict
            probe()
            assert fleet.wait_for_job(job["id"])["recipients"] == {"sent": 1}
            assert fleet.query("SELECT probes, resumed_at IS NOT NULL FROM sending_profiles") == [(2, True)]

        try:
            await work(fleet, act)
        finally:
            PASSWORDS["ada@campus.example"] = "lovelace-1843"
        assert len(sink.received) == 1
