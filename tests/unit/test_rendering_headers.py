"""Header fields as octets: read back by the standard library as they were meant."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.utils import getaddresses
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.errors import RenderingError
from tocsin_workers.rendering.headers import Mailbox, filename_parameter, mailbox_header, text_header
from tocsin_workers.rendering.message_id import MessageIds, batch_part, message_id, recipient_part

ADA = parse_address("ada@example.org")
VALUES = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]), max_size=200)
ASCII_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)


def read(raw: bytes):
    return message_from_bytes(raw + b"\r\n", policy=policy.default)


def shown_name(raw: bytes) -> str:
    """Read the name with the older parser: Python 3.11's newer one keeps the space between encoded-words."""
    found = getaddresses([message_from_bytes(raw, policy=policy.compat32)["from"]])
    return str(make_header(decode_header(found[0][0])))


def lines(raw: bytes) -> list[bytes]:
    assert raw.endswith(b"\r\n")
    return raw[:-2].split(b"\r\n")


def test_a_short_plain_value_stands_as_it_is():
    assert text_header("Subject", "Fire in Hall 7") == b"Subject: Fire in Hall 7\r\n"


def test_a_long_plain_value_is_folded_at_its_spaces():
    raw = text_header("Subject", "word " * 60 + "end")
    assert all(len(line) <= 78 for line in lines(raw))
    assert b"=?" not in raw
    assert read(raw)["subject"] == "word " * 60 + "end"


def test_what_looks_like_an_encoded_word_is_shown_as_it_was_written():
    assert read(text_header("Subject", "=?utf-8?q?x?="))["subject"] == "=?utf-8?q?x?="


def test_mostly_ascii_text_stays_readable_and_other_scripts_stay_short():
    assert b"=?utf-8?q?Stra=C3=9Fe_gesperrt?=" in text_header("Subject", "Straße gesperrt")
    assert b"=?utf-8?b?" in text_header("Subject", "消防演習")


@given(VALUES | ASCII_VALUES)
@example("x" * 1900)
@example(" leading and trailing ")
@example("😀" * 100)
@example("")
def test_any_subject_is_read_back_and_keeps_the_line_limits(value):
    raw = text_header("Subject", value)
    assert raw.isascii()
    assert all(line for line in lines(raw))
    assert all(len(line) <= 78 for line in lines(raw)) or all(len(line) <= 998 for line in lines(raw))
    assert str(read(raw)["subject"]) == value


@given(VALUES | ASCII_VALUES)
@example('O"Brien\\')
@example("Ada, Countess")
@example("ada@example.org <x@y.z>")
@example("=?utf-8?q?x?=")
def test_any_display_name_is_read_back_and_never_becomes_an_address(name):
    raw = mailbox_header("From", Mailbox(ADA, name))
    assert all(len(line) <= 78 for line in lines(raw))
    assert [one.addr_spec for one in read(raw)["from"].addresses] == ["ada@example.org"]
    assert shown_name(raw) == " ".join(name.split())


@pytest.mark.parametrize("value", ["a\r\nBcc: x@y.z", "a\nb", "a\rb", "a\0b"])
def test_a_line_break_never_gets_into_a_header(value):
    with pytest.raises(RenderingError, match="line break"):
        text_header("Subject", value)
    with pytest.raises(RenderingError, match="line break"):
        mailbox_header("To", Mailbox(ADA, value))


def test_a_structured_header_is_never_encoded():
    url = f"<https://example.org/{'x' * 500}>"
    assert text_header("List-Unsubscribe", url) == f"List-Unsubscribe: {url}\r\n".encode()
    with pytest.raises(RenderingError, match="plain ASCII"):
        text_header("List-Unsubscribe", "<https://exämple.org>")


def test_an_international_address_stands_in_utf8():
    assert mailbox_header("To", Mailbox(parse_address("jürgen@exämple.org"))) == (
        "To: jürgen@xn--exmple-cua.org\r\n".encode()
    )


FILENAMES = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/\\"), min_size=1, max_size=200
)


@given(FILENAMES)
@example("Übersicht 2026 – Räume.pdf")
@example('a"b;c.pdf')
@example("long " * 30 + ".pdf")
def test_any_filename_is_read_back(filename):
    raw = f"Content-Disposition: attachment{filename_parameter(filename)}\r\n".encode()
    assert raw.isascii()
    assert all(len(line) <= 78 for line in lines(raw))
    assert message_from_bytes(raw + b"\r\n").get_filename() == filename.strip()


def test_a_message_id_is_the_same_every_time_and_hides_the_address():
    job = UUID("0190b3c2-0000-7000-8000-000000000001")
    assert message_id(job, recipient_part(3, 17), "example.org") == (
        "<0190b3c2000070008000000000000001.r3-17@example.org>"
    )
    assert message_id(job, batch_part(4), "example.org") == "<0190b3c2000070008000000000000001.b4@example.org>"


def test_a_jobs_message_ids_are_those_that_are_made_one_by_one():
    job = UUID("0190b3c2-0000-7000-8000-000000000001")
    ids = MessageIds(job, "place.example.org")
    assert ids.of_recipient(3, 17) == message_id(job, recipient_part(3, 17), "place.example.org")
    assert ids.of_batch(4) == message_id(job, batch_part(4), "place.example.org")
    with pytest.raises(ValueError, match="Message-ID"):
        MessageIds(job, "exämple.org")


@pytest.mark.parametrize(("part", "domain"), [("a@b", "x.org"), ("", "x.org"), ("r1", ""), ("r1", "exämple.org")])
def test_a_message_id_of_unfit_pieces_is_a_programming_error(part, domain):
    with pytest.raises(ValueError, match="Message-ID"):
        message_id(UUID(int=1), part, domain)
