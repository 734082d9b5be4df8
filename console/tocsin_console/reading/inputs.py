"""Reading what a command is given: secrets, files, `name=value` pairs, limits. Everything is bounded.

A secret never stands among the arguments, where every process of the machine and the shell's history can see it:
it comes from a file, from standard input (`-`), or from a prompt that shows nothing.
Where standard input is a terminal, `-` prompts too: a terminal shows what is typed.
"""

from __future__ import annotations

import getpass
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tocsin_console.output import say
from tocsin_schema.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

STANDARD_INPUT = "-"

MAX_SECRET_OCTETS = 64 * 1024
"""Longer than any password, client secret or private key."""

MAX_TEXT_OCTETS = 4 * 1024 * 1024
"""Octets of a template's body or a CA file."""

MAX_LIMIT = 2_000_000_000
"""The highest number that a limit may be; it fits a Postgres integer."""


def read_secret(source: str | None, what: str, *, flag: str) -> str:
    """Read a secret from a file, from standard input (`-`) or, where no source or a terminal is named, from a prompt.

    One line end after it is not part of it. Raises UsageError, which never holds the secret.
    """
    if source is None or source == STANDARD_INPUT:
        if sys.stdin.isatty():
            return _checked_secret(_typed(what), what)
        if source is None:
            raise UsageError(
                f"There is no terminal to ask for {what[0].lower()}{what[1:]} on.",
                fix=f"Give {flag} FILE, or {flag} - for standard input.",
            )
    text = _decoded(read_octets(source, MAX_SECRET_OCTETS, what), source, what)
    return _checked_secret(text.removesuffix("\n").removesuffix("\r"), what)


def read_text(source: str, what: str) -> str:
    """Read a text file, or standard input for `-`. Raises UsageError."""
    text = _decoded(read_octets(source, MAX_TEXT_OCTETS, what), source, what)
    if "\0" in text:
        raise UsageError(f"{what} in {_called(source)} holds a NUL character.", fix="Give a text file.")
    return text.removeprefix("\ufeff")


def read_ca_file(source: str) -> str:
    """Read the certificates of the authorities to trust, as PEM. Raises UsageError where there is none in it."""
    text = read_text(source, "the CA file")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=text)
        found = context.cert_store_stats()["x509"]
    except (ssl.SSLError, ValueError):
        found = 0
    if not found:
        raise UsageError(
            f"There is no certificate in {_called(source)}.",
            fix="Give a file in PEM form, with lines `-----BEGIN CERTIFICATE-----`.",
        )
    if "PRIVATE KEY" in text:
        raise UsageError(
            f"{_called(source)} holds a private key.", fix="Give the certificate only; the key stays where it is."
        )
    return text


def read_pairs(pairs: Iterable[str], flag: str) -> dict[str, str]:
    """Read `name=value` pairs. Raises UsageError for one without a name or `=`, or a name that comes twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                f"{flag} {pair[:60]!r} is not name=value.", fix=f"Write for instance {flag} incident=4711."
            )
        if name.strip() in found:
            raise UsageError(f"{flag} gives {name.strip()[:60]!r} twice.", fix="Give each name once.")
        found[name.strip()] = value
    return found


def read_limit(text: str, flag: str) -> int | None:
    """Read a limit: a number from 1, or `none` for no limit, which gives None. Raises UsageError."""
    if text.strip().lower() == "none":
        return None
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_LIMIT)) and 1 <= int(digits) <= MAX_LIMIT:
        return int(digits)
    raise UsageError(
        f"{flag} cannot be {text[:40]!r}.", fix=f"Give a whole number from 1 to {MAX_LIMIT}, or none for no limit."
    )


def read_octets(source: str, longest: int, what: str) -> bytes:
    """Read at most `longest` octets from a file, or from standard input for `-`. Raises UsageError."""
    try:
        if source == STANDARD_INPUT:
            content = sys.stdin.buffer.read(longest + 1)
        else:
            with Path(source).open("rb") as file:
                content = file.read(longest + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "that is no file name"
        raise UsageError(
            f"{what} cannot be read from {_called(source)}: {reason}.", fix="Check the name and the permissions."
        ) from None
    if len(content) > longest:
        raise UsageError(f"{what} in {_called(source)} is longer than {longest:,} bytes.", fix="Is it the right file?")
    return content


def _typed(what: str) -> str:
    try:
        return getpass.getpass(f"{what} (not shown): ")
    except KeyboardInterrupt:
        say("\nStopped. Nothing was changed.")
        raise
    except EOFError:
        say("")
        return ""


def _decoded(content: bytes, source: str, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{what} in {_called(source)} is not UTF-8 (at byte {error.start}).", fix="Save the file as UTF-8."
        ) from None


def _checked_secret(secret: str, what: str) -> str:
    if not secret:
        raise UsageError(f"{what} is empty.", fix="Nothing was changed; try again.")
    if "\0" in secret or "\n" in secret or "\r" in secret:
        raise UsageError(f"{what} is more than one line.", fix="Give the secret alone, on one line.")
    return secret


def _called(source: str) -> str:
    return "standard input" if source == STANDARD_INPUT else source
