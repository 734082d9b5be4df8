"""Bodies on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_workers.smtp.body import to_wire


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a\nb\rc\r\nd", b"a\r\nb\r\nc\r\nd\r\n.\r\n"),
        (b"\n\r", b"\r\n\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n.\r\n..\r\n", b"..\r\n..\r\n...\r\n.\r\n"),
        (b"a\r\n.", b"a\r\n..\r\n.\r\n"),
    ],
)
def test_lines_end_in_crlf_and_dots_are_stuffed(message, wire):
    assert to_wire(message) == wire


@pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r\n", b"\r.\r\n"])
def test_a_message_cannot_end_early_and_smuggle_in_another(end):
    wire = to_wire(b"one" + end + b"MAIL FROM:<x@y>\r\n")
    assert wire.count(b"\r\n.\r\n") == 1
    assert wire.endswith(b"\r\n.\r\n")


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\0"]), max_size=30).map(b"".join))
def test_unstuffed_it_is_the_message_with_proper_line_ends(message):
    wire = to_wire(message)
    assert wire.endswith(b".\r\n")
    lines = wire.removesuffix(b".\r\n").split(b"\r\n")
    assert lines.pop() == b""
    assert not any(b"\r" in line or b"\n" in line or line == b"." for line in lines)
    unstuffed = [line[1:] if line.startswith(b".") else line for line in lines]
    expected = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert unstuffed == expected
