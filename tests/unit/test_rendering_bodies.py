"""Bodies that come in pieces are, octet by octet, those that come whole; and a reader finds what was meant."""

from __future__ import annotations

import binascii
import quopri
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tocsin_workers.rendering.bodies import BodyForm, EncodedBody, encode_base64, encode_text
from tocsin_workers.rendering.cutting import GAP
from tocsin_workers.smtp.body import LONE_DOT, to_wire

LINES = st.sampled_from(
    [
        "plain\n",
        ".\n",
        "..x\r\n",
        "\n",
        "\r",
        "ü\n",
        "消防演習\n",
        "trailing \n",
        "tab\t\r\n",
        "=_mark\n",
        "x" * 997 + "\n",
    ]
) | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters=GAP), max_size=80).map("{}\n".format)
BLOCK = st.lists(LINES, max_size=6).map("".join)
NOT_EMPTY = st.lists(LINES, min_size=1, max_size=6).map("".join).map("{}\n".format)
TAIL = BLOCK | st.sampled_from(["no line end", "x" * 998, "x" * 999, ".", "é" * 300, "\r"])
BOUNDARY = "=_mark"


def decoded(body: EncodedBody) -> str:
    match body.encoding:
        case "7bit":
            octets = body.octets
        case "quoted-printable":
            octets = quopri.decodestring(body.octets)
        case _:
            octets = binascii.a2b_base64(body.octets)
    return octets.decode()


def as_sent(text: str) -> str:
    lines = re.sub(r"\r\n?|\n", "\r\n", text)
    return lines if lines.endswith("\r\n") else f"{lines}\r\n"


@given(
    st.one_of(st.just(""), NOT_EMPTY),
    st.lists(st.tuples(NOT_EMPTY, NOT_EMPTY), max_size=3),
    BLOCK | TAIL,
    st.booleans(),
)
@example("", [], "", False)
@example("", [("a\n", "b\n")], "", False)
@example("const\n", [], "", True)
@example("c\n", [("a\n", "b\n")], ".", False)
@example("c\n", [("x" * 998 + "\n", ".\n")], ".", True)
def test_a_body_in_pieces_is_the_body_that_comes_whole(head, middle, tail, ends_with_constant):
    constants, own = [head], []
    for filling, constant in middle:
        own.append(filling)
        constants.append(constant)
    if ends_with_constant:
        own.append("own\r\n")
        constants.append(tail)
    else:
        own.append(tail)
        constants.append("")
    whole = constants[0] + "".join(a + b for a, b in zip(own, constants[1:], strict=True))
    form = BodyForm(constants)
    for boundary in (None, BOUNDARY):
        found = form.encode(GAP.join(own), boundary=boundary)
        assert found == encode_text(whole, boundary=boundary)
        # The same again: what was made lazily changes nothing.
        assert found == form.encode(GAP.join(own), boundary=boundary)


@given(st.lists(LINES, max_size=8).map("".join), TAIL)
@example("", "x" * 998)
@example("消防演習\n" * 30, ".")
def test_a_reader_finds_the_text_and_the_wire_needs_nothing_but_its_dots(head, tail):
    body = encode_text(head + tail)
    assert decoded(body) == as_sent(head + tail)
    assert body.octets.isascii()
    assert body.octets.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", body.octets)
    assert max(map(len, body.octets.split(b"\r\n"))) <= 998
    assert body.has_leading_dot == (re.search(rb"(?m)^\.", body.octets) is not None)
    assert body.has_leading_dot or to_wire(body.octets) == body.octets + LONE_DOT


@pytest.mark.parametrize("text", [BOUNDARY, f"x\n--{BOUNDARY}--\n"])
def test_a_boundary_is_encoded_away_in_what_is_shared_and_in_what_is_not(text):
    for form, own in ((BodyForm([text]), ""), (BodyForm(["", ""]), text), (BodyForm(["shared\n", ""]), text)):
        body = form.encode(own, boundary=BOUNDARY)
        assert body.encoding == "quoted-printable"
        assert BOUNDARY.encode() not in body.octets
        assert form.encode(own).encoding == "7bit"


@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, 114, 1000])
def test_base64_has_lines_of_76(size):
    encoded = encode_base64(b"x" * size)
    assert binascii.a2b_base64(encoded) == b"x" * size
    lines = encoded.split(b"\r\n")
    assert lines.pop() == b""
    assert all(len(line) == 76 for line in lines[:-1])
