"""A check's share of the mailbox's budget: it takes a connection, a time slot and a recipient as a sender does."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from tocsin_schema.ledger import daily_recipients, mailboxes, worker_leases
from tocsin_schema.ledger.daily_recipients import MessageSize
from tocsin_schema.ledger.estimates import read_mailboxes
from tocsin_schema.ledger.mailboxes import HORIZON_SECONDS
from tocsin_workers.diagnosis.causes import Cause, Verdict
from tocsin_workers.sender.reserving import described, is_counted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.mailbox_walk import Limit
    from tocsin_schema.ledger.mailboxes import TimeSlots
    from tocsin_schema.ledger.sending import SenderProfile

#: How long to wait for a connection or a time slot that workers have.
PATIENCE_SECONDS = 15.0
#: Longer than any check: nobody beats for it. A check that is killed holds its connection for so long.
LEASE_SECONDS = 300.0
#: A person waits for it, so it may use what is kept for urgent jobs. To be safe it counts as external.
_ONE = MessageSize(recipients=1, external=1)

_LOOK_EVERY_SECONDS = 0.5


@asynccontextmanager
async def one_connection(pool: Pool, profile: SenderProfile, *, patience_seconds: float) -> AsyncGenerator[bool]:
    """Hold one of the mailbox's connections for a while; False where workers have all of them.

    A rotation of the master keys does not wait for such a worker (`master_keys.list_live_workers`).
    """
    if profile.connections is None:
        yield True
        return
    worker_id = uuid4()
    async with pool.connection() as connection:
        await worker_leases.register_worker(
            connection,
            worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            role="check",
            lease_seconds=LEASE_SECONDS,
        )
    try:
        yield await _take(pool, profile.mailbox_id, worker_id, patience_seconds)
    finally:
        async with pool.connection() as connection:
            await worker_leases.retire_worker(connection, worker_id)


async def wait_for_time_slot(pool: Pool, profile: SenderProfile, *, patience_seconds: float) -> Verdict | None:
    """Wait until one message may be sent; why not, where the mailbox's minutes are all taken."""
    if profile.messages_per_minute is None:
        return None
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + patience_seconds
    while (slots := await _reserve_time(pool, profile)) is None:
        if clock() >= give_up_at:
            return Verdict(
                Cause.NO_TIME_SLOT,
                f"Workers use all of the mailbox's {profile.messages_per_minute:g} messages a minute.",
                "Try again when less is being sent.",
            )
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    await asyncio.sleep(max(0.0, slots.first_in_seconds))
    return None


async def count_recipient(pool: Pool, profile: SenderProfile) -> Verdict | None:
    """Count one recipient against the 24 hours of the mailbox and its tenant; why not, where they are used up."""
    if not is_counted(profile):
        return None
    async with pool.connection() as connection:
        room = await daily_recipients.count_recipients(connection, profile.mailbox_id, [_ONE], is_urgent=True)
    if room.shortage is None:
        return None
    used_up = described(room.shortage)
    return Verdict(
        Cause.QUOTA_USED_UP,
        f"{used_up[0].upper()}{used_up[1:]}.",
        f"Try again in {room.shortage.frees_in_seconds / 60:.0f} min.",
    )


async def read_full_day(pool: Pool, profile: SenderProfile) -> Limit | None:
    """Say which day's limit leaves no room for a message of this profile, an urgent one too; None where none does."""
    if not is_counted(profile):
        return None
    async with pool.connection() as connection:
        [mailbox] = await read_mailboxes(connection, profile_id=profile.id)
    left = mailbox.left_of_the_day(is_urgent=True)
    largest = min(profile.batch_size, mailbox.most_in_a_message or profile.batch_size)
    return left[0] if left is not None and left[1] < largest else None


async def give_back_recipient(pool: Pool, profile: SenderProfile) -> None:
    """Take back a recipient that was counted and not tried after all."""
    if not is_counted(profile):
        return
    async with pool.connection() as connection:
        await daily_recipients.give_back_recipients(
            connection,
            profile.mailbox_id if profile.recipients_per_day is not None else None,
            _ONE,
            tenant_id=profile.tenant_id if profile.tenant_per_day is not None else None,
            is_urgent=True,
        )


async def _take(pool: Pool, mailbox_id: int, worker_id: UUID, patience_seconds: float) -> bool:
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + patience_seconds
    while True:
        async with pool.connection() as connection:
            if await mailboxes.take_connection(connection, mailbox_id, worker_id) is not None:
                return True
        if clock() >= give_up_at:
            return False
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _reserve_time(pool: Pool, profile: SenderProfile) -> TimeSlots | None:
    async with pool.connection() as connection:
        return await mailboxes.reserve_messages(connection, profile.mailbox_id, 1, horizon_seconds=HORIZON_SECONDS)
