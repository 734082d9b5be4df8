"""Whole messages: the standard library reads back what went in, and the same inputs give the same octets."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.contract.part import Attachment
from tocsin_schema.errors import AddressError, RenderingError
from tocsin_workers.rendering.bodies import encode_text
from tocsin_workers.rendering.headers import Mailbox
from tocsin_workers.rendering.message import RenderedMessage, filled
from tocsin_workers.rendering.mime import Composer, compose, encode_attachment, shown_to
from tocsin_workers.smtp.body import LONE_DOT, to_wire

DESK = parse_address("desk@example.org")
ADA = Mailbox(parse_address("ada@example.org"), "Ada")
MESSAGE_ID = "<1.r1-1@example.org>"
DATE = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


def composed(message: RenderedMessage, to: Mailbox = ADA, attachments=()) -> bytes:
    return compose(message, from_address=DESK, to=to, message_id=MESSAGE_ID, date=DATE, attachments=attachments)


def read(raw: bytes) -> EmailMessage:
    parsed = message_from_bytes(raw, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    assert not [defect for part in parsed.walk() for defect in part.defects]
    return parsed


def shown_name(raw: bytes, header: str) -> str:
    """Read the name with the older parser: Python 3.11's newer one keeps the space between encoded-words."""
    found = getaddresses([message_from_bytes(raw, policy=policy.compat32)[header]])
    return str(make_header(decode_header(found[0][0])))


def addresses_in(parsed: EmailMessage, header: str) -> list[str]:
    """Read the addresses; UTF-8 in a header is kept by the library as surrogates."""
    return [one.addr_spec.encode("ascii", "surrogateescape").decode() for one in parsed[header].addresses]


def as_sent(text: str) -> str:
    lines = re.sub(r"\r\n?|\n", "\n", text)
    return lines if lines.endswith("\n") else f"{lines}\n"


def body_of(parsed: EmailMessage, kind: str) -> str:
    part = parsed.get_body((kind,))
    assert isinstance(part, EmailMessage)
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    return octets.decode().replace("\r\n", "\n")


def test_a_plain_message_is_written_as_one_would_by_hand():
    assert composed(
        RenderedMessage(subject="Fire", text="Leave now.\n", from_name="Desk", reply_to="it@example.org")
    ) == (
        b"Date: Sat, 21 Nov 2026 12:30:00 +0000\r\n"
        b"From: Desk <desk@example.org>\r\n"
        b"To: Ada <ada@example.org>\r\n"
        b"Subject: Fire\r\n"
        b"Message-ID: <1.r1-1@example.org>\r\n"
        b"Reply-To: it@example.org\r\n"
        b"Auto-Submitted: auto-generated\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Leave now.\r\n"
    )


def test_the_same_inputs_give_the_same_octets():
    message = RenderedMessage(subject="ü", text="ü", html="<p>ü</p>", headers={"X-A": "1"})
    files = [encode_attachment(Attachment("a.bin", "application/octet-stream", bytes(range(256))))]
    assert composed(message, attachments=files) == composed(message, attachments=files)


def test_auto_submitted_is_the_callers_where_given():
    parsed = read(composed(RenderedMessage(text="x", headers={"auto-submitted": "auto-replied", "X-A": "b"})))
    assert parsed.get_all("auto-submitted") == ["auto-replied"]
    assert parsed["x-a"] == "b"


def test_a_header_that_nobody_may_set_is_refused():
    with pytest.raises(RenderingError, match="cannot be set"):
        composed(RenderedMessage(text="x", headers={"Bcc": "b@example.org"}))


def test_a_message_without_a_body_is_refused():
    with pytest.raises(RenderingError, match="neither text nor html"):
        composed(RenderedMessage(subject="x"))


@pytest.mark.parametrize("reply_to", ["a@x.org, b@x.org", "Ada <a@x.org>", "nobody", ""])
def test_a_reply_to_that_is_not_one_address_is_refused(reply_to):
    with pytest.raises(RenderingError, match="reply_to"):
        composed(RenderedMessage(text="x", reply_to=reply_to))


def test_a_shared_message_shows_the_given_address_or_its_sender():
    assert shown_to(RenderedMessage(visible_to="all@example.org"), DESK).address.address == "all@example.org"
    assert shown_to(RenderedMessage(), DESK).address == DESK
    with pytest.raises(RenderingError, match="to: "):
        shown_to(RenderedMessage(visible_to="a@x.org, b@x.org"), DESK)


def test_text_and_html_are_alternatives_and_html_comes_last():
    parsed = read(composed(RenderedMessage(text="t", html="<p>h</p>")))
    assert parsed.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in parsed.iter_parts()] == ["text/plain", "text/html"]


def test_attachments_come_back_as_they_were():
    content = bytes(range(256)) * 40
    files = [
        encode_attachment(Attachment("Übersicht.pdf", "application/pdf", content)),
        encode_attachment(Attachment("empty.txt", "text/plain", b"")),
    ]
    parsed = read(composed(RenderedMessage(text="t", html="<p>h</p>"), attachments=files))
    assert parsed.get_content_type() == "multipart/mixed"
    found = list(parsed.iter_attachments())
    assert [(one.get_filename(), one.get_content_type()) for one in found] == [
        ("Übersicht.pdf", "application/pdf"),
        ("empty.txt", "text/plain"),
    ]
    assert found[0].get_payload(decode=True) == content
    assert body_of(parsed, "html") == "<p>h</p>\n"


def test_nobody_can_end_a_part_from_inside():
    message = RenderedMessage(text="t", html="<p>h</p>")
    found = re.search(rb'boundary="([^"]+)"', composed(message))
    assert found
    evil = f"--{found[1].decode()}\nContent-Type: text/html\n\n<b>evil</b>"
    parsed = read(composed(RenderedMessage(text=evil, html="<p>h</p>")))
    assert len(list(parsed.iter_parts())) == 2
    assert body_of(parsed, "plain") == f"{evil}\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain\n", "7bit"),
        ("x" * 998, "7bit"),
        ("x" * 999, "quoted-printable"),
        ("Viele Grüße aus der Bibliothek. " * 20, "quoted-printable"),
        ("消防演習" * 20, "base64"),
        ("a NUL \0 in plain text", "quoted-printable"),
    ],
)
def test_the_plainest_encoding_that_fits_is_taken(text, encoding):
    assert encode_text(text).encoding == encoding


WORDS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=300)
HEADER_TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n\0"), max_size=100)


LOCAL = st.text(st.sampled_from("abz09.!#$%&'*+/=?^_`{|}~-"), min_size=1, max_size=30) | st.sampled_from(
    ["jürgen", "δοκιμή"]
)
FILENAME = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/\\"), min_size=1, max_size=60
)


@given(
    subject=HEADER_TEXT,
    name=HEADER_TEXT,
    text=WORDS,
    html=WORDS,
    header=HEADER_TEXT,
    local=LOCAL,
    files=st.lists(st.tuples(FILENAME, st.binary(max_size=200)), max_size=2),
)
@example(
    subject="s", name="n", text="a \n b\t\n.\n..\n", html=" " * 1200, header="", local="a", files=[("f", b"\r\n.\r\n")]
)
@example(
    subject="s", name="n", text="From me\r\n\r\r\n=\n--=_", html="é" * 1000, header="x" * 1500, local="a", files=[]
)
def test_the_standard_library_reads_back_what_went_in(*, subject, name, text, html, header, local, files):
    try:
        to = parse_address(f"{local}@example.org")
    except AddressError:
        to = ADA.address
    attachments = [encode_attachment(Attachment(filename, "application/x-any", content)) for filename, content in files]
    message = RenderedMessage(
        subject=subject, from_name=name, text=text, html=html, reply_to=to.address, headers={"X-Any": header}
    )
    raw = composed(message, Mailbox(to, name), attachments)
    assert raw.isascii() or not to.address.isascii()
    assert raw.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    parsed = read(raw)
    assert (parsed["subject"], parsed["x-any"]) == (subject, header)
    assert [one.addr_spec for one in parsed["from"].addresses] == ["desk@example.org"]
    assert addresses_in(parsed, "to") == addresses_in(parsed, "reply-to") == [to.address]
    assert shown_name(raw, "from") == shown_name(raw, "to") == " ".join(name.split())
    assert parsed["message-id"] == MESSAGE_ID
    assert parsed["date"].datetime == DATE
    assert body_of(parsed, "plain") == as_sent(text)
    assert body_of(parsed, "html") == as_sent(html)
    found = [(one.get_filename(), one.get_payload(decode=True)) for one in parsed.iter_attachments()]
    assert found == [(filename.strip(), content) for filename, content in files]


@given(text=WORDS, html=st.none() | WORDS, with_file=st.booleans())
@example(text=".", html=None, with_file=False)
@example(text="x", html=".\n", with_file=True)
@example(text="ü" * 10 + "\n.\n.x", html=None, with_file=True)
def test_the_wire_of_a_message_without_leading_dots_is_the_message_and_the_final_dot(text, html, with_file):
    files = [encode_attachment(Attachment(".f", "text/plain", b".\r\n.\r\n"))] if with_file else []
    message = Composer(DESK, files).compose(
        filled(RenderedMessage(subject=". .", text=text, html=html)), to=ADA, message_id=MESSAGE_ID, date=DATE
    )
    assert message.has_leading_dot == (re.search(rb"(?m)^\.", message.octets) is not None)
    assert message.has_leading_dot or to_wire(message.octets) == message.octets + LONE_DOT
