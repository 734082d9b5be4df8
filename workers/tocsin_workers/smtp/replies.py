"""SMTP replies: bytes in, whole replies out, without I/O (RFC 5321 section 4.2, RFC 2034)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

START_INPUT = 354
"""Asks for the body (RFC 5321 section 4.3.2)."""
BAD_SEQUENCE = 503
"""The command does not fit where the server sees the session (RFC 5321 section 4.2.3)."""
MAX_LINE = 8192
"""Octets of one reply line, its end included. RFC 5321 section 4.5.3.1.5 asks for 512; servers send more."""
MAX_REPLY = 32 * 1024
"""Octets of one reply over all its lines."""
MAX_TEXT = 2000
"""Characters of a reply that we keep: enough for every known text, small enough to store a recipient."""

_LINE_TOO_LONG = f"a reply line of more than {MAX_LINE} octets"
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([- \t])(.*))?\Z", re.DOTALL)
_ENHANCED = re.compile(r"\s*([245])\.(\d{1,3})\.(\d{1,3})(?=\s|\Z)\s*")
# Terminals and log viewers obey these: C0 and C1 controls, line separators, and bidirectional overrides.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


class MalformedReplyError(Exception):
    """The server sent something that is no SMTP reply, or one without end: the session has to end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete reply.

    `enhanced` is the code of RFC 3463 (`5.1.1`), or None where there is none or where it contradicts the
    first digit of `code`, which wins. `text` is what the server said without both codes, its lines joined by
    spaces, control characters made harmless, at most `MAX_TEXT` characters.
    """

    code: int
    enhanced: str | None
    text: str

    @classmethod
    def of(cls, code: int, lines: list[str]) -> Reply:
        """Make a reply from its code and the text of its lines; the last line's enhanced code decides."""
        enhanced: str | None = None
        words: list[str] = []
        for line in lines:
            found = _ENHANCED.match(line)
            if found is None:
                words.append(harmless(line).strip())
                continue
            if int(found[1]) == code // 100:
                enhanced = f"{found[1]}.{int(found[2])}.{int(found[3])}"
            words.append(harmless(line[found.end() :]).strip())
        return cls(code, enhanced, bounded(" ".join(filter(None, words))))

    @property
    def accepted(self) -> bool:
        """Whether the command was carried out: 2yz."""
        return 200 <= self.code < 300  # noqa: PLR2004  # the class of the reply, RFC 5321 section 4.2.1

    @property
    def closing(self) -> bool:
        """Whether the server says that it closes the connection: 421."""
        return self.code == 421  # noqa: PLR2004  # RFC 5321 section 3.8

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


class ReplyParser:
    """Cuts a stream of octets into replies, however it was chunked.

    Bounded: no more than one line and the text of one unfinished reply is ever held.
    """

    __slots__ = ("_code", "_held", "_lines", "_partial")

    def __init__(self) -> None:
        self._partial = b""
        self._code: bytes | None = None
        self._lines: list[str] = []
        self._held = 0

    def feed(self, data: bytes) -> list[Reply]:
        """Take in what arrived and give the replies that are complete now.

        Raises `MalformedReplyError`; what arrived before the malformed line is lost with it, so use
        `feed_into` where those replies matter.
        """
        replies: list[Reply] = []
        self.feed_into(replies, data)
        return replies

    def feed_into(self, replies: list[Reply], data: bytes) -> None:
        """Take in what arrived and append the replies that are complete now, also those before an error."""
        if self._partial:
            data = self._partial + data
        lines = data.split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            if self._code is None and line[3:4] != b"-":
                replies.append(_single(line))
            else:
                reply = self._take(line)
                if reply is not None:
                    replies.append(reply)
        if len(self._partial) >= MAX_LINE:
            raise MalformedReplyError(_LINE_TOO_LONG)

    def _take(self, line: bytes) -> Reply | None:
        """Take a line of a reply of several lines; give the reply when it is complete."""
        code, separator, text = _parsed(line)
        self._held += len(line) + 1
        if self._held > MAX_REPLY:
            raise MalformedReplyError(f"a reply of more than {MAX_REPLY} octets")
        # Some servers change the code from line to line; the last line decides, as in Postfix.
        self._code = code
        self._lines.append(text.decode("utf-8", "replace"))
        if separator == b"-":
            return None
        reply = Reply.of(int(code), self._lines)
        self._code, self._lines, self._held = None, [], 0
        return reply


def harmless(text: str) -> str:
    """Give the text with every control character replaced, so that it may be shown, logged and stored."""
    if text.isascii() and text.isprintable():
        return text
    return _HARMFUL.sub("\ufffd", text.replace("\t", " ").rstrip("\r"))


def bounded(text: str) -> str:
    """Give at most `MAX_TEXT` characters of the text."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


# A server says "250 2.1.5 Ok" millions of times: parse it once.
@lru_cache(maxsize=256)
def _single(line: bytes) -> Reply:
    code, _, text = _parsed(line)
    return Reply.of(int(code), [text.decode("utf-8", "replace")])


def _parsed(line: bytes) -> tuple[bytes, bytes, bytes]:
    if len(line) >= MAX_LINE:
        raise MalformedReplyError(_LINE_TOO_LONG)
    found = _LINE.match(line.removesuffix(b"\r"))
    if found is None:
        shown = bounded(harmless(line[:80].decode("utf-8", "replace")))
        raise MalformedReplyError(f"a line that is no SMTP reply: {shown!r}")
    return found[1], found[2] or b" ", found[3] or b""
