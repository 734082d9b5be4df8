"""`/metrics` of a supervisor: the counters of all its children, what lies in the ledger and on the queues."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType]  # the library leaves it untyped
)
from prometheus_client.registry import Collector

from tocsin_schema.errors import ConfigurationError, LedgerError, MessageBrokerError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.credential_expiry import read_known_ends
from tocsin_schema.ledger.depths import ledger_depths, open_jobs, open_recipients
from tocsin_schema.message_broker.depths import queue_depths
from tocsin_workers.metrics import LedgerCounts, ledger_families, queue_families

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client.core import GaugeMetricFamily

MULTIPROCESS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
#: Ledger and queues are counted at most this often, however many scrape.
COUNT_EVERY_SECONDS = 5.0


class DepthsCollector(Collector):
    """Counts the ledger and the queues when somebody scrapes, and says so where one of them does not answer."""

    def __init__(self, database_url: str, broker_url: str | None) -> None:
        self._database_url = database_url
        self._broker_url = broker_url
        self._counted_at = float("-inf")
        self._families: list[GaugeMetricFamily] = []

    def collect(self) -> list[GaugeMetricFamily]:
        """Give the metrics of ledger and queues (prometheus_client's protocol for collectors)."""
        now = time.monotonic()
        if now - self._counted_at >= COUNT_EVERY_SECONDS:
            self._counted_at = now
            self._families = asyncio.run(self._count())
        return self._families

    async def _count(self) -> list[GaugeMetricFamily]:
        # Side by side: each may take seconds to find out that its server is away, and a scrape has ten.
        ledger, queues = await asyncio.gather(self._count_ledger(), asyncio.to_thread(self._count_queues))
        return [*ledger_families(ledger), *queue_families(queues)]

    async def _count_ledger(self) -> LedgerCounts | None:
        try:
            async with connect(self._database_url) as connection:
                return LedgerCounts(
                    depths=await ledger_depths(connection),
                    jobs=await open_jobs(connection),
                    recipients=await open_recipients(connection),
                    credential_ends=await read_known_ends(connection),
                )
        except LedgerError:
            return None

    def _count_queues(self) -> dict[str, int] | None:
        try:
            return queue_depths(broker_url=self._broker_url, database_url=self._database_url)
        except (MessageBrokerError, ConfigurationError):
            return None


class Exposition:
    """Serves `/metrics`. Make it before the children start: it empties the directory that they write to."""

    def __init__(self, directory: Path, *, database_url: str, broker_url: str | None) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self._directory = directory
        self._registry = CollectorRegistry()
        MultiProcessCollector(self._registry, path=str(directory))
        self._registry.register(DepthsCollector(database_url, broker_url))

    @property
    def environment(self) -> dict[str, str]:
        """What the children need in their environment, before they import prometheus_client."""
        return {MULTIPROCESS_DIRECTORY: str(self._directory)}

    def serve(self, host: str, port: int) -> int:
        """Listen; give the port, which is a free one where 0 was asked for. Raises OSError where it is taken."""
        server, _ = start_http_server(port, addr=host, registry=self._registry)
        return server.server_port

    def forget(self, process_id: int) -> None:
        """Drop the live gauges of a child that ended."""
        mark_process_dead(process_id, path=str(self._directory))
