"""`/metrics` of a supervisor: the counters of all its children, and what lies in the ledger."""

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

from tocsin_schema.errors import LedgerError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.sweeping import LedgerDepths, ledger_depths
from tocsin_workers.metrics import ledger_families

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client.core import GaugeMetricFamily

MULTIPROCESS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
#: The ledger is counted at most this often, however many scrape.
COUNT_EVERY_SECONDS = 5.0


class LedgerCollector(Collector):
    """Counts the ledger when somebody scrapes, and says so where it does not answer."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._counted_at = float("-inf")
        self._families: list[GaugeMetricFamily] = []

    def collect(self) -> list[GaugeMetricFamily]:
        """Give the ledger's metrics (prometheus_client's protocol for collectors)."""
        now = time.monotonic()
        if now - self._counted_at >= COUNT_EVERY_SECONDS:
            self._counted_at = now
            self._families = ledger_families(asyncio.run(self._count()))
        return self._families

    async def _count(self) -> LedgerDepths | None:
        try:
            async with connect(self._database_url) as connection:
                return await ledger_depths(connection)
        except LedgerError:
            return None


class Exposition:
    """Serves `/metrics`. Make it before the children start: it empties the directory that they write to."""

    def __init__(self, directory: Path, database_url: str) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self._directory = directory
        self._registry = CollectorRegistry()
        MultiProcessCollector(self._registry, path=str(directory))
        self._registry.register(LedgerCollector(database_url))

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
