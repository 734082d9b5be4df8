"""The envelope of one transaction, and the commands that it becomes on a given server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tocsin_schema.errors import AddressError

if TYPE_CHECKING:
    from tocsin_workers.smtp.capabilities import Capabilities

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


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends to whom.

    `mail_from` is the return path; the empty text is the null path of RFC 5321 section 4.5.5. `size` is that
    of the message in octets, if known. `smtputf8` says that the *message* needs RFC 6531 (raw UTF-8 in a
    header); addresses that need it are seen by themselves. `eight_bit` says that the message has octets over
    127.

    Raises `AddressError` for an address that could not stand between angle brackets.
    """

    mail_from: str
    recipients: tuple[str, ...]
    size: int | None = None
    smtputf8: bool = False
    eight_bit: bool = False

    def __post_init__(self) -> None:
        if self.mail_from:
            _check(self.mail_from)
        if not self.recipients:
            raise AddressError("A message has no recipient.")
        for recipient in self.recipients:
            _check(recipient)


@dataclass(frozen=True, slots=True)
class Commands:
    """The commands of one envelope: MAIL, and for each recipient RCPT or why it cannot be asked for.

    At least one recipient can be asked for.
    """

    mail: bytes
    recipients: tuple[bytes | LocalRefusal, ...]


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
    recipients = tuple(_rcpt(recipient, offered) for recipient in envelope.recipients)
    if all(isinstance(recipient, LocalRefusal) for recipient in recipients):
        return _NOT_ASCII
    international = international or not all(map(str.isascii, envelope.recipients))
    return Commands(_mail(envelope, offered, international=international), recipients)


_NOT_ASCII = LocalRefusal(
    LocalReason.SMTPUTF8_NOT_OFFERED, "the address is not ASCII; the server does not offer SMTPUTF8"
)


def _mail(envelope: Envelope, offered: Capabilities, *, international: bool) -> bytes:
    command = f"MAIL FROM:<{envelope.mail_from}>"
    if offered.size and envelope.size is not None:
        command += f" SIZE={envelope.size}"
    if envelope.eight_bit:
        command += " BODY=8BITMIME"
    if international and offered.smtputf8:
        command += " SMTPUTF8"
    return command.encode() + b"\r\n"


def _rcpt(recipient: str, offered: Capabilities) -> bytes | LocalRefusal:
    if not offered.smtputf8 and not recipient.isascii():
        return _NOT_ASCII
    return b"RCPT TO:<%b>\r\n" % recipient.encode()


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
