"""What the mail server did, one event a line: written before anybody is told of it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from pathlib import Path


class MailPhase(StrEnum):
    """What a client waits for; the ledger has the same words."""

    GREETING = "greeting"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "final"


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """A message was taken, and is there for good."""

    recipients: tuple[str, ...]
    """Envelope recipients that had been taken."""
    message_id: str
    sha256: str
    """Of the message before dot-stuffing, with the CR LF of its last line; in hex."""
    at: float
    """Seconds since 1970."""
    answered: bool
    """Whether its reply was meant to be sent; it may still have been lost."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A 4yz or 5yz was given."""

    phase: MailPhase
    code: int
    enhanced_code: str
    text: str
    """The reply's text after its enhanced code."""
    recipients: tuple[str, ...]
    """Whom it concerns, as far as they had been named."""


class Dropped(msgspec.Struct, frozen=True, tag=True):
    """A connection was broken off in the middle of a message that was not taken."""

    recipients: tuple[str, ...]


MailEvent: TypeAlias = Accepted | Refused | Dropped

_DECODER = msgspec.json.Decoder(MailEvent)


class MailEvents:
    """Reads the file as it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = 0

    def read_new(self) -> list[MailEvent]:
        """Give what was added since the last call; a line that is just being written is left for the next."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as opened:
            opened.seek(self._position)
            content = opened.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        return [_DECODER.decode(line) for line in whole.splitlines()]
