"""Reserving what a mailbox allows, before anything is marked or sent. Where there is no limit nothing is asked."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.ledger import mailboxes
from tocsin_schema.ledger.connection import AWAY

if TYPE_CHECKING:
    from tocsin_schema.ledger.mailboxes import TimeSlots
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.preparing import PreparedMessage

#: How far ahead a time slot may lie for a slice to wait for it.
HORIZON_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The mailbox has no room for these messages now."""


async def reserve_time(desk: SenderDesk, profile: SenderProfile, messages: int) -> TimeSlots | NoRoom | None:
    """Reserve time slots where a minute is limited; None where it is not."""
    if profile.messages_per_minute is None:
        return None
    async with desk.pool.connection() as connection:
        slots = await mailboxes.reserve_messages(
            connection, profile.mailbox_id, messages, horizon_seconds=HORIZON_SECONDS
        )
    return NoRoom() if slots is None else slots


async def reserve_recipients(
    desk: SenderDesk, profile: SenderProfile, messages: list[PreparedMessage]
) -> list[PreparedMessage]:
    """Count messages against the mailbox's 24 hours; give those that fit, and let the mailbox rest if not all do."""
    if profile.recipients_per_day is None or not messages:
        return messages
    async with desk.pool.connection() as connection:
        room = await mailboxes.count_recipients(
            connection, profile.mailbox_id, [len(message.recipients) for message in messages]
        )
        if room is None or room.messages == len(messages):
            return messages
        reason = f"its {profile.recipients_per_day:,} recipients of 24 hours are used up"
        await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=room.frees_in_seconds, reason=reason)
    return messages[: room.messages]


async def give_back_recipients(desk: SenderDesk, profile: SenderProfile, untried: list[PreparedMessage]) -> None:
    """Count those of the mailbox's 24 hours no more who were not tried after all."""
    if profile.recipients_per_day is None or not untried:
        return
    with suppress(*AWAY):
        async with desk.pool.connection() as connection:
            recipients = sum(len(message.recipients) for message in untried)
            await mailboxes.give_back_recipients(connection, profile.mailbox_id, recipients)
