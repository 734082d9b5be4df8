"""`tocsin oauth acquire` and `tocsin oauth check`, against an OAuth server that others wrote."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers.oauth_server import (
    CLIENT_SECRET,
    CUSTOM_SCOPE,
    DEVICE_CLIENT_ID,
    MAILBOX,
    OTHER_MAILBOX,
    POST_CLIENT_ID,
    TENANT,
    OAuthServer,
)
from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from tests.acceptance.command_line import CommandLine


PERSON = (
    "--provider",
    "microsoft365",
    "--grant",
    "device_code",
    "--tenant-id",
    TENANT,
    "--client-id",
    DEVICE_CLIENT_ID,
)
CLIENT = ("--provider", "microsoft365", "--tenant-id", TENANT, "--client-id", POST_CLIENT_ID)


@pytest.fixture
def ca_file(oauth_server: OAuthServer, tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    file.write_text(oauth_server.ca_pem)
    return str(file)


@pytest.fixture
def person(tocsin: CommandLine, oauth_server: OAuthServer, ca_file: str) -> CommandLine:
    """An OAuth profile for which somebody has to sign in."""
    endpoint = ("--token-endpoint", oauth_server.microsoft_token_url, "--ca-file", ca_file)
    tocsin.ok("oauth", "add", "person", *PERSON, *endpoint)
    return tocsin


@pytest.fixture
def client(tocsin: CommandLine, oauth_server: OAuthServer, ca_file: str) -> CommandLine:
    """An OAuth profile with a client secret."""
    endpoint = ("--token-endpoint", oauth_server.microsoft_token_url, "--ca-file", ca_file)
    tocsin.ok("oauth", "add", "app", *CLIENT, *endpoint, "--client-secret-file", "-", stdin=CLIENT_SECRET.encode())
    return tocsin


@contextmanager
def at_another_screen(server: OAuthServer, decide: Callable[[str], None]) -> Generator[None]:
    """Decide about the code as soon as there is one."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            if codes := server.open_user_codes():
                decide(codes[0])
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def send_as(tocsin: CommandLine, mailbox: str, name: str = "news") -> None:
    tocsin.ok("profile", "add", name, "--provider", "microsoft365", "--from", mailbox, "--oauth", "person")


def test_a_sign_in_is_stored_for_the_profiles_user_and_gives_tokens(
    person: CommandLine, oauth_server: OAuthServer
) -> None:
    send_as(person, MAILBOX)
    person.rows("UPDATE sending_profiles SET paused_at = now(), paused_reason = 'x', pause_cause = 'credentials'")
    with at_another_screen(oauth_server, oauth_server.approve):
        outcome = person.ok("oauth", "acquire", "person", "--json")
    assert re.search(r"https://\S+\n\nand enter the code\n\n +\S+", outcome.errors)
    assert "Warning" not in outcome.errors
    assert outcome.json["mailbox"] == outcome.json["account"] == MAILBOX
    assert outcome.json["resumed"] == ["news"]
    ((subject, account),) = person.rows("SELECT subject, account FROM refresh_tokens")
    assert (subject, account) == (MAILBOX, MAILBOX)
    assert "if not used before" in person.ok("oauth", "list").out
    checked = person.ok("oauth", "check", "person", "--json").json
    assert (checked["ok"], checked["mailbox"]) == (True, MAILBOX)


def test_another_account_than_the_mailbox_is_stored_and_warned_of(
    person: CommandLine, oauth_server: OAuthServer
) -> None:
    with at_another_screen(oauth_server, lambda code: oauth_server.approve(code, OTHER_MAILBOX)):
        outcome = person.ok("oauth", "acquire", "person", "--user", MAILBOX)
    assert f"{OTHER_MAILBOX} signed in, and the mailbox is {MAILBOX}" in outcome.errors
    assert "Add-RecipientPermission" in outcome.errors
    assert person.rows("SELECT subject, account FROM refresh_tokens") == [(MAILBOX, OTHER_MAILBOX)]


def test_declined_and_expired_are_told_apart_and_nothing_is_stored(
    person: CommandLine, oauth_server: OAuthServer
) -> None:
    for decide, told in (
        (lambda code: oauth_server.deny(code, "authorization_declined"), "declined"),
        (oauth_server.expire, "before the code expired"),
    ):
        with at_another_screen(oauth_server, decide):
            outcome = person("oauth", "acquire", "person")
        assert outcome.code == 1
        assert told in outcome.errors
        assert "tocsin oauth acquire person" in outcome.errors
    assert person.rows("SELECT subject FROM refresh_tokens") == []


def test_of_several_mailboxes_one_has_to_be_named(person: CommandLine, oauth_server: OAuthServer) -> None:
    send_as(person, MAILBOX)
    send_as(person, OTHER_MAILBOX, "library")
    for command in ("acquire", "check"):
        outcome = person("oauth", command, "person")
        assert outcome.code == 2
        assert f"{MAILBOX}, {OTHER_MAILBOX}" in outcome.errors
    assert oauth_server.open_user_codes() == []


def test_a_grant_without_a_sign_in_says_what_to_do_instead(client: CommandLine) -> None:
    outcome = client("oauth", "acquire", "app")
    assert outcome.code == 2
    assert "tocsin oauth check app" in outcome.errors


def test_a_sign_in_for_what_the_profile_was_is_not_stored(person: CommandLine, oauth_server: OAuthServer) -> None:
    def decide(code: str) -> None:
        person.rows("UPDATE oauth_profiles SET client_id = %s", POST_CLIENT_ID)
        oauth_server.approve(code)

    with at_another_screen(oauth_server, decide):
        outcome = person("oauth", "acquire", "person")
    assert outcome.code == 2
    assert "changed" in outcome.errors
    assert person.rows("SELECT subject FROM refresh_tokens") == []


def test_ctrl_c_ends_the_wait_at_once_and_nothing_is_held_meanwhile(person: CommandLine) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tocsin_console", "oauth", "acquire", "person"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert process.stderr is not None
    said = b""
    while b"minutes." not in said:
        piece = os.read(process.stderr.fileno(), 4096)
        assert piece, said
        said += piece
    open_sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tocsin' AND datname = current_database()"
    assert person.rows(open_sessions) == []
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, errors
    assert b"Stopped" in errors
    assert b"Traceback" not in errors


def test_a_check_really_asks_and_keeps_a_living_token_whatever_comes(
    client: CommandLine, oauth_server: OAuthServer
) -> None:
    asked = (POST_CLIENT_ID, "client_credentials")
    first = client.ok("oauth", "check", "app", "--json").json
    assert first["says"]["audience"] == ["https://outlook.office365.com"]
    assert first["says"]["roles"] == ["SMTP.SendAsApp"]
    assert first["says"]["tenant"] == TENANT
    client.ok("oauth", "check", "app")
    assert oauth_server.counts()[asked] == 1, "a token that was only just obtained shows enough"
    client.rows("UPDATE access_tokens SET obtained_at = obtained_at - interval '1 minute'")
    out = client.ok("oauth", "check", "app").out
    assert oauth_server.counts()[asked] == 2
    ((sealed,),) = client.rows("SELECT sealed_token FROM access_tokens")
    assert "SMTP.SendAsApp" in out
    assert "eyJ" not in out
    client.rows("UPDATE access_tokens SET obtained_at = obtained_at - interval '1 minute'")
    # Past the command, which would have thrown the tokens away.
    client.rows("UPDATE oauth_profiles SET client_id = %s", DEVICE_CLIENT_ID)
    refused = client("oauth", "check", "app")
    assert refused.code == 1
    assert "Senders go on with the token from before" in refused.errors
    assert client.rows("SELECT sealed_token FROM access_tokens") == [(sealed,)]


def test_a_failed_check_names_cause_and_fix_once_and_asks_again_each_time(
    client: CommandLine, oauth_server: OAuthServer
) -> None:
    client.ok("oauth", "replace-secret", "app", "--client-secret-file", "-", stdin=b"wrong~secret~value")
    for attempt in (1, 2):
        outcome = client("oauth", "check", "app", "--json")
        assert outcome.code == 1
        assert (outcome.json["ok"], outcome.json["code"]) == (False, "invalid_client")
        assert "tocsin oauth replace-secret app" in outcome.json["fix"]
        assert outcome.errors.count("OAuth profile app") == 1
        assert "wrong~secret~value" not in outcome.errors + outcome.out
        assert oauth_server.counts()[(POST_CLIENT_ID, "client_credentials")] == attempt


def test_a_token_that_is_no_jwt_says_nothing(tocsin: CommandLine, oauth_server: OAuthServer, ca_file: str) -> None:
    flags = ("--token-endpoint", oauth_server.token_url, "--scope", CUSTOM_SCOPE, "--ca-file", ca_file)
    secret = ("--client-secret-file", "-")
    tocsin.ok(
        "oauth", "add", "sso", "--provider", "custom", "--client-id", POST_CLIENT_ID, *flags, *secret,
        stdin=CLIENT_SECRET.encode(),
    )  # fmt: skip
    assert tocsin.ok("oauth", "check", "sso", "--json").json["says"] is None
    assert "not a JWT" in tocsin.ok("oauth", "check", "sso").errors


def test_a_check_asks_again_after_a_passing_failure_but_not_while_the_endpoint_wants_to_be_left_alone(
    tocsin: CommandLine,
) -> None:
    away = ("--token-endpoint", "https://127.0.0.1:1/token", "--client-id", "x", "--client-secret-file", "-")
    tocsin.ok("oauth", "add", "sso", "--provider", "custom", *away, stdin=b"x")
    when = set()
    for _ in range(2):
        outcome = tocsin("oauth", "check", "sso", "--json")
        assert outcome.code == 1
        assert "cannot be reached" in outcome.json["problem"]
        assert "tocsin oauth set sso --token-endpoint URL" in outcome.json["fix"]
        assert outcome.json["cause"] is None
        when |= set(tocsin.rows("SELECT failed_at FROM access_tokens"))
    assert len(when) == 2, "each check asked"
    tocsin.rows(
        "UPDATE access_tokens SET retry_wished = true, retry_at = '2090-01-02T03:04:05Z', failure_fix = NULL,"
        " failure = 'OAuth profile sso: sso asks us to slow down (HTTP 429).'"
    )
    wished = tocsin("oauth", "check", "sso", "--json")
    assert wished.code == 1
    assert (
        "was not asked again: the endpoint wants to be left alone until 2090-01-02T03:04:05Z" in wished.json["problem"]
    )
    assert "it said: sso asks us to slow down (HTTP 429)." in wished.errors
    assert wished.json["fix"]
    assert set(tocsin.rows("SELECT failed_at FROM access_tokens")) <= when


def test_a_mailbox_that_is_no_address_is_wrong_usage(person: CommandLine) -> None:
    for command in (("acquire", "person"), ("check", "person")):
        outcome = person("oauth", *command, "--user", "notmail")
        assert (outcome.code, "--user" in outcome.errors) == (2, True)


def test_a_profile_says_whose_sign_in_its_tokens_lack(person: CommandLine) -> None:
    flags = ("--provider", "microsoft365-dod", "--from", MAILBOX, "--oauth", "person")
    told = person.ok("profile", "add", "news", *flags).errors
    assert f"Now sign in: `tocsin oauth acquire person --user {MAILBOX}`" in told
    assert "Warning: the mail service is microsoft365-dod" in told
    person.rows(
        "INSERT INTO refresh_tokens (oauth_profile_id, subject, sealed_token, signed_in_at, renewed_at)"
        " SELECT id, %s, '\\x00', now(), now() FROM oauth_profiles",
        MAILBOX,
    )
    assert "Now sign in" not in person.ok("profile", "set", "news", "--oauth", "person").errors
    moved = person.ok("oauth", "set", "person", "--client-id", POST_CLIENT_ID)
    assert f"Now sign in: `tocsin oauth acquire person --user {MAILBOX}`" in moved.errors
