"""One part of a job as it travels: the typed form of the JSON object.

The structs say which fields there are, of which type, and what is left out by default. What types cannot say
(lengths, what excludes what) is in `validation`.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  msgspec reads the annotations at run time
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID  # noqa: TC003  msgspec reads the annotations at run time

from msgspec import Meta, Struct

CONTRACT_VERSION = 1
"""The only version of the contract so far."""

MAX_RECIPIENTS = 1_000
"""Recipients in one part."""

MAX_OCTETS = 8 * 1024 * 1024
"""Octets of one part, encoded."""

MAX_PART_NUMBER = 2_000_000
"""The highest part number: its recipients' ordinals still fit a Postgres integer."""


class Priority(StrEnum):
    """How soon a job is worked on; a higher one passes a lower one at every step."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"

    @property
    def rank(self) -> int:
        """0 for urgent, 1 for normal, 2 for bulk: the order in which work is claimed."""
        return _RANKS[self]

    @classmethod
    def of_rank(cls, rank: int) -> Priority:
        """Return the priority with this rank. Raises KeyError for any other number."""
        return _BY_RANK[rank]


_RANKS = {Priority.URGENT: 0, Priority.NORMAL: 1, Priority.BULK: 2}
_BY_RANK = {rank: priority for priority, rank in _RANKS.items()}


class Mode(StrEnum):
    """How a job becomes messages: one for a whole batch, or one for each recipient."""

    SHARED = "shared"
    INDIVIDUAL = "individual"


class OnUnknown(StrEnum):
    """What happens to a recipient whose message was written but never answered for."""

    RESEND = "resend"
    HOLD = "hold"


class Recipient(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry of the list, as sent: the address is not validated yet."""

    address: str
    name: str | None = None
    data: dict[str, Any] = {}
    """Values for the tag `recipient.…`; only in individual mode."""


class PartPosition(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of its job this is, counted from 1, and whether it is the last."""

    number: int
    last: bool


WHOLE_JOB = PartPosition(number=1, last=True)
"""The position of a part that is all there is: what leaving `part` out means."""


class Content(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An inline template: the same tags as in a stored one."""

    subject: str
    text: str | None = None
    html: str | None = None


class Attachment(Struct, frozen=True, forbid_unknown_fields=True):
    """A file that goes with every message of the job; base64 on the wire."""

    filename: str
    content_type: str
    content: bytes


class JobPart(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One part of a job. Every part repeats the job's fields; `recipients` and `attachments` are its own."""

    version: int = CONTRACT_VERSION
    id: UUID | None = None
    source: str | None = None
    key: str | None = None
    event: str | None = None
    correlation_id: str | None = None
    profile: str
    template: str | None = None
    data: dict[str, Any] = {}
    content: Content | None = None
    from_name: str | None = None
    reply_to: str | None = None
    to: str | None = None
    """The visible To of a shared message; left out, the sender's own address stands there."""
    headers: dict[str, str] = {}
    mode: Mode = Mode.SHARED
    priority: Priority = Priority.NORMAL
    send_after: Annotated[datetime, Meta(tz=True)] | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    on_unknown: OnUnknown = OnUnknown.RESEND
    part: PartPosition = WHOLE_JOB
    recipients: tuple[Recipient, ...]
    attachments: tuple[Attachment, ...] = ()
