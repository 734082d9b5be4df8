"""Envelopes, and the commands that they become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.errors import AddressError
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.dsn import DsnRequest
from tocsin_workers.smtp.envelope import Commands, Envelope, LocalReason, LocalRefusal, commands

FULL = Capabilities.of({"size": "1000", "8bitmime": "", "smtputf8": "", "pipelining": "", "dsn": ""}, [])
NOTHING = Capabilities()


def built(envelope: Envelope, offered: Capabilities) -> Commands:
    result = commands(envelope, offered)
    assert isinstance(result, Commands)
    return result


def refused(envelope: Envelope, offered: Capabilities) -> LocalRefusal:
    result = commands(envelope, offered)
    assert isinstance(result, LocalRefusal)
    return result


@pytest.mark.parametrize(
    ("envelope", "offered", "mail"),
    [
        (Envelope("s@x", ("a@y",)), NOTHING, b"MAIL FROM:<s@x>\r\n"),
        (Envelope("", ("a@y",)), NOTHING, b"MAIL FROM:<>\r\n"),
        (Envelope("s@x", ("a@y",), size=77), NOTHING, b"MAIL FROM:<s@x>\r\n"),
        (Envelope("s@x", ("a@y",), size=77), FULL, b"MAIL FROM:<s@x> SIZE=77\r\n"),
        (Envelope("s@x", ("a@y",), eight_bit=True), FULL, b"MAIL FROM:<s@x> BODY=8BITMIME\r\n"),
        (Envelope("s@x", ("ä@y",)), FULL, b"MAIL FROM:<s@x> SMTPUTF8\r\n"),
        (Envelope("s@x", ("a@y",), smtputf8=True), FULL, b"MAIL FROM:<s@x> SMTPUTF8\r\n"),
        (Envelope("ö@x", ("a@y",), 5), FULL, "MAIL FROM:<ö@x> SIZE=5 SMTPUTF8\r\n".encode()),
    ],
)
def test_mail_has_the_parameters_that_are_needed_and_offered(envelope, offered, mail):
    assert built(envelope, offered).mail == mail


def rcpts(result: Commands) -> list[bytes]:
    return [result.rcpt(place) for place in result.asked]


def test_each_recipient_has_a_command():
    assert rcpts(built(Envelope("s@x", ("a@y", "ä@y")), FULL)) == [
        b"RCPT TO:<a@y>\r\n",
        "RCPT TO:<ä@y>\r\n".encode(),
    ]


def test_a_recipient_that_needs_smtputf8_does_not_sink_the_others():
    result = built(Envelope("s@x", ("a@y", "ä@y", "b@y")), NOTHING)
    assert result.mail == b"MAIL FROM:<s@x>\r\n"
    assert {place: refusal.reason for place, refusal in result.refused.items()} == {1: LocalReason.SMTPUTF8_NOT_OFFERED}
    assert list(result.asked) == [0, 2]
    assert result.flight() == b"MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nDATA\r\n"


@pytest.mark.parametrize(
    ("envelope", "offered", "reason"),
    [
        (Envelope("s@x", ("ä@y",)), NOTHING, LocalReason.SMTPUTF8_NOT_OFFERED),
        (Envelope("ö@x", ("a@y",)), NOTHING, LocalReason.SMTPUTF8_NOT_OFFERED),
        (Envelope("s@x", ("a@y",), smtputf8=True), NOTHING, LocalReason.SMTPUTF8_NOT_OFFERED),
        (Envelope("s@x", ("a@y",), eight_bit=True), NOTHING, LocalReason.EIGHT_BIT_NOT_OFFERED),
        (Envelope("s@x", ("a@y",), size=1001), FULL, LocalReason.TOO_BIG),
    ],
)
def test_what_the_server_cannot_take_is_not_asked(envelope, offered, reason):
    assert refused(envelope, offered).reason is reason


def test_a_message_of_exactly_the_limit_is_asked():
    assert b"SIZE=1000" in built(Envelope("s@x", ("a@y",), size=1000), FULL).mail


@pytest.mark.parametrize(
    "address",
    [
        "a@y>\r\nRCPT TO:<b@y",
        "a\n@y",
        "a\0@y",
        "<a@y>",
        "a b@y",
        "a\t@y",
        "a\x7f@y",
        "",
        "x" * 250 + "@y.test",
        "\ud800@y",
    ],
)
def test_an_address_that_could_not_stand_between_brackets_is_refused(address):
    with pytest.raises(AddressError):
        Envelope("s@x", ("a@y", address))
    if address:
        with pytest.raises(AddressError):
            Envelope(address, ("a@y",))


def test_an_envelope_without_recipient_is_refused():
    with pytest.raises(AddressError):
        Envelope("s@x", ())


@given(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3), st.booleans())
def test_no_address_whatever_makes_a_second_command(sender, recipients, with_dsn):
    dsn = DsnRequest(names_original=True) if with_dsn else None
    try:
        envelope = Envelope(sender, tuple(recipients), dsn=dsn)
    except AddressError:
        return
    result = built(envelope, FULL)
    written = [result.mail, *rcpts(result)]
    for command in written:
        assert command.count(b"\r") == command.count(b"\n") == 1
        assert command.endswith(b"\r\n")
        assert command.count(b">") == 1
    assert result.flight() == b"".join([*written, b"DATA\r\n"])


def test_capabilities_are_read_from_ehlo():
    offered = Capabilities.of(
        {
            "size": "157286400",
            "pipelining": "",
            "chunking": "",
            "dsn": "",
            "enhancedstatuscodes": "",
            "limits": "RCPTMAX=100 MAILMAX=20 odd",
        },
        ["xoauth2", "LOGIN"],
    )
    assert offered.size_limit == 157286400
    assert offered.pipelining
    assert offered.chunking
    assert offered.dsn
    assert offered.enhanced_status_codes
    assert not offered.smtputf8
    assert offered.auth == {"XOAUTH2", "LOGIN"}
    assert (offered.recipients_limit, offered.transactions_limit) == (100, 20)


@pytest.mark.parametrize("size", ["", "0", "-5", "many", "9" * 40, "²"])
def test_a_size_that_is_no_limit_is_none(size):
    offered = Capabilities.of({"size": size}, [])
    assert offered.size
    assert offered.size_limit is None
