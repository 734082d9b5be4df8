"""Refused credentials pause a profile with a reason; its mail waits, and goes out once they are right."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.servers.installation import CLIENT_ID, CLIENT_SECRET, TENANT_ID

if TYPE_CHECKING:
    from tests.servers.installation import Installation


@pytest.fixture
def paused(installation: Installation) -> tuple[str, str]:
    """The names of an OAuth profile with a wrong secret and of a sending profile that is paused because of it."""
    oauth, profile = f"wrong-{uuid.uuid4().hex[:8]}", f"mute-{uuid.uuid4().hex[:8]}"
    installation.tocsin(
        "oauth", "add", oauth, "--provider", "custom", "--token-endpoint", installation.servers.token_endpoint,
        "--scope", "https://mail.campus.example/.default", "--tenant-id", TENANT_ID, "--client-id", CLIENT_ID,
        "--client-secret-file", "-", "--ca-file", str(installation.servers.ca_file), given="not-the-secret",
    )  # fmt: skip
    installation.add_profile(profile, "--oauth", oauth, "--from", f"{profile}@campus.example")
    return oauth, profile


def wait_until_paused(installation: Installation, profile: str) -> str:
    def reason() -> str | None:
        [(reason,)] = installation.query("SELECT paused_reason FROM sending_profiles WHERE name = %s", profile)
        return reason

    installation.wait_until(lambda: reason() is not None, f"{profile} is paused")
    return str(reason())


def test_a_wrong_secret_pauses_names_the_fix_and_a_right_one_lets_the_mail_out(
    installation: Installation, paused: tuple[str, str]
) -> None:
    oauth, profile = paused
    job = installation.job(profile=profile)
    other = installation.job()
    installation.publish(job)
    reason = wait_until_paused(installation, profile)
    assert "replace-secret" in reason
    installation.publish(other)
    assert installation.wait_for_job(other["id"])["recipients"] == {"sent": 1}
    shown = installation.read("job", "show", job["id"])
    assert (shown["state"], shown["recipients"]) == ("waiting", {"pending": 1})
    said = installation.run("oauth", "replace-secret", oauth, "--client-secret-file", "-", given=CLIENT_SECRET)
    assert profile in said.stderr
    assert installation.wait_for_job(job["id"])["recipients"] == {"sent": 1}


def test_a_profile_that_is_paused_by_hand_sends_nothing_until_it_is_resumed(installation: Installation) -> None:
    profile = f"calm-{uuid.uuid4().hex[:8]}"
    installation.add_profile(profile)
    installation.tocsin("profile", "pause", profile, "--reason", "the mailbox is being moved")
    job = installation.job(profile=profile)
    installation.publish(job)
    installation.wait_for_job(job["id"], state="running")
    assert "the mailbox is being moved" in installation.read("job", "show", job["id"])["state_reason"]
    assert "the mailbox is being moved" in installation.tocsin("status")
    installation.tocsin("profile", "resume", profile)
    assert installation.wait_for_job(job["id"])["recipients"] == {"sent": 1}
