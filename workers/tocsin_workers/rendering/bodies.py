"""A body as octets: CRLF line ends and the plainest transfer encoding that fits (RFC 2045)."""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from tocsin_workers.rendering.cutting import GAP
from tocsin_workers.rendering.headers import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BOUNDARY_MARK = "=_"
"""What every boundary begins with. Quoted-printable and base64 never hold it (RFC 2046 section 5.1.1)."""

_BASE64_LINE = 76
_LINE_END = re.compile(r"\r\n?|\n")
_GAP = GAP.encode()


class EncodedBody(Struct, frozen=True, gc=False):
    """Octets that end in CRLF, with the name of their transfer encoding."""

    encoding: str
    octets: bytes
    has_leading_dot: bool
    """Whether a line begins with a dot, which is doubled on the wire (RFC 5321 section 4.5.2)."""


class _Constants(Struct, frozen=True):
    """Constant lines in one encoding, with room for what stands between them."""

    with_gaps: list[bytes]
    has_leading_dot: bool

    def filled(self, own: Sequence[bytes]) -> bytes:
        pieces = self.with_gaps.copy()
        pieces[1::2] = own
        return b"".join(pieces)


class BodyForm:
    """The lines that the messages of a job share, encoded once, and the gaps between them for a message's own lines.

    All that is decided of a body is decided by line: whether it is ASCII, how long it is, whether it begins with a
    dot, what becomes of it in quoted-printable. So a body of such pieces is, octet by octet, as if it had come whole.
    """

    def __init__(self, constants: Sequence[str]) -> None:
        r"""`constants` stand before, between and after the gaps: of one gap two, of no gap one, as `cut` gives them.

        Those between begin after a line's end and end with `\n`.
        """
        lines = [_with_line_feeds(constant) for constant in constants]
        self._gaps = len(lines) - 1
        self._is_one_gap = lines == ["", ""]
        self._ends_with_gap = self._gaps > 0 and not lines[-1]
        if not self._ends_with_gap and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        self.characters = sum(map(len, constants))
        """How many characters all of them have."""
        together = "".join(lines)
        self._is_plain = _is_plain(together) and GAP not in together
        self._suspicious = together if BOUNDARY_MARK in together else ""
        self._octets = _constants([_octets(piece) for piece in lines])
        self._quoted: _Constants | None = None

    def encode(self, own: str = "", *, boundary: str | None = None) -> EncodedBody:
        """Return the body as 7bit where it is ASCII with lines of at most 998, else quoted-printable or base64.

        `own` is what fills the gaps, with GAP between one and the next. Every kind of line end becomes CRLF, and the
        last line gets one. Text with the `boundary` in it is encoded, so that nobody can end a MIME part from inside.
        """
        lines = self._own_lines(own)
        octets = _octets(lines)
        filling = octets.split(_GAP) if self._gaps else []
        holds_boundary = boundary is not None and (boundary in lines or boundary in self._suspicious)
        if self._is_plain and _is_plain(lines) and not holds_boundary:
            has_dot = self._octets.has_leading_dot or _has_leading_dot(octets)
            return EncodedBody("7bit", self._octets.filled(filling), has_dot)
        whole = self._octets.filled(filling)
        if self._quoted is None:
            self._quoted = _constants(map(_quoted, self._octets.with_gaps[::2]))
        own_quoted = list(map(_quoted, filling))
        quoted = self._quoted.filled(own_quoted)
        if len(quoted) <= len(whole) * 4 // 3 * 78 // 76:
            has_dot = self._quoted.has_leading_dot or any(map(_has_leading_dot, own_quoted))
            return EncodedBody("quoted-printable", quoted, has_dot)
        return EncodedBody("base64", encode_base64(whole), has_leading_dot=False)

    def _own_lines(self, own: str) -> str:
        """Give a message's own lines with line feeds, and the last line of the body one."""
        lines = _with_line_feeds(own)
        if not self._ends_with_gap or lines.endswith("\n"):
            return lines
        if lines.endswith(GAP) or not (lines or self._is_one_gap):
            # The last gap is empty, and what stands before it has ended its line.
            return lines
        return f"{lines}\n"


def encode_text(text: str, *, boundary: str | None = None) -> EncodedBody:
    """Return a whole body encoded; see `BodyForm.encode`."""
    return BodyForm([text]).encode(boundary=boundary)


def encode_base64(octets: bytes) -> bytes:
    """Return base64 in lines of 76 characters with CRLF (RFC 2045 section 6.8)."""
    encoded = binascii.b2a_base64(octets, newline=False)
    lines = [encoded[start : start + _BASE64_LINE] for start in range(0, len(encoded), _BASE64_LINE)]
    return b"\r\n".join([*lines, b""])


def _with_line_feeds(text: str) -> str:
    return _LINE_END.sub("\n", text) if "\r" in text else text


def _octets(lines: str) -> bytes:
    return lines.replace("\n", "\r\n").encode()


def _quoted(octets: bytes) -> bytes:
    return binascii.b2a_qp(octets, istext=True)


def _constants(pieces: Iterable[bytes]) -> _Constants:
    """Put room between pieces; each begins a line."""
    found = list(pieces)
    with_gaps = [b""] * (2 * len(found) - 1)
    with_gaps[::2] = found
    return _Constants(with_gaps, any(map(_has_leading_dot, found)))


def _is_plain(lines: str) -> bool:
    return lines.isascii() and (len(lines) <= MAX_LINE or max(map(len, lines.replace(GAP, "").split("\n"))) <= MAX_LINE)


def _has_leading_dot(octets: bytes) -> bool:
    return b"." in octets and (octets.startswith(b".") or b"\n." in octets or b"\0." in octets)
