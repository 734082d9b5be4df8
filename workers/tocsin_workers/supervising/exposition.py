"""The metrics of a supervisor: what its children count, itself, and, where it sweeps, the ledger and the queues."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector
from psycopg.errors import QueryCanceled

from tocsin_schema.errors import ConfigurationError, LedgerError, MessageBrokerError
from tocsin_schema.ledger import measuring
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.credential_expiry import read_known_ends
from tocsin_schema.ledger.depths import count_unknown_of_ended_jobs, read_backlog
from tocsin_schema.message_broker.depths import queue_depths
from tocsin_schema.message_broker.topology import SWEEP_QUEUE, Role, queues_of
from tocsin_workers.release import running_release
from tocsin_workers.supervising.child_counts import ChildCounts
from tocsin_workers.supervising.counting import counting
from tocsin_workers.supervising.samples import (
    BacklogCounts,
    LedgerCounts,
    ledger_families,
    queue_families,
    supervisor_families,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tocsin_schema.ledger.connection import Connection
    from tocsin_workers.supervising.family import FamilyState
    from tocsin_workers.supervising.samples import Families

_log = structlog.get_logger(__name__)

MULTIPROCESS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
#: How long a scrape waits for the ledger and the queues; Prometheus waits for ten seconds unless told otherwise.
ANSWER_SECONDS = 4.0
#: What one statement may take: what is not answered by then would come too late.
STATEMENT_SECONDS = 4.0
#: When a count is given up whose server has gone silent in the middle.
COUNT_SECONDS = 20.0


class LedgerAndQueues(Collector):
    """Counts the ledger and the queues when somebody scrapes, and says so where one of them does not answer."""

    def __init__(self, database_url: str, broker_url: str | None) -> None:
        self._ledger = counting(lambda: asyncio.run(_count_ledger(database_url)))
        self._queues = counting(lambda: _count_queues(database_url, broker_url))

    def collect(self) -> Families:
        """Give the metrics of both within `ANSWER_SECONDS` (prometheus_client's protocol for collectors)."""
        deadline = time.monotonic() + ANSWER_SECONDS
        # Side by side: each may take seconds to find out that its server is away.
        ledger, queues = self._ledger.begin(), self._queues.begin()
        return [
            *ledger_families(self._ledger.result(ledger, by=deadline)),
            *queue_families(self._queues.result(queues, by=deadline)),
        ]


async def _count_ledger(database_url: str) -> LedgerCounts | None:
    try:
        async with asyncio.timeout(COUNT_SECONDS), connect(database_url) as connection:
            await measuring.limit_time(connection, seconds=STATEMENT_SECONDS)
            return LedgerCounts(
                backlog=await _count_backlog(connection),
                watch=await measuring.read_watch(connection),
                profiles=await measuring.read_profiles(connection),
                tokens=await measuring.read_tokens(connection),
                credential_ends=await read_known_ends(connection),
            )
    except (LedgerError, TimeoutError):
        return None


async def _count_backlog(connection: Connection) -> BacklogCounts | None:
    """Count what may take its time; None where it takes too long: the ledger is there all the same."""
    try:
        async with connection.transaction():
            return BacklogCounts(await read_backlog(connection), await count_unknown_of_ended_jobs(connection))
    except QueryCanceled:
        _log.warning("counting the backlog takes too long for the metrics", seconds=STATEMENT_SECONDS)
        return None


def _count_queues(database_url: str, broker_url: str | None) -> Mapping[str, int] | None:
    try:
        return queue_depths(broker_url=broker_url, database_url=database_url)
    except (MessageBrokerError, ConfigurationError):
        return None


class SupervisorItself(Collector):
    """Tells which release runs, and of the children once it knows of them."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self.family: Callable[[], FamilyState] | None = None

    def collect(self) -> Families:
        """Give what is so now (prometheus_client's protocol for collectors)."""
        children = None if self.family is None else self.family()
        return supervisor_families(
            version=running_release(),
            role=self._role,
            processes=0 if children is None else sum(child.is_running for child in children.children),
            restarts=0 if children is None else children.restarts,
        )


class Exposition:
    """Everything that `/metrics` shows. Make it before the children start: it empties the directory they write to.

    `role` is the children's: without the sweeper's part nothing is counted in the ledger, so that of many pods only a
    few do.
    """

    def __init__(self, directory: Path, *, database_url: str, broker_url: str | None, role: Role = Role.ALL) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self._directory = directory
        self._children = ChildCounts(directory)
        self._itself = SupervisorItself(role)
        self._registry = CollectorRegistry()
        self._registry.register(self._children)
        self._registry.register(self._itself)
        if SWEEP_QUEUE in queues_of(role):
            self._registry.register(LedgerAndQueues(database_url, broker_url))

    @property
    def registry(self) -> CollectorRegistry:
        """What gives all metrics at a scrape; any thread may ask it."""
        return self._registry

    @property
    def environment(self) -> dict[str, str]:
        """What the children need in their environment, before they import prometheus_client."""
        return {MULTIPROCESS_DIRECTORY: str(self._directory)}

    def watch(self, family: Callable[[], FamilyState]) -> None:
        """Tell of the children that `family` gives."""
        self._itself.family = family

    def forget(self, process_id: int) -> None:
        """Take over the counts of a child that ended; its gauges end with it."""
        self._children.forget(process_id)
