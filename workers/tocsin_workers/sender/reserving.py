"""Reserving what a mailbox allows, before anything is marked or sent. Where there is no limit nothing is asked."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from tocsin_schema.ledger import daily_recipients, mailboxes
from tocsin_schema.ledger.connection import AWAY
from tocsin_schema.ledger.daily_recipients import MessageSize, Whose
from tocsin_schema.ledger.internal_domains import is_internal
from tocsin_schema.ledger.mailboxes import HORIZON_SECONDS, TimeSlots

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.daily_recipients import Shortage
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.preparing import PreparedMessage

#: Jobs of this rank may use all of a day's recipients.
URGENT_RANK = 0
NORMAL_RANK = 1
#: How long after its time slot a message may begin, so that no 60 s window overflows: slots are spaced for that.
LATEST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The mailbox has no room for these messages now."""


@dataclass(frozen=True, slots=True)
class ReservedSlots(TimeSlots):
    """Time slots on this process's monotonic clock. The ledger made them after `asked_at` and before `answered_at`."""

    asked_at: float
    answered_at: float

    def due_at(self, place: int) -> float:
        """Give when the message at a place may begin: never before its slot, however long the answer took."""
        return self.answered_at + self.first_in_seconds + place * self.spacing_seconds

    def is_lapsed(self, place: int, now: float) -> bool:
        """Whether it is too late for the message at a place to begin: another slot has to be reserved for it."""
        return now > self.asked_at + self.first_in_seconds + place * self.spacing_seconds + LATEST_SECONDS


async def reserve_time(desk: SenderDesk, profile: SenderProfile, messages: int) -> ReservedSlots | NoRoom | None:
    """Reserve time slots where a minute is limited; None where it is not."""
    if profile.messages_per_minute is None:
        return None
    async with desk.pool.connection() as connection:
        asked_at = monotonic()
        slots = await mailboxes.reserve_messages(
            connection, profile.mailbox_id, messages, horizon_seconds=HORIZON_SECONDS
        )
    if slots is None:
        return NoRoom()
    return ReservedSlots(slots.first_in_seconds, slots.spacing_seconds, asked_at, monotonic())


async def reserve_recipients(
    desk: SenderDesk, profile: SenderProfile, messages: list[PreparedMessage], *, rank: int = NORMAL_RANK
) -> list[PreparedMessage]:
    """Count messages against the 24 hours of the mailbox and its tenant, and give those that fit.

    If not all do, what is left is kept for urgent jobs, or the mailbox rests, until there is room again.
    """
    if not is_counted(profile) or not messages:
        return messages
    async with desk.pool.connection() as connection:
        room = await daily_recipients.count_recipients(
            connection,
            profile.mailbox_id,
            [size_of(desk, profile, [message]) for message in messages],
            is_urgent=rank == URGENT_RANK,
        )
        if room.shortage is not None:
            await rest(connection, profile, room.shortage, is_urgent=rank == URGENT_RANK)
    return messages[: room.messages]


async def give_back_recipients(
    desk: SenderDesk, profile: SenderProfile, untried: Sequence[PreparedMessage], *, rank: int = NORMAL_RANK
) -> None:
    """Count those of the 24 hours no more who were not tried after all."""
    if not is_counted(profile) or not untried:
        return
    with suppress(*AWAY):
        async with desk.pool.connection() as connection:
            await daily_recipients.give_back_recipients(
                connection,
                profile.mailbox_id if profile.recipients_per_day is not None else None,
                size_of(desk, profile, untried),
                tenant_id=profile.tenant_id if profile.tenant_per_day is not None else None,
                is_urgent=rank == URGENT_RANK,
            )


def is_limited(profile: SenderProfile) -> bool:
    """Whether anything is reserved for its messages."""
    return profile.messages_per_minute is not None or is_counted(profile)


def is_counted(profile: SenderProfile) -> bool:
    """Whether its recipients are limited in 24 hours, those of the mailbox or of the tenant."""
    return profile.recipients_per_day is not None or profile.tenant_per_day is not None


def size_of(desk: SenderDesk, profile: SenderProfile, messages: Iterable[PreparedMessage]) -> MessageSize:
    """Count the recipients of messages, and those outside of the tenant's own domains where there is a tenant."""
    addresses = [one.recipient.address for message in messages for one in message.recipients]
    if profile.tenant_per_day is None:
        return MessageSize(len(addresses), 0)
    return MessageSize(len(addresses), sum(not is_internal(address, desk.internal_domains) for address in addresses))


async def rest(connection: Connection, profile: SenderProfile, shortage: Shortage, *, is_urgent: bool) -> None:
    """Let who lacks room rest until there is some; where urgent jobs still have room, only for the others."""
    used_up = described(shortage)
    kept = f"{used_up} but for those that are kept for urgent jobs"
    resting = shortage.frees_in_seconds if is_urgent else shortage.any_in_seconds
    match shortage.whose:
        case Whose.MAILBOX:
            mailbox = profile.mailbox_id
            if not is_urgent:
                await mailboxes.keep_mailbox_for_urgent(
                    connection, mailbox, seconds=shortage.frees_in_seconds, reason=kept
                )
            if resting > 0:
                await mailboxes.park_mailbox(connection, mailbox, seconds=resting, reason=used_up)
        case Whose.TENANT:
            tenant = shortage.tenant_id
            assert tenant is not None
            if not is_urgent:
                await mailboxes.keep_tenant_for_urgent(
                    connection, tenant, seconds=shortage.frees_in_seconds, reason=kept
                )
            if resting > 0:
                await mailboxes.park_tenant(connection, tenant, seconds=resting, reason=used_up)


def described(shortage: Shortage) -> str:
    """Say for a person whose 24 hours are used up, or have too little room for the next message."""
    recipients = "recipient" if shortage.limit == 1 else "recipients"
    whom = f"{shortage.limit:,} {recipients} of 24 hours"
    if shortage.whose is Whose.TENANT:
        whom = f"{shortage.limit:,} external {recipients} of 24 hours of tenant {shortage.tenant}"
    whose = "the" if shortage.whose is Whose.TENANT else "its"
    if shortage.left:
        left = f"{shortage.left:,} of {whose} {whom} {'is' if shortage.left == 1 else 'are'} left"
        return f"the next message has {shortage.wanted:,} recipients, and {left}"
    return f"{whose} {whom} {'is' if shortage.limit == 1 else 'are'} used up"
