"""A check's share of the mailbox's budget: it takes a connection, a time slot and a recipient as a sender does."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from tocsin_schema.ledger import mailboxes, worker_leases
from tocsin_workers.diagnosis.causes import Cause, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.mailboxes import TimeSlots
    from tocsin_schema.ledger.sending import SenderProfile

#: How long to wait for a connection or a time slot that workers have.
PATIENCE_SECONDS = 15.0
#: Longer than any check: nobody beats for it. A check that is killed holds its connection for so long.
LEASE_SECONDS = 300.0
#: How far ahead a time slot may lie; the session waits for it idle.
HORIZON_SECONDS = 5.0

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
                f"Workers use all of the mailbox's {profile.messages_per_minute} messages a minute.",
                "Try again when less is being sent.",
            )
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    await asyncio.sleep(max(0.0, slots.first_in_seconds))
    return None


async def count_recipient(pool: Pool, profile: SenderProfile) -> Verdict | None:
    """Count one recipient against the mailbox's 24 hours; why not, where they are used up."""
    if profile.recipients_per_day is None:
        return None
    async with pool.connection() as connection:
        room = await mailboxes.count_recipients(connection, profile.mailbox_id, [1])
    if room is None or room.messages == 1:
        return None
    return Verdict(
        Cause.QUOTA_USED_UP,
        f"The mailbox's {profile.recipients_per_day:,} recipients of 24 hours are used up.",
        f"Try again in {room.frees_in_seconds / 60:.0f} min.",
    )


async def give_back_recipient(pool: Pool, profile: SenderProfile) -> None:
    """Take back a recipient that was counted and not tried after all."""
    if profile.recipients_per_day is None:
        return
    async with pool.connection() as connection:
        await mailboxes.give_back_recipients(connection, profile.mailbox_id, 1)


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
