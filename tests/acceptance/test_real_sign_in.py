"""Every way to sign in, from the command to the delivered mail: a real OAuth server, a mail server that checks tokens.

Dovecot's submission service asks the OAuth server about each token, and takes mail of the token's own mailbox only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from aiosmtpd.controller import Controller

from tests.servers.dovecot import DovecotSubmission
from tests.servers.installation import Installation
from tests.servers.oauth_server import (
    CLIENT_SECRET,
    CUSTOM_SCOPE,
    DEVICE_CLIENT_ID,
    FEDERATED_CLIENT_ID,
    MAILBOX,
    POST_CLIENT_ID,
    REFRESH_CLIENT_ID,
    TENANT,
    OAuthServer,
    Settings,
)
from tests.servers.ports import free_port
from tests.servers.smtp import KeepingHandler
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def relay() -> Iterator[Controller]:
    controller = Controller(KeepingHandler(), hostname="127.0.0.1", port=free_port())
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def submission(dovecot_packages: Path, oauth_server: OAuthServer, relay: Controller) -> Iterator[DovecotSubmission]:
    with DovecotSubmission(
        dovecot_packages, tokeninfo_url=oauth_server.tokeninfo_url, relay=(relay.hostname, relay.port)
    ) as service:
        yield service


@pytest.fixture
def campus(
    tmp_path: Path, database_url: str, submission: DovecotSubmission, oauth_server: OAuthServer
) -> Iterator[Installation]:
    """An installation with no profile yet; its workers run."""
    installation = Installation(tmp_path, database_url, None)
    write_new_key_file(tmp_path / "master.key")
    (tmp_path / "mail-ca.pem").write_text(submission.ca_pem)
    (tmp_path / "oauth-ca.pem").write_text(oauth_server.ca_pem)
    oauth_server.configure(Settings(mailboxes=dict.fromkeys((POST_CLIENT_ID, FEDERATED_CLIENT_ID), MAILBOX)))
    installation.start_workers(processes=1)
    yield installation
    installation.stop()


def add_oauth(campus: Installation, name: str, provider: str, *options: str, given: str | None = None) -> None:
    ca_file = str(campus.directory / "oauth-ca.pem")
    campus.tocsin("oauth", "add", name, "--provider", provider, "--ca-file", ca_file, *options, given=given)


def microsoft(server: OAuthServer, client_id: str, *options: str) -> tuple[str, ...]:
    url = server.microsoft_token_url.replace(TENANT, "{tenantId}")
    return ("--tenant-id", TENANT, "--client-id", client_id, "--token-endpoint", url, *options)


def add_profile(campus: Installation, submission: DovecotSubmission, name: str) -> None:
    campus.tocsin(
        "profile", "add", name, "--provider", "custom", "--host", submission.host, "--port", str(submission.port),
        "--from", MAILBOX, "--auth", "oauth", "--oauth", name, "--ca-file", str(campus.directory / "mail-ca.pem"),
    )  # fmt: skip


def acquire(campus: Installation, server: OAuthServer, name: str, account: str) -> str:
    """Sign in with a device code as an operator would: read the code off the screen, approve it elsewhere."""
    command = [sys.executable, "-m", "tocsin_console", "oauth", "acquire", name]
    with subprocess.Popen(
        command, env=campus.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as waiting:  # fmt: skip
        assert waiting.stdout is not None
        shown = ""
        for line in waiting.stdout:
            shown += line
            if code := re.search(r"\b([A-Z]{4}-[A-Z]{4})\b", line):
                server.approve(code[1], account=account)
                break
        shown += waiting.stdout.read()
    assert waiting.returncode == 0, shown
    return shown


def test_mail_goes_out_by_every_way_to_sign_in(
    campus: Installation, submission: DovecotSubmission, oauth_server: OAuthServer, relay: Controller
) -> None:
    federated = campus.directory / "federated-token"
    federated.write_text(oauth_server.federated_token())
    service_account = campus.directory / "service-account.json"
    service_account.write_text(json.dumps(oauth_server.service_account_info()))

    add_oauth(
        campus, "secret", "microsoft365", *microsoft(oauth_server, POST_CLIENT_ID), "--client-secret-file", "-",
        given=CLIENT_SECRET,
    )  # fmt: skip
    add_oauth(
        campus, "federated", "microsoft365", "--grant", "workload_identity", "--token-file", str(federated),
        *microsoft(oauth_server, FEDERATED_CLIENT_ID),
    )  # fmt: skip
    add_oauth(
        campus, "delegated", "google", "--service-account-file", str(service_account),
        "--token-endpoint", oauth_server.google_token_url,
    )  # fmt: skip
    token = campus.directory / "refresh-token"
    token.write_text(oauth_server.mint_refresh_token(REFRESH_CLIENT_ID, scope=CUSTOM_SCOPE))
    add_oauth(
        campus, "consented", "custom", "--grant", "refresh_token", "--token-endpoint", oauth_server.token_url,
        "--scope", CUSTOM_SCOPE, "--client-id", REFRESH_CLIENT_ID, "--client-secret-file", "-",
        "--refresh-token-file", str(token), "--user", MAILBOX, given=CLIENT_SECRET,
    )  # fmt: skip
    add_oauth(campus, "person", "microsoft365", "--grant", "device_code", *microsoft(oauth_server, DEVICE_CLIENT_ID))
    ways = ["secret", "federated", "delegated", "consented", "person"]
    for way in ways:
        add_profile(campus, submission, way)
    acquire(campus, oauth_server, "person", MAILBOX)

    jobs = {way: campus.job(profile=way, content={"subject": f"By {way}", "text": "Hello."}) for way in ways}
    for job in jobs.values():
        campus.publish(job)
    for job in jobs.values():
        assert campus.wait_for_job(job["id"])["recipients"] == {"sent": 1}
    kept = relay.handler.envelopes
    subjects = sorted(re.findall(rb"^Subject: By (\w+)", message.body, re.MULTILINE)[0].decode() for message in kept)
    assert subjects == sorted(ways)
    for way in ways:
        checked = campus.read("profile", "check", way)
        assert checked["ok"], checked


def test_a_revoked_sign_in_pauses_its_profile_with_the_fix_and_a_new_one_lets_its_mail_out(
    campus: Installation, submission: DovecotSubmission, oauth_server: OAuthServer, relay: Controller
) -> None:
    add_oauth(campus, "person", "microsoft365", "--grant", "device_code", *microsoft(oauth_server, DEVICE_CLIENT_ID))
    add_profile(campus, submission, "person")
    acquire(campus, oauth_server, "person", MAILBOX)
    oauth_server.revoke(MAILBOX)
    job = campus.job(profile="person")
    campus.publish(job)
    campus.wait_until(
        lambda: campus.query("SELECT 1 FROM sending_profiles WHERE pause_cause = 'credentials'") != [],
        "the profile is paused",
    )
    reason = campus.read("job", "show", job["id"])["state_reason"]
    assert f"tocsin oauth acquire person --user {MAILBOX}" in reason
    acquire(campus, oauth_server, "person", MAILBOX)
    assert campus.wait_for_job(job["id"])["recipients"] == {"sent": 1}
    assert len(relay.handler.envelopes) == 1
