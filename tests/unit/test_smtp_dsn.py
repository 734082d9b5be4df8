"""What is asked of delivery status notifications, and how it is written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.errors import UsageError
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.dsn import DsnRequest, Notify, Returned, original_recipient, xtext
from tocsin_workers.smtp.envelope import Commands, Envelope, commands

EVERYTHING = DsnRequest(Returned.HEADERS, "job 7+1=8", frozenset({Notify.DELAY, Notify.FAILURE}), names_original=True)


def flight(dsn: DsnRequest | None, offered: Capabilities) -> bytes:
    built = commands(Envelope("s@x", ("a+b@y",), dsn=dsn), offered)
    assert isinstance(built, Commands)
    return built.flight()


def test_what_is_asked_stands_behind_mail_and_rcpt():
    assert flight(EVERYTHING, Capabilities(dsn=True)) == (
        b"MAIL FROM:<s@x> RET=HDRS ENVID=job+207+2B1+3D8\r\n"
        b"RCPT TO:<a+b@y> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+2Bb@y\r\n"
        b"DATA\r\n"
    )


@pytest.mark.parametrize(
    ("dsn", "offered"),
    [(EVERYTHING, Capabilities()), (None, Capabilities(dsn=True)), (DsnRequest(), Capabilities(dsn=True))],
    ids=["not offered", "not asked", "asked for nothing"],
)
def test_nothing_is_asked_that_is_not_wanted_and_offered(dsn, offered):
    assert flight(dsn, offered) == b"MAIL FROM:<s@x>\r\nRCPT TO:<a+b@y>\r\nDATA\r\n"


def test_an_international_address_is_told_in_ascii():
    assert original_recipient("jörg+1@y") == r"utf-8;j\x{F6}rg\x{2B}1@y"


def test_an_address_that_makes_too_long_a_parameter_is_not_told():
    address = "+" * 240 + "@y.test"
    assert DsnRequest(names_original=True, notify=frozenset({Notify.NEVER})).for_rcpt(address) == " NOTIFY=NEVER"


@pytest.mark.parametrize("identifier", ["", "x" * 101, "line\nbreak", "schön"])
def test_an_envelope_id_that_could_not_come_back_is_refused(identifier):
    with pytest.raises(UsageError):
        DsnRequest(envelope_id=identifier)


def test_never_goes_with_nothing_else():
    with pytest.raises(UsageError):
        DsnRequest(notify=frozenset({Notify.NEVER, Notify.DELAY}))


@given(st.text(st.characters(max_codepoint=126), max_size=30))
def test_xtext_can_be_read_back_and_is_one_word(text):
    written = xtext(text)
    assert re.fullmatch(r"([!-*,-<>-~]|[+][0-9A-F]{2})*", written)
    assert re.sub(r"[+](..)", lambda found: chr(int(found[1], 16)), written) == text
