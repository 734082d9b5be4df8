"""What a worker process holds while it runs: made after the fork, in the event loop that its actors run in."""

from __future__ import annotations

import asyncio
import os
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
from tocsin_workers.process.registration import Registration
from tocsin_workers.process.slices import RunningSlices
from tocsin_workers.retiring import Retirement
from tocsin_workers.sender.adapting import raise_limits, tell_traffic
from tocsin_workers.sender.admission import SLICES_A_THREAD
from tocsin_workers.sender.authorizing import CredentialSource
from tocsin_workers.sender.desk import SenderDesk
from tocsin_workers.sender.lease import WorkerLease
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
        self.slices = RunningSlices(most=SLICES_A_THREAD * settings.worker_threads, busy_share=Busyness().share)
        self._tasks: list[asyncio.Task[None]] = []
        self._keys = ProcessKeys(settings)
        self._registration = Registration(
            self.lease,
            self._keys,
            role,
            pool=self.pool,
            vital_pool=self._vital_pool,
            in_hand=lambda: self.sender.in_hand,
            on_loss=self.sessions.abandon_slots,
        )
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
        await sweep(self.pool, self.waker, may_bury=self._registration.may_bury)

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
                await self._registration.take_lease()
            except (LedgerError, SealError) as error:
                # The key file, or the ledger's schema, has changed since it was read.
                _log.error("worker waits", reason=str(error))
                await self._rest(LONGEST_WAIT_SECONDS)
            else:
                return True
        return False

    async def _rest(self, seconds: float) -> None:
        """Wait, unless told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    def _start(self) -> None:
        background: list[tuple[str, Callable[[], Awaitable[object]], float]] = [
            ("heartbeat", self._registration.beat, self.lease.beat_every_seconds),
            ("idle sessions", self.sessions.close_idle, CLOSE_IDLE_EVERY_SECONDS),
            ("settings", self._reread_settings, SETTINGS_EVERY_SECONDS),
            ("master keys", self._registration.reread_keys, KEYS_EVERY_SECONDS),
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

    async def _tell_traffic(self) -> None:
        """Tell the ledger what was sent and learned; nothing where we are idle."""
        await tell_traffic(self.sender)
        await self.sender.tell_caps()

    async def _reread_settings(self) -> None:
        async with self.pool.connection() as connection:
            settings = await read_in_force(connection)
        self.sender.schedule = _schedule(settings)
        self.sender.internal_domains = settings.internal_domains

    async def _refresh_due_tokens(self) -> None:
        if not self.lease.is_lost:
            await refresh_due(self.token_source)

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
