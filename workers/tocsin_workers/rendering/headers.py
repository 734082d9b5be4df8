"""Header fields as octets: encoded, folded, and never with a line break that was not meant (RFC 5322).

The standard library's `EmailMessage` takes 2.6 ms a message and, in Python 3.11, does not verify what it
wrote. These few functions do what our few kinds of header need; tests read everything back with the library.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from msgspec import Struct

from tocsin_schema.contract.addresses import Address, parse_address
from tocsin_schema.errors import AddressError, RenderingError
from tocsin_workers.rendering.encoded_words import encoded_words

FOLD_AT = 78
"""RFC 5322 section 2.1.1: how long a line should be at most, without its CRLF."""

MAX_LINE = 998
"""The same section: how long a line must be at most."""

_LINE_BREAK = re.compile(r"[\r\n\0]")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)
_SPACES_THEN_WORD = re.compile(r" *[^ ]+")
_TOKEN_FILENAME = re.compile(r"(?! )[A-Za-z0-9 ._()+,=@-]{1,60}(?<! )", re.ASCII)
_FILENAME_CHUNK = 50
_ASCII_ONLY = ("list-", "auto-submitted")


class Mailbox(Struct, frozen=True):
    """An address with the name that is shown for it."""

    address: Address
    name: str | None = None


def check_header_value(field: str, value: str) -> None:
    """Raise RenderingError where `value` holds CR, LF or NUL."""
    if _LINE_BREAK.search(value):
        raise RenderingError(
            f"{field} contains a line break or NUL, which would start another header.",
            fix="Take it out of the template or the data.",
        )


def one_address(field: str, text: str) -> Address:
    """Return the one address that `text` is. Raises RenderingError that names the field."""
    try:
        return parse_address(text)
    except AddressError as error:
        raise RenderingError(f"{field}: {error.problem}", fix=error.fix) from None


def text_header(name: str, value: str) -> bytes:
    """Return one unstructured header field with its CRLF. Raises RenderingError for what cannot be one."""
    if len(name) + len(value) + 2 <= FOLD_AT and _stands_as_it_is(value):
        return f"{name}: {value}\r\n".encode()
    check_header_value(name, value)
    if not value:
        return f"{name}: \r\n".encode()
    if _stands_as_it_is(value):
        folded = _folded(name, value)
        if max(map(len, folded.split("\r\n"))) <= MAX_LINE:
            return f"{folded}\r\n".encode()
    if name.lower().startswith(_ASCII_ONLY):
        raise RenderingError(
            f"The header {name} is not plain ASCII of at most {MAX_LINE} characters between spaces.",
            fix="Encode what is in it as its standard says (RFC 2369, RFC 2919, RFC 3834).",
        )
    return f"{name}: {encoded_words(value, used=len(name) + 2)}\r\n".encode()


def mailbox_header(name: str, mailbox: Mailbox) -> bytes:
    """Return one address header (From, To, Reply-To) with its CRLF.

    A local part that is not ASCII stands there in UTF-8, which takes a server with SMTPUTF8 (RFC 6532).
    """
    address = mailbox.address.address
    if mailbox.name is None:
        return f"{name}: {address}\r\n".encode()
    if len(line := f"{name}: {mailbox.name} <{address}>") <= FOLD_AT and _is_atoms(mailbox.name):
        return f"{line}\r\n".encode()
    check_header_value(name, mailbox.name)
    # A name is words: what stands between them is not kept by those who read it either (RFC 5322 section 3.2.5).
    shown = " ".join(mailbox.name.split())
    if not shown:
        return f"{name}: {address}\r\n".encode()
    phrase = _phrase(name, shown)
    used = len(f"{name}: {phrase}".rpartition("\r\n")[2])
    gap = " " if used + len(address) + 3 <= FOLD_AT else "\r\n "
    return f"{name}: {phrase}{gap}<{address}>\r\n".encode()


def filename_parameter(filename: str) -> str:
    """Return the `filename` parameter to stand after a media type or disposition (RFC 2183, RFC 2231)."""
    if _TOKEN_FILENAME.fullmatch(filename):
        return f';\r\n filename="{filename}"'
    pieces: list[str] = []
    line = ""
    for character in filename:
        encoded = quote(character, safe="")
        if len(line) + len(encoded) > _FILENAME_CHUNK:
            pieces.append(line)
            line = ""
        line += encoded
    pieces.append(line)
    if len(pieces) == 1:
        return f";\r\n filename*=utf-8''{pieces[0]}"
    pieces[0] = f"utf-8''{pieces[0]}"
    return "".join(f";\r\n filename*{index}*={piece}" for index, piece in enumerate(pieces))


def _stands_as_it_is(text: str) -> bool:
    """Whether it is printable ASCII that looks like no encoded-word and neither begins nor ends in a space."""
    return text.isascii() and text.isprintable() and text.strip() == text != "" and "=?" not in text


def _is_atoms(name: str) -> bool:
    """Whether it is words of RFC 5322 section 3.2.3 with one space between them, and looks like no encoded-word."""
    return _ATOMS.fullmatch(name) is not None and "=?" not in name


def _phrase(header: str, name: str) -> str:
    if len(header) + len(name) + 4 <= FOLD_AT:
        if _is_atoms(name):
            return name
        if _stands_as_it_is(name):
            escaped = name.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
    return encoded_words(name, used=len(header) + 2)


def _folded(name: str, value: str) -> str:
    """Fold before spaces, which come back as they were: unfolding takes away the CRLF only."""
    lines: list[str] = []
    line = f"{name}:"
    for piece in _SPACES_THEN_WORD.findall(f" {value}"):
        if len(line) + len(piece) > FOLD_AT and not line.endswith(":"):
            lines.append(line)
            line = piece
        else:
            line += piece
    return "\r\n".join([*lines, line])
