"""What a worker process holds while it runs: made after the fork, in the event loop that its actors run in."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

from tocsin_schema.errors import LedgerError, SealError
from tocsin_schema.ledger import worker_leases
from tocsin_schema.ledger.connection import AWAY, connect, open_pool
from tocsin_schema.ledger.installation_settings import read_in_force
from tocsin_schema.ledger.migrate import check_schema
from tocsin_workers import metrics
from tocsin_workers.intake.working import IntakeDesk
from tocsin_workers.process.busyness import Busyness
from tocsin_workers.process.master_keys import ProcessKeys
from tocsin_workers.process.slices import RunningSlices
from tocsin_workers.retiring import Retirement
from tocsin_workers.sender.adapting import raise_limits, tell_traffic
from tocsin_workers.sender.admission import SLICES_A_THREAD
from tocsin_workers.sender.authorizing import CredentialSource
from tocsin_workers.sender.desk import SenderDesk
from tocsin_workers.sender.lease import WorkerLease, lease_clock
from tocsin_workers.sender.recording import Recorder
from tocsin_workers.sender.retrying import RetrySchedule
from tocsin_workers.sender.session_pool import SessionPool
from tocsin_workers.sweeping import PARTITIONS_EVERY_SECONDS, SWEEP_EVERY_SECONDS, make_partitions, sweep
from tocsin_workers.tokens.access import TokenAccess
from tocsin_workers.tokens.broker import refresh, refresh_due
from tocsin_workers.tokens.single_flight import TokenSource
from tocsin_workers.waking import Waker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from dramatiq import Broker

    from tocsin_schema.ledger.access_tokens import TokenKey
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.installation_settings import InstallationSettings
    from tocsin_schema.message_broker.topology import Role
    from tocsin_schema.sealing import Sealer
    from tocsin_schema.settings import Settings
    from tocsin_workers.tokens.attempting import TokenRequest
    from tocsin_workers.tracing import Spans

_log = structlog.get_logger(__name__)

LONGEST_WAIT_SECONDS = 10.0
REFRESH_EVERY_SECONDS = 2.0
CLOSE_IDLE_EVERY_SECONDS = 1.0
#: How soon a changed setting of the installation is known everywhere.
SETTINGS_EVERY_SECONDS = 5.0
#: How soon the fleet knows what this process has sent.
TRAFFIC_EVERY_SECONDS = 2.0
RAISE_LIMITS_EVERY_SECONDS = 5.0
#: How soon a changed master key file is in use.
KEYS_EVERY_SECONDS = 2.0
#: How soon a heartbeat asks again for a ledger that is away, and so how soon all work goes on once it is back.
ASK_AGAIN_SECONDS = 2.0
#: How long what hangs is waited for at the end of a process, where nothing is lost by it.
CLOSING_PATIENCE_SECONDS = 1.0
RETIRE_SECONDS = 5.0


class Runtime:
    """One worker process's state and its background tasks."""

    def __init__(
        self, settings: Settings, database_url: str, role: Role, broker: Broker, *, spans: Spans | None = None
    ) -> None:
        self._settings = settings
        self._database_url = database_url
        self._role = role
        self.stopping = asyncio.Event()
        self.lease = WorkerLease(uuid4(), settings.lease_seconds)
        # What many slices ask takes turns; the recorder and the heartbeat wait for nobody.
        self.pool = open_pool(database_url, size=settings.worker_threads + 8)
        self._vital_pool = open_pool(database_url, size=2)
        self.waker = Waker(broker, self.pool)
        self.recorder = Recorder(self._vital_pool, self.lease.worker_id)
        self.sessions = SessionPool(self.pool, self.lease.worker_id)
        self._spans = spans
        self.intake = IntakeDesk(self.pool, self.waker, self.stopping, spans)
        self._in_touch_since = self._last_beat_at = lease_clock()
        """Since when the ledger has confirmed our heartbeats without interruption, by `lease_clock`."""
        self.slices = RunningSlices(most=SLICES_A_THREAD * settings.worker_threads, busy_share=Busyness().share)
        self._tasks: list[asyncio.Task[None]] = []
        self._keys = ProcessKeys(settings)
        self._told_why_idle: str | None = None
        self._sender: SenderDesk | None = None
        self._token_source: TokenSource | None = None

    @property
    def sender(self) -> SenderDesk:
        """What the slices share; there once the runtime is open."""
        assert self._sender is not None
        return self._sender

    @property
    def token_source(self) -> TokenSource:
        """What the token broker works with; there once the runtime is open."""
        assert self._token_source is not None
        return self._token_source

    async def open(self) -> bool:
        """Wait for a ledger that fits this release, take a lease, start the background; False if told to stop."""
        opening = asyncio.create_task(self._open())
        told = asyncio.create_task(self.stopping.wait())
        await asyncio.wait((opening, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not opening.done():
            # Nothing is in hand yet. A ledger that hangs may keep it from ending.
            opening.cancel()
            await asyncio.wait((opening,), timeout=CLOSING_PATIENCE_SECONDS)
            return False
        return opening.result()

    async def _open(self) -> bool:
        wait = 0.5
        while not self.stopping.is_set():
            try:
                return await self._try_to_open()
            except AWAY as error:
                _log.warning("worker waits: the ledger went away again", error=type(error).__name__)
            await self._rest(wait)
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)
        return False

    async def _try_to_open(self) -> bool:
        sealer = await self._wait_for_the_ledger()
        if sealer is None:
            return False
        await self.pool.open()
        await self._vital_pool.open()
        async with self.pool.connection() as connection:
            numbers = await read_in_force(connection)
        if not await self._wait_for_a_lease():
            return False
        self._token_source = TokenSource(self.pool, sealer, observe=_observe_token_request)
        tokens = TokenAccess(self._token_source, self._ask_for_token)
        self._sender = SenderDesk(
            pool=self.pool,
            lease=self.lease,
            recorder=self.recorder,
            sessions=self.sessions,
            credentials=CredentialSource(self.pool, sealer, tokens),
            waker=self.waker,
            stopping=self.stopping,
            schedule=_schedule(numbers),
            internal_domains=numbers.internal_domains,
            spans=self._spans,
        )
        self._start()
        return True

    async def close(self) -> None:
        """Write what is still to be recorded, say good-bye to mail servers, and give every lease back."""
        self.stopping.set()
        if self._sender is None:
            await self._retire(within_seconds=CLOSING_PATIENCE_SECONDS)
            return
        # Slices that outlived the grace period first: they still record what they wait for, as it stands.
        ending = asyncio.create_task(_end(self.slices.tasks))
        # Beside it, since no mail server needs to wait for the ledger; what is cancelled is off its connection by then.
        leaving = asyncio.create_task(self.sessions.leave())
        await ending
        await _end(self._tasks)
        # What was sent first: should we be killed before the end, nothing of it may be unknown.
        await self.recorder.drain()
        await leaving
        await self.token_source.finish()
        await self._retire(within_seconds=RETIRE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_PATIENCE_SECONDS):
                await asyncio.to_thread(self.waker.close)

    async def _retire(self, *, within_seconds: float) -> None:
        """Remove our row, and what it may still hold: all outcomes are recorded. Otherwise its lease lapses."""
        with suppress(*AWAY, TimeoutError):
            async with asyncio.timeout(within_seconds), self.pool.connection() as connection:
                await worker_leases.retire_worker(connection, self.lease.worker_id)
        await self._vital_pool.close(timeout=CLOSING_PATIENCE_SECONDS)
        await self.pool.close(timeout=CLOSING_PATIENCE_SECONDS)

    async def sweep_once(self) -> None:
        """Sweep the ledger, unless another pod is at it."""
        await sweep(self.pool, self.waker, may_bury=self._may_bury)

    async def refresh_token(self, key: TokenKey) -> None:
        """Do the token broker's work for a key; not without a lease, as our keys may be too old to store what comes."""
        if not self.lease.is_lost:
            await refresh(self.token_source, key)

    async def _wait_for_the_ledger(self) -> Sealer | None:
        """Try until the ledger answers, has this release's schema, and the master key opens it."""
        wait = 0.5
        while not self.stopping.is_set():
            try:
                async with connect(self._database_url) as connection:
                    await check_schema(connection)
                    return await self._keys.load(connection)
            except (LedgerError, SealError) as error:
                _log.error("worker waits", reason=str(error))
            await self._rest(wait)
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)
        return None

    async def _wait_for_a_lease(self) -> bool:
        """Try until we have a lease; False if told to stop."""
        while not self.stopping.is_set():
            try:
                sent_at = await self._register_if_fit()
            except (LedgerError, SealError) as error:
                # The key file, or the ledger's schema, has changed since it was read.
                _log.error("worker waits", reason=str(error))
                await self._rest(LONGEST_WAIT_SECONDS)
            else:
                self.lease.renew(sent_at)
                return True
        return False

    async def _rest(self, seconds: float) -> None:
        """Wait, unless told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    def _start(self) -> None:
        background: list[tuple[str, Callable[[], Awaitable[object]], float]] = [
            ("heartbeat", self._beat, self.lease.beat_every_seconds),
            ("idle sessions", self.sessions.close_idle, CLOSE_IDLE_EVERY_SECONDS),
            ("settings", self._reread_settings, SETTINGS_EVERY_SECONDS),
            ("master keys", self._reread_keys, KEYS_EVERY_SECONDS),
            ("traffic", self._tell_traffic, TRAFFIC_EVERY_SECONDS),
        ]
        if self._role in ("sweeper", "all"):
            background.append(("sweep", self.sweep_once, SWEEP_EVERY_SECONDS))
            background.append(("learned limits", lambda: raise_limits(self.pool), RAISE_LIMITS_EVERY_SECONDS))
            background.append(("partitions", lambda: make_partitions(self.pool), PARTITIONS_EVERY_SECONDS))
            background.append(("retirement", Retirement(self.pool).retire_months, PARTITIONS_EVERY_SECONDS))
        if self._role in ("tokens", "all"):
            background.append(("token refresh", self._refresh_due_tokens, REFRESH_EVERY_SECONDS))
        self._tasks = [asyncio.create_task(self._repeat(*one), name=one[0]) for one in background]
        recorder = asyncio.create_task(self.recorder.run(), name="recorder")
        recorder.add_done_callback(self._end_without_recorder)
        self._tasks.append(recorder)

    def _end_without_recorder(self, recorder: asyncio.Task[None]) -> None:
        """End the process if its recorder has ended: what it leases is then taken back, instead of never recorded."""
        if not self.stopping.is_set():
            _log.critical("the recorder has ended; so does this process", error=repr(recorder))
            os._exit(1)

    async def _repeat(self, name: str, act: Callable[[], Awaitable[object]], every_seconds: float) -> None:
        """Do something again and again; a ledger that is away is waited for."""
        while True:
            try:
                await act()
            except AWAY as error:
                _log.warning("background work waits for the ledger", work=name, error=type(error).__name__)
            except Exception:  # noqa: BLE001 - logged, whatever it is
                # The work is repeated, and must not end for good with one failure.
                _log.exception("background work failed", work=name)
            await asyncio.sleep(every_seconds)

    async def _beat(self) -> None:
        sent_at = lease_clock()
        if sent_at - self._last_beat_at > 2 * self.lease.beat_every_seconds:
            # Whoever was silent meanwhile may have been cut off as we were.
            self._in_touch_since = sent_at
        # The pool gives up trying a Postgres that is away, until somebody asks for a connection again.
        async with self._vital_pool.connection(timeout=ASK_AGAIN_SECONDS) as connection:
            alive = await worker_leases.beat(connection, self.lease.worker_id, key_ids=self._keys.ids)
        if not alive or self.lease.is_lost:
            await self._begin_anew()
            return
        self.lease.renew(sent_at)
        self._last_beat_at = sent_at
        async with self.pool.connection() as connection:
            await worker_leases.release_forgotten_batches(
                connection,
                self.lease.worker_id,
                sorted(self.sender.in_hand),
                older_than_seconds=self.lease.lease_seconds,
            )

    async def _begin_anew(self) -> None:
        """Take a new lease after we were taken for dead: all that we had is with others now.

        While we were silent the keys may have been rotated without us, or the ledger upgraded. Until we fit we stay
        without a lease; the next heartbeat tries again.
        """
        if not self.lease.is_lost:
            _log.warning("this worker was taken for dead; its work is with others now")
        self.lease.lose()
        await self.sessions.abandon_slots()
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
        self.lease.lose()
        self.lease.renew(sent_at)

    def _may_bury(self) -> bool:
        """Whether we have seen the ledger without interruption for a lease time, up to now."""
        now = lease_clock()
        is_fresh = now - self._last_beat_at < 2 * self.lease.beat_every_seconds
        return is_fresh and now - self._in_touch_since > self.lease.lease_seconds

    async def _tell_traffic(self) -> None:
        """Tell the ledger what was sent and learned; nothing where we are idle."""
        await tell_traffic(self.sender)
        await self.sender.tell_caps()

    async def _reread_settings(self) -> None:
        async with self.pool.connection() as connection:
            settings = await read_in_force(connection)
        self.sender.schedule = _schedule(settings)
        self.sender.internal_domains = settings.internal_domains

    async def _reread_keys(self) -> None:
        """Use a changed master key file, and tell at once: `tocsin key rotate` waits for it."""
        if await self._keys.renew(self.pool):
            async with self.pool.connection() as connection:
                await worker_leases.beat(connection, self.lease.worker_id, key_ids=self._keys.ids)

    async def _refresh_due_tokens(self) -> None:
        if not self.lease.is_lost:
            await refresh_due(self.token_source)

    async def _register_if_fit(self) -> float:
        """Register with keys and code that fit the ledger; give when the lease begins, by `lease_clock`.

        Raises SealError where the keys do not fit, LedgerError where its schema does not: there is no row of ours then.
        """
        try:
            await self._prove()
            sent_at = lease_clock()
            async with self.pool.connection() as connection:
                await self._register(connection)
            # Again: what did not wait for us, our row being new, is done by now. A rotation may have retired a key, and
            # a migration taken away what we need.
            await self._prove()
        except (LedgerError, SealError):
            async with self.pool.connection() as connection:
                await worker_leases.retire_worker(connection, self.lease.worker_id)
            raise
        async with self.pool.connection() as connection:
            await worker_leases.beat(connection, self.lease.worker_id, key_ids=self._keys.ids)
        return sent_at

    async def _prove(self) -> None:
        """Raise LedgerError where our code does not fit the ledger, SealError where our keys do not."""
        async with self.pool.connection() as connection:
            await check_schema(connection)
        await self._keys.prove(self.pool)

    async def _register(self, connection: Connection) -> None:
        await worker_leases.register_worker(
            connection,
            self.lease.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            role=self._role,
            lease_seconds=self.lease.lease_seconds,
            key_ids=self._keys.ids,
        )

    async def _ask_for_token(self, key: TokenKey) -> None:
        await self.waker.ask_for_token(key.profile_id, key.subject)


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def _schedule(numbers: InstallationSettings) -> RetrySchedule:
    return RetrySchedule(float(numbers.retry_first_delay_seconds), float(numbers.retry_maximum_delay_seconds))


def _observe_token_request(request: TokenRequest) -> None:
    metrics.observe_token_request(request.outcome, request.seconds)
