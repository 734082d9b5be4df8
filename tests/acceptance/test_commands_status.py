"""`tocsin status`: the line of the message broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.command_line import CommandLine

CUSTOM = ("--provider", "custom", "--host", "smtp.example.org", "--from", "news@example.org")
SEND = ("send", "--profile", "news", "--subject", "Hello", "--text-file", "-", "--to", "ann@example.org")


def line(tocsin: CommandLine) -> str:
    [told] = [one for one in tocsin.ok("status").out.splitlines() if one.startswith("message broker: ")]
    return told.removeprefix("message broker: ")


@pytest.mark.parametrize(("kind", "here"), [("rabbitmq", "RabbitMQ answers"), ("postgres", "in the ledger's Postgres")])
def test_what_was_published_and_not_taken_in_is_counted(
    tocsin: CommandLine, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, here: str
) -> None:
    if kind == "rabbitmq":
        monkeypatch.setenv("TOCSIN_BROKER_URL", request.getfixturevalue("broker_url"))
    tocsin.ok("profile", "add", "news", *CUSTOM)
    assert line(tocsin) == here
    tocsin.ok(*SEND, stdin=b"Text")
    assert line(tocsin) == f"{here}; 1 part waits to be taken in"
    tocsin.ok(*SEND, "--priority", "urgent", stdin=b"Text")
    assert line(tocsin) == f"{here}; 2 parts wait to be taken in"
    told = tocsin.ok("status", "--json").json
    assert (told["message_broker"], told["waiting_parts"]) == (here, 2)


def test_a_message_broker_that_is_away_is_named_once_and_without_its_password(
    tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_BROKER_URL", "amqp://u:hidden@127.0.0.1:1/v")
    told = line(tocsin)
    assert told.startswith("RabbitMQ at 127.0.0.1:1 cannot be reached: ")
    assert "hidden" not in told
    assert tocsin.ok("status", "--json").json["waiting_parts"] is None
