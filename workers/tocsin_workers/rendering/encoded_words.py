"""Text in headers that is more than printable ASCII: encoded-words (RFC 2047)."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX_Q, _PREFIX_B, _SUFFIX = "=?utf-8?q?", "=?utf-8?b?", "?="
_AROUND = len(_PREFIX_Q) + len(_SUFFIX)
_LONGEST_WORD = 75
"""RFC 2047 section 2: an encoded-word is at most 75 characters long."""
_LONGEST_LINE = 76
"""The same section: a line that holds one is at most 76 characters long."""
_SHORTEST_ROOM = 12
"""What one character of four octets takes in Q."""

# RFC 2047 section 5 (3): what a Q-word may hold as it stands even inside a phrase, the narrowest place.
_LITERAL = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_Q = [chr(octet) if octet in _LITERAL else f"={octet:02X}" for octet in range(256)]
_Q[0x20] = "_"


def encoded_words(text: str, *, used: int) -> str:
    """Return `text` as encoded-words, Q or B, whichever is shorter, one a line, folded with CRLF and a space.

    `used` is how many characters stand on the first line already. White space
    between encoded-words is not part of the text (RFC 2047 section 6.2), so this is exact for any text.
    """
    encoded = text.encode()
    first_room = max(min(_LONGEST_WORD, _LONGEST_LINE - used) - _AROUND, _SHORTEST_ROOM)
    q_size = sum(len(_Q[octet]) for octet in encoded)
    words = _q_words if q_size <= (len(encoded) + 2) // 3 * 4 else _b_words
    return "\r\n ".join(words(text, first_room))


def _q_words(text: str, room: int) -> Iterator[str]:
    word = ""
    for character in text:
        piece = "".join([_Q[octet] for octet in character.encode()])
        if len(word) + len(piece) > room:
            yield f"{_PREFIX_Q}{word}{_SUFFIX}"
            word, room = "", _LONGEST_WORD - _AROUND
        word += piece
    yield f"{_PREFIX_Q}{word}{_SUFFIX}"


def _b_words(text: str, room: int) -> Iterator[str]:
    word = b""
    for character in text:
        piece = character.encode()
        if len(word) + len(piece) > room // 4 * 3:
            yield _b_word(word)
            word, room = b"", _LONGEST_WORD - _AROUND
        word += piece
    yield _b_word(word)


def _b_word(octets: bytes) -> str:
    return f"{_PREFIX_B}{binascii.b2a_base64(octets, newline=False).decode()}{_SUFFIX}"
