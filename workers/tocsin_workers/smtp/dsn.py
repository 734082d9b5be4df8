"""What is asked of delivery status notifications, as parameters of MAIL and RCPT (RFC 3461)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tocsin_schema.errors import Scope, UsageError

MAX_ENVELOPE_ID: Final = 100
"""Characters of an envelope id (RFC 3461 section 4.4)."""
MAX_ORIGINAL_RECIPIENT: Final = 500
"""Characters of an ORCPT value (RFC 3461 section 4.2)."""

_NOT_XCHAR: Final = re.compile(r"[^!-~]|[+=]")
# RFC 6533 section 3: what QCHAR leaves out.
_NOT_QCHAR: Final = re.compile(r"[^!-~]|[+=\\]")


class Returned(StrEnum):
    """How much of a message a notification of failure brings back (RFC 3461 section 4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(StrEnum):
    """Of what the sender wants to hear (RFC 3461 section 4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class DsnRequest:
    """What is asked for; whatever is left out is left to the server.

    `envelope_id` comes back in every notification. `notify` is for all recipients. `names_original` has each one's
    address told as the original one, which forwarding on the way does not change.

    Raises `UsageError` for an id that is not 1 to 100 printable ASCII characters, and for NEVER with anything else.
    """

    returned: Returned | None = None
    envelope_id: str | None = None
    notify: frozenset[Notify] = frozenset()
    names_original: bool = False

    def __post_init__(self) -> None:
        identifier = self.envelope_id
        if identifier is not None:
            is_sound = identifier.isascii() and identifier.isprintable() and 0 < len(identifier) <= MAX_ENVELOPE_ID
            if not is_sound:
                raise UsageError(
                    f"An envelope id has 1 to {MAX_ENVELOPE_ID} printable ASCII characters.", scope=Scope.MESSAGE
                )
        if Notify.NEVER in self.notify and len(self.notify) > 1:
            raise UsageError("NOTIFY=NEVER cannot be asked for with anything else.", scope=Scope.MESSAGE)

    @property
    def for_mail(self) -> str:
        """The parameters of MAIL, each after a space."""
        returned = "" if self.returned is None else f" RET={self.returned}"
        identifier = "" if self.envelope_id is None else f" ENVID={xtext(self.envelope_id)}"
        return returned + identifier

    def for_rcpt(self, address: str) -> str:
        """Give the parameters of RCPT for this address, each after a space."""
        notify = f" NOTIFY={','.join(one for one in Notify if one in self.notify)}" if self.notify else ""
        if not self.names_original:
            return notify
        original = original_recipient(address)
        return notify if len(original) > MAX_ORIGINAL_RECIPIENT else f"{notify} ORCPT={original}"


def xtext(text: str) -> str:
    """Give ASCII text as xtext (RFC 3461 section 4): what is no plain character as `+` and two digits."""
    return _NOT_XCHAR.sub(lambda found: f"+{ord(found[0]):02X}", text)


def original_recipient(address: str) -> str:
    """Give the value of ORCPT: of the type `rfc822`, or `utf-8` where it needs that, in ASCII (RFC 6533 section 3)."""
    if address.isascii():
        return f"rfc822;{xtext(address)}"
    return "utf-8;" + _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", address)
