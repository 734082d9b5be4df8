"""What became of one recipient: its state, and every try, put together from what the ledger keeps. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a recipient, and the state that they were in after it. `lease_epoch` names the try."""

    at: datetime
    state: str
    phase: str | None
    code: int | None
    enhanced_code: str | None
    reply: str | None
    reason: str | None
    lease_epoch: int = 0


@dataclass(frozen=True, slots=True)
class RecipientReading:
    """What became of one recipient, so far.

    `code`, `enhanced_code` and `reply` are the last that a server said of this recipient. `attempts` counts the
    tries, the running one included. `due_at` is when a deferred one is tried again. `tries` are told oldest first, of
    very many only the newest.
    """

    ordinal: int
    address: str
    name: str | None
    state: str
    code: int | None
    enhanced_code: str | None
    reply: str | None
    attempts: int
    message_id: str | None
    reason: str | None
    due_at: datetime | None
    tries: tuple[Try, ...] = ()


@dataclass(frozen=True, slots=True)
class RecipientRow:
    """A recipient as the view `recipient_states` gives it: without what its email copies say."""

    ordinal: int
    batch_number: int
    address: str
    name: str | None
    state: str
    exception_attempts: int
    due_at: datetime | None
    code: int | None
    enhanced_code: str | None
    reply: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a server said when it took a message; bit i of `recipients` is recipient `first_ordinal + i`."""

    first_ordinal: int
    recipients: str
    accepted_at: datetime
    code: int
    enhanced_code: str | None
    reply: str
    message_id: str
    lease_epoch: int = 0


def by_ordinal(acceptances: Iterable[Acceptance]) -> Mapping[int, Sequence[Acceptance]]:
    """Say which acceptances are each recipient's, in the order given: whoever got the message twice has two."""
    found: dict[int, list[Acceptance]] = {}
    for acceptance in acceptances:
        position = acceptance.recipients.find("1")
        while position >= 0:
            found.setdefault(acceptance.first_ordinal + position, []).append(acceptance)
            position = acceptance.recipients.find("1", position + 1)
    return found


def reading(row: RecipientRow, accepted: Sequence[Acceptance] = (), tries: Sequence[Try] = ()) -> RecipientReading:
    """Put together what the ledger knows of one recipient.

    One that was sent keeps nothing of the trouble it had before, except in its tries; of several acceptances the last
    is told. Without one a person has settled it as sent, and the reason says who.
    """
    told = _all_tries(accepted, tries)
    if row.state == "sent":
        last = accepted[-1] if accepted else None
        return RecipientReading(
            ordinal=row.ordinal,
            address=row.address,
            name=row.name,
            state=row.state,
            code=last.code if last else None,
            enhanced_code=last.enhanced_code if last else None,
            reply=last.reply if last else None,
            attempts=max(row.exception_attempts + 1, len(told)),
            message_id=last.message_id if last else None,
            reason=None if last else row.reason,
            due_at=None,
            tries=told,
        )
    return RecipientReading(
        ordinal=row.ordinal,
        address=row.address,
        name=row.name,
        state=row.state,
        code=row.code,
        enhanced_code=row.enhanced_code,
        reply=row.reply,
        attempts=max(row.exception_attempts, len(told)) + (1 if row.state == "in_flight" else 0),
        message_id=None,
        reason=row.reason,
        due_at=row.due_at if row.state == "pending" else None,
        tries=told,
    )


def _all_tries(accepted: Sequence[Acceptance], tries: Sequence[Try]) -> tuple[Try, ...]:
    """Give every try, oldest first. One that was in doubt until its acceptance came late is that acceptance."""
    taken = {acceptance.lease_epoch for acceptance in accepted}
    others = [one for one in tries if one.lease_epoch not in taken]
    return tuple(sorted([*others, *map(_accepted_try, accepted)], key=lambda one: one.lease_epoch))


def _accepted_try(accepted: Acceptance) -> Try:
    return Try(
        at=accepted.accepted_at,
        state="sent",
        phase="final",
        code=accepted.code,
        enhanced_code=accepted.enhanced_code,
        reply=accepted.reply,
        reason=None,
        lease_epoch=accepted.lease_epoch,
    )
