"""A provider's own name for a message is read from its reply to the final dot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_workers.provider_ids import provider_id
from tocsin_workers.smtp.replies import MAX_TEXT, Reply, ReplyParser

SES = "0100018f5e3b2c1d-7a6b5c4d-1e2f-4a3b-8c9d-0e1f2a3b4c5d-000000"


def said(line: str) -> str | None:
    """Read the id from a line as the server wrote it."""
    (reply,) = ReplyParser().feed(line.encode() + b"\r\n")
    return provider_id(reply)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"250 Ok {SES}", SES),
        (
            "250 2.0.0 OK <AM0PR01MB1234.eurprd01.prod.exchangelabs.com> [Hostname=AM0PR01MB1234]",
            "<AM0PR01MB1234.eurprd01.prod.exchangelabs.com>",
        ),
        (
            "250 2.0.0 OK  1700000000 4fb4d7f45d1cf-5a9b1c2d3e4si1234567ybn.12 - gsmtp",
            "4fb4d7f45d1cf-5a9b1c2d3e4si1234567ybn.12",
        ),
        ("250 2.0.0 Ok: queued as 4RzABC12dEz9", "4RzABC12dEz9"),
        ("250 Message queued as 7.25", "7.25"),
    ],
)
def test_known_providers_name_their_messages(line: str, expected: str):
    assert said(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "250 Ok",
        "250 2.0.0 Ok",
        "250 OK <>",
        "250 Ok short-1",
        f"250 Ok {SES} and more",
        "250 2.0.0 OK 1700000000 abcdefg - someone else",
        "250 queued as",
        "250",
    ],
)
def test_a_reply_without_a_name_gives_none(line: str):
    assert said(line) is None


def test_a_reply_of_many_lines_is_read_as_one():
    (reply,) = ReplyParser().feed(b"250-2.0.0 Thank you\r\n250 2.0.0 Ok: queued as ABC123\r\n")
    assert provider_id(reply) == "ABC123"


@given(st.text(max_size=MAX_TEXT))
def test_whatever_a_server_says_the_name_is_short_and_has_no_space(text: str):
    found = provider_id(Reply(250, None, text))
    assert found is None or (3 <= len(found) <= 202 and not any(character.isspace() for character in found))


@pytest.mark.parametrize("text", ["OK <" + "a" * 1900, "OK " + " " * 1900, "queued as " * 190, "OK " + "1" * 1900])
def test_a_long_reply_gives_no_id_of_its_own_length(text: str):
    found = provider_id(Reply(250, None, text))
    assert found is None or len(found) <= 202


def test_the_full_stop_after_a_sentence_is_not_part_of_the_name():
    assert said("250 2.0.0 Your message was queued as 1F2E3D4C5B.") == "1F2E3D4C5B"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("250 OK id=1rABCD-000000001Xy-2Zab", "1rABCD-000000001Xy-2Zab"),
        ("250 2.0.0 45A1BcDe012345 Message accepted for delivery", "45A1BcDe012345"),
        ("250 2.0.0 8d1c2b3a Message accepted for delivery", "8d1c2b3a"),
    ],
)
def test_other_common_servers_name_their_messages_too(line: str, expected: str):
    assert said(line) == expected
