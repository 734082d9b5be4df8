"""How a worker process stands in the ledger: registered while its code and its keys fit, and by heartbeat alive."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.errors import LedgerError, SealError
from tocsin_schema.ledger import worker_leases
from tocsin_schema.ledger.migrate import check_schema
from tocsin_workers.sender.lease import lease_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.message_broker.topology import Role
    from tocsin_workers.process.master_keys import ProcessKeys
    from tocsin_workers.sender.lease import WorkerLease

_log = structlog.get_logger(__name__)

#: How soon a heartbeat asks again for a ledger that is away, and so how soon all work goes on once it is back.
ASK_AGAIN_SECONDS = 2.0


class Registration:
    """Takes the process's lease and keeps it.

    `in_hand` gives the claims (job, batch number, lease epoch) that the process knows of; `on_loss` is called when it
    was taken for dead. Heartbeats go over the `vital_pool`, where they wait for nobody.
    """

    def __init__(
        self,
        lease: WorkerLease,
        keys: ProcessKeys,
        role: Role,
        *,
        pool: Pool,
        vital_pool: Pool,
        in_hand: Callable[[], Iterable[tuple[int, int, int]]],
        on_loss: Callable[[], Awaitable[None]],
    ) -> None:
        self._lease = lease
        self._keys = keys
        self._role = role
        self._pool = pool
        self._vital_pool = vital_pool
        self._in_hand = in_hand
        self._on_loss = on_loss
        self._in_touch_since = self._last_beat_at = lease_clock()
        """Since when the ledger has confirmed our heartbeats without interruption, up to the last; by `lease_clock`."""
        self._told_why_idle: str | None = None

    async def take_lease(self) -> None:
        """Register, and have a lease from then on.

        Raises SealError where the keys do not fit the ledger, LedgerError where its schema does not fit the code.
        """
        self._lease.renew(await self._register_if_fit())

    async def beat(self) -> None:
        """Give a sign of life and renew the lease with it, or take a new one where we were taken for dead."""
        sent_at = lease_clock()
        if sent_at - self._last_beat_at > 2 * self._lease.beat_every_seconds:
            # Whoever was silent meanwhile may have been cut off as we were.
            self._in_touch_since = sent_at
        # The pool gives up trying a Postgres that is away, until somebody asks for a connection again.
        async with self._vital_pool.connection(timeout=ASK_AGAIN_SECONDS) as connection:
            alive = await worker_leases.beat(connection, self._lease.worker_id, key_ids=self._keys.ids)
        if not alive or self._lease.is_lost:
            await self._begin_anew()
            return
        self._lease.renew(sent_at)
        self._last_beat_at = sent_at
        async with self._pool.connection() as connection:
            await worker_leases.release_forgotten_batches(
                connection,
                self._lease.worker_id,
                sorted(self._in_hand()),
                older_than_seconds=self._lease.lease_seconds,
            )

    def may_bury(self) -> bool:
        """Whether we have seen the ledger without interruption for a lease time, up to now."""
        now = lease_clock()
        is_fresh = now - self._last_beat_at < 2 * self._lease.beat_every_seconds
        return is_fresh and now - self._in_touch_since > self._lease.lease_seconds

    async def reread_keys(self) -> None:
        """Use a changed master key file, and tell at once: `tocsin key rotate` waits for it."""
        if await self._keys.renew(self._pool):
            await self._tell_keys()

    async def _begin_anew(self) -> None:
        """Take a new lease after we were taken for dead: all that we had is with others now.

        While we were silent the keys may have been rotated without us, or the ledger upgraded. Until we fit we stay
        without a lease; the next heartbeat tries again.
        """
        if not self._lease.is_lost:
            _log.warning("this worker was taken for dead; its work is with others now")
        self._lease.lose()
        await self._on_loss()
        try:
            sent_at = await self._register_if_fit()
        except (LedgerError, SealError) as error:
            self._keys.stop_sealing()
            if str(error) != self._told_why_idle:
                unfit = "master keys do" if isinstance(error, SealError) else "release does"
                _log.error(f"this worker takes no work: its {unfit} not fit the ledger", reason=str(error))
            self._told_why_idle = str(error)
            return
        self._told_why_idle = None
        # Once more: whatever was claimed since, without a row of ours, may be with others too.
        self._lease.lose()
        self._lease.renew(sent_at)

    async def _register_if_fit(self) -> float:
        """Register with keys and code that fit the ledger; give when the lease begins, by `lease_clock`.

        Raises SealError where the keys do not fit, LedgerError where its schema does not: there is no row of ours then.
        """
        try:
            await self._prove()
            sent_at = lease_clock()
            await self._register()
            # Again: what did not wait for us, our row being new, is done by now. A rotation may have retired a key, and
            # a migration taken away what we need.
            await self._prove()
        except (LedgerError, SealError):
            async with self._pool.connection() as connection:
                await worker_leases.retire_worker(connection, self._lease.worker_id)
            raise
        await self._tell_keys()
        return sent_at

    async def _prove(self) -> None:
        """Raise LedgerError where our code does not fit the ledger, SealError where our keys do not."""
        async with self._pool.connection() as connection:
            await check_schema(connection)
        await self._keys.prove(self._pool)

    async def _register(self) -> None:
        async with self._pool.connection() as connection:
            await worker_leases.register_worker(
                connection,
                self._lease.worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                role=self._role,
                lease_seconds=self._lease.lease_seconds,
                key_ids=self._keys.ids,
            )

    async def _tell_keys(self) -> None:
        async with self._pool.connection() as connection:
            await worker_leases.beat(connection, self._lease.worker_id, key_ids=self._keys.ids)
