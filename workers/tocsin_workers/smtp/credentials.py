"""Credentials, and what they look like in each SASL mechanism. Secrets never show in a repr."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field

from tocsin_workers.smtp.replies import bounded, harmless

_MASK = "********"
MAX_CHALLENGE = 12288
"""Octets of a base64 challenge or response (RFC 4954 section 4)."""


@dataclass(frozen=True, slots=True)
class OAuthCredentials:
    """An access token for the mailbox `user`."""

    user: str
    access_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BasicCredentials:
    """A user name and a password."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """The server is to take our mail without AUTH."""


Credentials = OAuthCredentials | BasicCredentials | NoCredentials


def xoauth2(credentials: OAuthCredentials) -> bytes:
    """Give the XOAUTH2 response in base64 (Google's and Microsoft's mechanism)."""
    return b64encode(f"user={credentials.user}\x01auth=Bearer {credentials.access_token}\x01\x01".encode())


def oauthbearer(credentials: OAuthCredentials, *, host: str, port: int) -> bytes:
    """Give the OAUTHBEARER response in base64 (RFC 7628 section 3.1; the name as in RFC 5801 section 4)."""
    name = credentials.user.replace("=", "=3D").replace(",", "=2C")
    bearer = f"auth=Bearer {credentials.access_token}"
    return b64encode(f"n,a={name},\x01host={host}\x01port={port}\x01{bearer}\x01\x01".encode())


def plain(credentials: BasicCredentials) -> bytes:
    """Give the PLAIN response in base64 (RFC 4616)."""
    return b64encode(f"\0{credentials.user}\0{credentials.password}".encode())


def login(text: str) -> bytes:
    """Give one step of LOGIN in base64: the user name, then the password."""
    return b64encode(text.encode())


def decoded_challenge(text: str) -> str | None:
    """Give the text of a base64 challenge, harmless and bounded, or None where it is none.

    After a refused token it holds JSON that says why (RFC 7628 section 3.2.2).
    """
    if not text or len(text) > MAX_CHALLENGE:
        return None
    try:
        return bounded(harmless(b64decode(text, validate=True).decode("utf-8", "replace"))).strip() or None
    except (Base64Error, ValueError):
        return None


def secrets_of(credentials: Credentials) -> tuple[str, ...]:
    """Give every text that must never show: a server may echo what it did not understand."""
    match credentials:
        case OAuthCredentials(access_token=token):
            return (token, xoauth2(credentials).decode())
        case BasicCredentials(password=password):
            return (password, login(password).decode(), plain(credentials).decode())
        case NoCredentials():
            return ()


_LONG_WORD = re.compile(r"[A-Za-z0-9+/=_.~-]{12,}")


def without_secrets(text: str, secrets: tuple[str, ...]) -> str:
    """Give the text with every secret in it replaced, and every long word that is a piece of one."""
    for secret in secrets:
        # Of a very short password any text is full: then rather the whole text goes.
        if secret and secret in text:
            text = text.replace(secret, _MASK)

    def masked(word: re.Match[str]) -> str:
        piece = word[0].rstrip(".")
        return _MASK if any(piece in secret for secret in secrets) else word[0]

    return _LONG_WORD.sub(masked, text)
