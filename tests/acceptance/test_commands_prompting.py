"""While a person types a secret, nothing in the ledger is held up."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.command_line import CommandLine


HOST = ("--host", "smtp.example.org")
NEWS = ("--provider", "custom", *HOST, "--from", "news@example.org")
SSO = ("--provider", "custom", "--token-endpoint", "https://sso.example.org/token", "--client-id", "tocsin")
OPEN_TRANSACTIONS = """
SELECT application_name, state, query FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
      AND backend_type = 'client backend'
"""


class Typist(io.BytesIO):
    """Standard input of a person who does something else before the secret is typed."""

    def __init__(self, secret: bytes, before: Callable[[], None]) -> None:
        super().__init__(secret)
        self._before = before
        self.was_asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.was_asked += 1
        self._before()
        return super().read(size)


@pytest.fixture(autouse=True)
def profiles(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "news", *NEWS, "--password-file", "-", stdin=b"first")
    tocsin.ok("oauth", "add", "sso", *SSO, "--client-secret-file", "-", stdin=b"first")


@pytest.mark.parametrize(
    "command",
    [
        ("profile", "add", "other", *NEWS, "--password-file", "-"),
        ("profile", "set", "news", "--port", "2525", "--password-file", "-"),
        ("profile", "replace-password", "news", "--password-file", "-"),
        ("oauth", "add", "other", *SSO, "--client-secret-file", "-"),
        ("oauth", "set", "sso", "--scope", "mail", "--client-secret-file", "-"),
        ("oauth", "replace-secret", "sso", "--client-secret-file", "-"),
        ("oauth", "add", "other", *SSO, "--refresh-token-file", "-", "--user", "news@example.org"),
        ("profile", "add", "other", *NEWS, *SSO[2:], "--client-secret-file", "-"),
        ("setting", "set", "EmailPassword", *HOST, "--value-file", "-"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_no_transaction_is_open_while_a_secret_is_awaited(tocsin: CommandLine, command: tuple[str, ...]) -> None:
    seen: list[list[tuple[object, ...]]] = []
    typist = Typist(b"second\n", lambda: seen.append(tocsin.rows(OPEN_TRANSACTIONS)))
    tocsin.ok(*command, stdin=typist)
    assert seen == [[]]


def test_a_password_is_not_stored_for_a_mail_server_that_came_in_meanwhile(tocsin: CommandLine) -> None:
    before = tocsin.rows("SELECT sealed_password FROM sending_profiles")
    typist = Typist(
        b"for smtp.example.org\n", lambda: void(tocsin.rows("UPDATE sending_profiles SET host = 'evil.example.org'"))
    )
    refused = tocsin("profile", "replace-password", "news", "--password-file", "-", stdin=typist)
    assert refused.code == 2
    assert "evil.example.org" in refused.errors
    assert tocsin.rows("SELECT sealed_password FROM sending_profiles") == before


def test_a_secret_is_not_stored_for_an_endpoint_that_came_in_meanwhile(tocsin: CommandLine) -> None:
    before = tocsin.rows("SELECT sealed_client_secret FROM oauth_profiles")
    typist = Typist(
        b"for sso.example.org\n",
        lambda: void(tocsin.rows("UPDATE oauth_profiles SET token_endpoint = 'https://evil.example.org/token'")),
    )
    refused = tocsin("oauth", "replace-secret", "sso", "--client-secret-file", "-", stdin=typist)
    assert refused.code == 2
    assert "evil.example.org" in refused.errors
    assert tocsin.rows("SELECT sealed_client_secret FROM oauth_profiles") == before


def test_a_change_does_not_store_a_secret_for_an_endpoint_that_came_in_meanwhile(tocsin: CommandLine) -> None:
    before = tocsin.rows("SELECT sealed_client_secret, scope FROM oauth_profiles")
    typist = Typist(
        b"for sso.example.org\n",
        lambda: void(tocsin.rows("UPDATE oauth_profiles SET token_endpoint = 'https://evil.example.org/token'")),
    )
    refused = tocsin("oauth", "set", "sso", "--scope", "mail", "--client-secret-file", "-", stdin=typist)
    assert refused.code == 2
    assert "evil.example.org" in refused.errors
    assert tocsin.rows("SELECT sealed_client_secret, scope FROM oauth_profiles") == before


def test_nobody_types_a_secret_for_a_profile_that_cannot_have_it(tocsin: CommandLine) -> None:
    tocsin.ok("profile", "add", "none", *NEWS, "--user", "other@example.org", "--auth", "none")
    typist = Typist(b"x", lambda: None)
    for command in (
        ("profile", "replace-password", "none", "--password-file", "-"),
        ("profile", "replace-password", "nowhere", "--password-file", "-"),
        ("oauth", "replace-secret", "nowhere", "--client-secret-file", "-"),
        ("oauth", "add", "x", *SSO[:-2], "--client-id", "", "--client-secret-file", "-"),
        ("oauth", "set", "sso", "--grant", "jwt_bearer", "--client-secret-file", "-"),
        ("profile", "add", "x", *NEWS, *SSO[2:], "--oauth", "sso", "--client-secret-file", "-"),
    ):
        assert tocsin(*command, stdin=typist).code == 2
    assert typist.was_asked == 0


@pytest.mark.parametrize("typed", [b"typed\n", None], ids=["typed", "Ctrl-C"])
@pytest.mark.parametrize("source", [(), ("--password-file", "-")], ids=["no file", "-"])
def test_the_prompt_hides_and_takes_the_secret_or_ends_at_the_first_ctrl_c(
    tocsin: CommandLine, source: tuple[str, ...], typed: bytes | None
) -> None:
    before = tocsin.rows("SELECT sealed_password FROM sending_profiles")
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tocsin_console", "profile", "replace-password", "news", *source],
        stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert process.stderr is not None
    prompt = b""
    while b"not shown" not in prompt:
        assert select.select([process.stderr], [], [], 30)[0], prompt
        piece = os.read(process.stderr.fileno(), 4096)
        assert piece, prompt
        prompt += piece
    assert not termios.tcgetattr(terminal)[3] & termios.ECHO
    assert tocsin.rows(OPEN_TRANSACTIONS) == []
    if typed is None:
        process.send_signal(signal.SIGINT)
    else:
        os.write(keyboard, typed)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    os.close(keyboard)
    os.close(terminal)
    assert b"Traceback" not in errors
    assert (b"\nStopped. Nothing was changed.\n" in errors) is (typed is None)
    assert process.returncode == (130 if typed is None else 0), errors
    assert (tocsin.rows("SELECT sealed_password FROM sending_profiles") == before) is (typed is None)


def void(_: object) -> None:
    """Take an answer that nobody needs."""
