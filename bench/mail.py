"""The mail that every contestant sends: the same recipients, and the same 3 KB message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SENDER: Final = "library@campus.example"
#: Recipients of one message in shared mode.
BATCH_SIZE: Final = 50

_PARAGRAPH: Final = (
    "the items below are due soon. Please bring them back, or renew them on the\n"
    "library's page, before they are asked for by somebody else.\n\n"
)
_ITEM: Final = "  - Shelf {number:03d}: A handbook of the care and repair of old bindings\n"
_BODY: Final = _PARAGRAPH + "".join(_ITEM.format(number=number) for number in range(36)) + "\nYour library\n"

SHARED_SUBJECT: Final = "Your loans are due"
SHARED_TEXT: Final = f"Dear readers,\n\n{_BODY}"


class Mode(StrEnum):
    """A message to each recipient with the recipient's name in it, or one to fifty recipients."""

    INDIVIDUAL = "individual"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent in one turn. No address occurs in two turns of one `tag`."""

    mode: Mode
    recipients: int
    tag: str = "reader"

    @property
    def messages(self) -> int:
        return self.recipients if self.mode is Mode.INDIVIDUAL else -(-self.recipients // BATCH_SIZE)

    def addresses(self) -> Iterator[str]:
        return (f"{self.tag}-{number}@campus.example" for number in range(self.recipients))

    def names(self) -> Iterator[str]:
        return (f"Robin Reader {number}" for number in range(self.recipients))


def individual_subject(name: str) -> str:
    """Give the subject for one recipient, or with a tag in the name's place the template."""
    return f"Loans of {name} are due"


def individual_text(name: str) -> str:
    """Give the text for one recipient, or with a tag in the name's place the template."""
    return f"Dear {name},\n\n{_BODY}"
