"""The pure parts of the demo's servers."""

from __future__ import annotations

import base64

import pytest

from tocsin_console.demo.mail_sink import message_id_of
from tocsin_console.demo.sink_script import RECIPIENT_ACCEPTED, RecipientScript, Step, StepScript
from tocsin_console.demo.sink_session import parse_path, parse_xoauth2
from tocsin_console.demo.token_grant import Granted, Place, Refused, decide, parse_token_request, route


def test_a_recipient_without_a_script_is_always_accepted() -> None:
    script = RecipientScript({"other@example.org": ["550 no"]})
    assert [script.reply_to("a@example.org") for _ in range(3)] == [RECIPIENT_ACCEPTED] * 3


def test_a_script_counts_the_tries_of_each_recipient_and_keeps_its_last_reply() -> None:
    script = RecipientScript({"slow@": ["451 wait", "452 wait", "250 ok"]})
    assert [script.reply_to("slow@a.org") for _ in range(4)] == ["451 wait", "452 wait", "250 ok", "250 ok"]
    assert script.reply_to("slow@b.org") == "451 wait"


def test_a_whole_address_goes_before_its_local_part_and_domains_before_case() -> None:
    script = RecipientScript({"x@": ["550 part"], "x@Example.org": ["551 whole"]})
    assert script.reply_to("x@EXAMPLE.ORG") == "551 whole"
    assert script.reply_to("x@example.com") == "550 part"
    assert script.reply_to("X@example.com") == RECIPIENT_ACCEPTED


def test_planned_replies_are_taken_in_order_and_once() -> None:
    script = StepScript()
    script.plan(Step.MAIL, "421 a", "250 b")
    assert [script.take(Step.MAIL) for _ in range(3)] == ["421 a", "250 b", None]
    assert script.take(Step.DOT) is None


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"user=a@b\x01auth=Bearer tok\x01\x01", ("a@b", "tok")),
        ("user=jörg@b\x01auth=Bearer tok\x01\x01".encode(), ("jörg@b", "tok")),
        (b"user=a@b\x01auth=Bearer tok\x01", None),
        (b"user=a@b\x01auth=Bearer t\xff\x01\x01", None),
        (b"user=\xff\x01auth=Bearer t\x01\x01", None),
        (b"auth=Bearer tok\x01\x01", None),
        (b"", None),
    ],
)
def test_xoauth2_is_read_strictly(response: bytes, expected: tuple[str, str] | None) -> None:
    assert parse_xoauth2(response) == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("<a@b.org>", ("a@b.org", [])),
        (" <a@b.org> SIZE=3 body=8bitmime", ("a@b.org", ["SIZE=3", "BODY=8BITMIME"])),
        ('<"a b>"@c.org>', ('"a b>"@c.org', [])),
        ("<>", ("", [])),
        ("a@b.org", None),
        ("<a@b.org>x", None),
        ("<a b@c.org>", None),
        ("<a@b.org", None),
    ],
)
def test_a_path_is_read_strictly(argument: str, expected: tuple[str, list[str]] | None) -> None:
    assert parse_path(argument) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Subject: x\r\nmessage-id: <a@b>\r\n\r\n", "<a@b>"),
        (b"Message-ID:\r\n <a@b>\r\n\r\n", "<a@b>"),
        (b"Subject: x\r\n\r\nMessage-ID: <body@b>\r\n", None),
        (b"", None),
    ],
)
def test_the_message_id_is_taken_from_the_header_only(content: bytes, expected: str | None) -> None:
    assert message_id_of(content) == expected


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "/contoso/oauth2/v2.0/token", Place("contoso")),
        ("POST", "/contoso/oauth2/v2.0/token?x=1", Place("contoso")),
        ("GET", "/contoso/v2.0/.well-known/openid-configuration", Place("contoso")),
        ("GET", "/contoso/oauth2/v2.0/token", None),
        ("POST", "/oauth2/v2.0/token", None),
        ("POST", "/a/b/oauth2/v2.0/token", None),
        ("PUT", "/contoso/oauth2/v2.0/token", None),
    ],
)
def test_only_the_token_and_the_metadata_of_a_tenant_are_served(
    method: str, target: str, expected: Place | None
) -> None:
    assert route(method, target) == expected


@pytest.mark.parametrize(
    "authorization",
    [None, "Basic !", "Basic " + base64.b64encode(b"\xff").decode(), "Bearer abc"],
)
def test_credentials_are_taken_from_the_form_where_the_header_holds_none(authorization: str | None) -> None:
    asked = parse_token_request("t", authorization, b"client_id=a&client_secret=b")
    assert (asked.client_id, asked.client_secret) == ("a", "b")


@pytest.mark.parametrize("body", [b"\xff", b"&".join([b"a=b"] * 51), b"%", b""])
def test_a_form_that_cannot_be_read_is_an_empty_one(body: bytes) -> None:
    asked = parse_token_request("t", None, body)
    assert asked.grant_type == asked.client_id == asked.scope == ""


def test_a_request_does_not_show_its_secret() -> None:
    assert "hidden" not in repr(parse_token_request("t", None, b"client_id=a&client_secret=hidden"))


def test_a_right_secret_is_granted_and_a_wrong_one_is_not_repeated() -> None:
    good = parse_token_request("t", None, b"grant_type=client_credentials&client_id=a&client_secret=b&scope=s")
    assert decide(good, {"a": "b"}, None) == Granted()
    refused = decide(good, {"a": "other"}, None)
    assert isinstance(refused, Refused)
    assert b"other" not in refused.body()
    assert refused.headers
