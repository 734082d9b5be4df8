"""The reply parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_workers.smtp.replies import (
    MAX_LINE,
    MAX_REPLY,
    MAX_TEXT,
    MalformedReplyError,
    Reply,
    ReplyParser,
)


def parsed(data: bytes) -> list[Reply]:
    return ReplyParser().feed(data)


@pytest.mark.parametrize(
    ("line", "code", "enhanced", "text"),
    [
        (b"250 2.1.5 Ok", 250, "2.1.5", "Ok"),
        (b"250 Ok", 250, None, "Ok"),
        (b"250", 250, None, ""),
        (b"250 ", 250, None, ""),
        (b"550 5.1.1", 550, "5.1.1", ""),
        (b"432 4.3.2 Concurrent connections limit exceeded", 432, "4.3.2", "Concurrent connections limit exceeded"),
        (b"550 5.7.233 Tenant", 550, "5.7.233", "Tenant"),
        (b"250 Ok 0100018f5.1.1-abc", 250, None, "Ok 0100018f5.1.1-abc"),
        (b"550 5.1.1.9 no code", 550, None, "5.1.1.9 no code"),
        (b"550 5.1.1x no code", 550, None, "5.1.1x no code"),
        (b"550 3.1.1 no class", 550, None, "3.1.1 no class"),
    ],
)
def test_a_reply_has_its_code_its_enhanced_code_and_its_text(line, code, enhanced, text):
    assert parsed(line + b"\r\n") == [Reply(code, enhanced, text)]


def test_the_first_digit_beats_a_contradicting_enhanced_code():
    assert parsed(b"450 5.1.1 greylisted\r\n") == [Reply(450, None, "greylisted")]


def test_lines_of_one_reply_are_joined_without_their_codes():
    lines = b"550-5.7.26 Unauthenticated email from x.test is not\r\n550-5.7.26 accepted.\r\n550 5.7.26 s3 - gsmtp\r\n"
    assert parsed(lines) == [Reply(550, "5.7.26", "Unauthenticated email from x.test is not accepted. s3 - gsmtp")]


def test_the_last_line_decides_about_the_code():
    assert parsed(b"250-fine\r\n550 5.1.1 or not\r\n") == [Reply(550, "5.1.1", "fine or not")]


def test_a_bare_line_feed_ends_a_line_too():
    assert parsed(b"250-a\n250 b\n") == [Reply(250, None, "a b")]


def test_octets_that_are_not_utf8_and_controls_are_made_harmless():
    reply = parsed("550 5.1.1 \x1b[31mred\x00\u202e\u2028".encode() + b"\xff\ttab\rcr\r\n")[0]
    assert reply.text == "\ufffd[31mred\ufffd\ufffd\ufffd\ufffd tab\ufffdcr"
    assert reply.text.isprintable()


def test_text_that_is_kept_is_bounded():
    assert len(parsed(b"250 " + b"x" * 8000 + b"\r\n")[0].text) == MAX_TEXT


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"2500 no\r\n",
        b"150 preliminary\r\n",
        b"650 no class\r\n",
        b"250-first\r\nsecond\r\n",
        b"x" * MAX_LINE,
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"250-" + b"x" * MAX_LINE,
        (b"250-" + b"x" * 1000 + b"\r\n") * (MAX_REPLY // 1000 + 1),
    ],
)
def test_what_is_no_reply_or_has_no_end_is_refused(data):
    with pytest.raises(MalformedReplyError):
        parsed(data)


def test_replies_before_a_malformed_line_are_not_lost():
    replies: list[Reply] = []
    with pytest.raises(MalformedReplyError):
        ReplyParser().feed_into(replies, b"250 one\r\n250 two\r\nrubbish\r\n")
    assert [reply.text for reply in replies] == ["one", "two"]


def test_a_reply_reads_like_the_line_that_it_came_in():
    assert str(Reply(550, "5.1.1", "No such user")) == "550 5.1.1 No such user"
    assert str(Reply(250, None, "")) == "250"


TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=40)
CODES = st.sampled_from([250, 354, 421, 450, 452, 550, 554])
REPLIES = st.lists(st.tuples(CODES, st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=8)


@given(REPLIES, st.data())
def test_however_the_octets_are_chunked_the_replies_are_the_same(replies, data):
    wire = b"".join(
        f"{code}{' ' if i == len(lines) - 1 else '-'}{line}\r\n".encode()
        for code, lines in replies
        for i, line in enumerate(lines)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    parser = ReplyParser()
    chunked = [
        reply
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)
        for reply in parser.feed(wire[start:end])
    ]
    assert chunked == parsed(wire)
    assert [reply.code for reply in chunked] == [code for code, _ in replies]


@given(st.binary(max_size=300))
def test_any_octets_give_replies_or_the_one_error(data):
    try:
        for reply in parsed(data):
            assert 200 <= reply.code < 600
    except MalformedReplyError:
        pass
