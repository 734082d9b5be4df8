"""Wake-ups: "profile P has work of rank R", sent once however many have cause to send it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.errors import MessageBrokerError
from tocsin_schema.ledger import wakeups
from tocsin_schema.message_broker import wake
from tocsin_schema.message_broker.topology import RANKS, TOKEN_QUEUE, send_queue

if TYPE_CHECKING:
    from uuid import UUID

    from dramatiq import Broker

    from tocsin_schema.ledger.connection import Pool

_log = structlog.get_logger(__name__)

HOLD_OFF_SECONDS = 5.0


class Waker:
    """Sends wake-ups over the message broker. None of them matters: what one means stands in the ledger."""

    def __init__(self, broker: Broker, pool: Pool) -> None:
        self._broker = broker
        self._pool = pool
        self._silent_until = float("-inf")
        # One thread, so one connection: dramatiq keeps one a thread.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wake-ups")

    async def wake_sender(self, profile_id: UUID, rank: int) -> None:
        """Wake a sender, unless enough wake-ups for this profile and rank are under way already."""
        if self._holds_off():
            return
        async with self._pool.connection() as connection:
            wanted = await wakeups.note_wakeup(connection, profile_id, rank)
        if wanted:
            await self._enqueue(send_queue(RANKS[rank]), profile_id=str(profile_id))

    async def ask_for_token(self, oauth_profile_id: UUID, subject: str) -> None:
        """Ask the token broker for a token; the answer is a row in the ledger."""
        if self._holds_off():
            return
        await self._enqueue(TOKEN_QUEUE, oauth_profile_id=str(oauth_profile_id), subject=subject)

    def close(self) -> None:
        """Wait for what is being sent and end the thread."""
        self._thread.shutdown(wait=True)

    async def _enqueue(self, queue: str, **hint: str) -> None:
        try:
            # It waits for the message broker's confirm, and would hold up the event loop.
            await asyncio.get_running_loop().run_in_executor(self._thread, partial(wake, self._broker, queue, **hint))
        except MessageBrokerError as error:
            self._silent_until = monotonic() + HOLD_OFF_SECONDS
            _log.warning("wake-up not sent; the sweeper will send it", queue=queue, error=error.problem)

    def _holds_off(self) -> bool:
        """Whether the message broker was away a moment ago: nobody shall wait for it again and again."""
        return monotonic() < self._silent_until
