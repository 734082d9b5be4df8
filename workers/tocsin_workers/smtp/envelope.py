"""The envelope of one transaction, and the commands that it becomes on a given server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct

from tocsin_schema.errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tocsin_workers.smtp.capabilities import Capabilities
    from tocsin_workers.smtp.dsn import DsnRequest

MAX_PATH = 254
"""Octets of an address (RFC 5321 section 4.5.3.1.3: a path of 256 with its angle brackets)."""

# What would end the path or the command. Spaces too: a quoted local part with one is legal, but servers and
# their logs read it in more ways than one.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f<>]")


class LocalReason(StrEnum):
    """Why we do not even ask the server."""

    SMTPUTF8_NOT_OFFERED = "smtputf8_not_offered"
    EIGHT_BIT_NOT_OFFERED = "eight_bit_not_offered"
    TOO_BIG = "too_big"


@dataclass(frozen=True, slots=True)
class LocalRefusal:
    """Something that this server cannot be asked, found before a word is sent. Permanent for this server."""

    reason: LocalReason
    text: str


class Envelope(Struct, frozen=True, gc=False):
    """Who sends to whom.

    `mail_from` is the return path; the empty text is the null path of RFC 5321 section 4.5.5. `size` is that
    of the message in octets, if known. `smtputf8` says that the *message* needs RFC 6531 (raw UTF-8 in a
    header); addresses that need it are seen by themselves. `eight_bit` says that the message has octets over
    127. `dsn` is asked of servers that offer it.

    Raises `AddressError` for an address that could not stand between angle brackets.
    """

    mail_from: str
    recipients: tuple[str, ...]
    size: int | None = None
    smtputf8: bool = False
    eight_bit: bool = False
    dsn: DsnRequest | None = None

    def __post_init__(self) -> None:
        if not self.recipients:
            raise AddressError("A message has no recipient.")
        if not _are_plain(self.mail_from, self.recipients):
            if self.mail_from:
                _check(self.mail_from)
            for recipient in self.recipients:
                _check(recipient)


class Commands:
    """The commands of one envelope, of which at least one recipient can be asked for.

    `count` is how many recipients it has. `refused` has those that cannot be asked for, by their place in the
    envelope; `asked` are the places of the others.
    """

    __slots__ = ("_dsn", "_recipients", "asked", "count", "mail", "refused")

    def __init__(
        self, mail: bytes, recipients: tuple[str, ...], refused: Mapping[int, LocalRefusal], dsn: DsnRequest | None
    ) -> None:
        self.mail = mail
        self.count = len(recipients)
        self.refused = refused
        self.asked: Sequence[int] = range(self.count)
        if refused:
            self.asked = [place for place in self.asked if place not in refused]
        self._recipients = recipients
        self._dsn = dsn

    def rcpt(self, place: int) -> bytes:
        """Give RCPT for the recipient in this place."""
        recipient = self._recipients[place]
        parameters = "" if self._dsn is None else self._dsn.for_rcpt(recipient)
        return f"RCPT TO:<{recipient}>{parameters}\r\n".encode()

    def flight(self) -> bytes:
        """Give MAIL, RCPT for everybody who is asked for, and DATA."""
        if self.refused or self._dsn is not None:
            return b"".join((self.mail, *map(self.rcpt, self.asked), b"DATA\r\n"))
        recipients = ">\r\nRCPT TO:<".join(self._recipients)
        return self.mail + f"RCPT TO:<{recipients}>\r\nDATA\r\n".encode()


def commands(envelope: Envelope, offered: Capabilities) -> Commands | LocalRefusal:
    """Build the commands with the parameters that the server offers.

    A `LocalRefusal` is for the message as a whole: nothing of it can be sent on this server.
    """
    if envelope.size is not None and offered.size_limit is not None and envelope.size > offered.size_limit:
        return LocalRefusal(
            LocalReason.TOO_BIG,
            f"the message has {envelope.size} octets; the server takes at most {offered.size_limit}",
        )
    if envelope.eight_bit and not offered.eight_bit_mime:
        return LocalRefusal(
            LocalReason.EIGHT_BIT_NOT_OFFERED,
            "the message has 8-bit text; the server does not offer 8BITMIME",
        )
    international = envelope.smtputf8 or not envelope.mail_from.isascii()
    if international and not offered.smtputf8:
        return LocalRefusal(
            LocalReason.SMTPUTF8_NOT_OFFERED,
            "the sender or a header is not ASCII; the server does not offer SMTPUTF8",
        )
    refused: Mapping[int, LocalRefusal] = _NOBODY
    if not "".join(envelope.recipients).isascii():
        international = True
        if not offered.smtputf8:
            refused = {place: _NOT_ASCII for place, one in enumerate(envelope.recipients) if not one.isascii()}
            if len(refused) == len(envelope.recipients):
                return _NOT_ASCII
    dsn = envelope.dsn if offered.dsn else None
    mail = _mail(envelope, offered, dsn, international=international and offered.smtputf8)
    return Commands(mail, envelope.recipients, refused, dsn)


_NOBODY: Mapping[int, LocalRefusal] = MappingProxyType({})
_NOT_ASCII = LocalRefusal(
    LocalReason.SMTPUTF8_NOT_OFFERED, "the address is not ASCII; the server does not offer SMTPUTF8"
)


def _mail(envelope: Envelope, offered: Capabilities, dsn: DsnRequest | None, *, international: bool) -> bytes:
    command = f"MAIL FROM:<{envelope.mail_from}>"
    if offered.size and envelope.size is not None:
        command += f" SIZE={envelope.size}"
    if envelope.eight_bit:
        command += " BODY=8BITMIME"
    if international:
        command += " SMTPUTF8"
    if dsn is not None:
        command += dsn.for_mail
    return (command + "\r\n").encode()


def _are_plain(mail_from: str, recipients: tuple[str, ...]) -> bool:
    """Whether all are surely sound, seen at one glance; mostly they are."""
    together = mail_from + "".join(recipients)
    return (
        together.isascii()
        and together.isprintable()
        and " " not in together
        and "<" not in together
        and ">" not in together
        and "" not in recipients
        and len(max(recipients, key=len)) <= MAX_PATH
        and len(mail_from) <= MAX_PATH
    )


def _check(address: str) -> None:
    if _FORBIDDEN.search(address) is not None or not address:
        raise AddressError(f"{address!r} is not one mail address: it holds a space, control or angle bracket.")
    if address.isascii():
        length = len(address)
    else:
        try:
            length = len(address.encode())
        except UnicodeEncodeError:
            raise AddressError(f"{address!r} is not one mail address: it is not valid Unicode.") from None
    if length > MAX_PATH:
        raise AddressError(f"{address[:60]!r}… is not a mail address: it has more than {MAX_PATH} octets.")
