"""A body as octets: CRLF line ends and the plainest transfer encoding that fits (RFC 2045)."""

from __future__ import annotations

import binascii
import re

from msgspec import Struct

from tocsin_workers.rendering.headers import MAX_LINE

_BASE64_OCTETS_A_LINE = 57
_LINE_END = re.compile(r"\r\n?|\n")


class EncodedBody(Struct, frozen=True):
    """Octets that end in CRLF, with the name of their transfer encoding."""

    encoding: str
    octets: bytes


def encode_text(text: str, *, boundary: str | None = None) -> EncodedBody:
    """Return the text as 7bit where it is ASCII with lines of at most 998, else quoted-printable or base64.

    Every kind of line end becomes CRLF, and the last line gets one. Text with the `boundary` in it is encoded,
    so that nobody can end a MIME part from inside.
    """
    lines = _LINE_END.sub("\n", text) if "\r" in text else text
    if not lines.endswith("\n"):
        lines += "\n"
    octets = lines.replace("\n", "\r\n").encode()
    if lines.isascii() and _lines_fit(lines) and "\0" not in lines and (boundary is None or boundary not in lines):
        return EncodedBody("7bit", octets)
    quoted = binascii.b2a_qp(octets, istext=True)
    if len(quoted) <= len(octets) * 4 // 3 * 78 // 76:
        return EncodedBody("quoted-printable", quoted)
    return EncodedBody("base64", encode_base64(octets))


def encode_base64(octets: bytes) -> bytes:
    """Return base64 in lines of 76 characters with CRLF (RFC 2045 section 6.8)."""
    step = _BASE64_OCTETS_A_LINE
    return b"".join(
        binascii.b2a_base64(octets[start : start + step], newline=False) + b"\r\n"
        for start in range(0, len(octets), step)
    )


def _lines_fit(lines: str) -> bool:
    return len(lines) <= MAX_LINE or max(map(len, lines.split("\n"))) <= MAX_LINE
