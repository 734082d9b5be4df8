"""What the worker processes count, added up by their supervisor.

prometheus_client has each process write its counts to files of its own, and would read the files of the dead for ever.
Here a dead child's counts are taken over into memory and its files go, so that a thousand restarts cost what one does.
Nothing goes backwards, neither by a restart nor where a file cannot be read for once: Prometheus would take that for a
reset and count all of it again. Only sums are known, so every gauge has to have the mode `livesum`: what is true of
the living only.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, cast

import structlog
from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_log = structlog.get_logger(__name__)

_GAUGE = "gauge"
_HISTOGRAM = "histogram"
_BUCKET = "_bucket"


class _Series(NamedTuple):
    """What stands in the key of a value: a series, and the metric that it belongs to."""

    metric: str
    name: str
    labels: dict[str, str]
    meaning: str


class ChildCounts(Collector):
    """Adds up what lies in a directory. `collect` and `forget` may be called by different threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = Lock()
        self._of_the_dead: defaultdict[tuple[str, str], float] = defaultdict(float)
        """By kind of metric and key."""
        self._last_read: dict[str, Sequence[tuple[str, float]]] = {}
        """Keys and values by the name of a file that was there at the last scrape."""
        self._series: dict[str, _Series] = {}

    def collect(self) -> Iterable[Metric]:
        """Give the sums over all children, living and dead (prometheus_client's protocol for collectors)."""
        with self._lock:
            totals = self._of_the_dead.copy()
            self._last_read = {name: self._read(name) for name in self._names()}
            for name, values in self._last_read.items():
                _add_up(totals, _kind_of(name), values)
        by_metric: dict[tuple[str, str], list[tuple[_Series, float]]] = {}
        for (kind, key), value in totals.items():
            series = self._series_of(key)
            by_metric.setdefault((kind, series.metric), []).append((series, value))
        return [_metric(kind, name, found) for (kind, name), found in sorted(by_metric.items())]

    def forget(self, process_id: int) -> None:
        """Take over what a child that ended has counted; its gauges end with it."""
        with self._lock:
            for name in self._names():
                if not name.endswith(f"_{process_id}.db"):
                    continue
                if (kind := _kind_of(name)) != _GAUGE:
                    _add_up(self._of_the_dead, kind, self._read(name))
                (self._directory / name).unlink(missing_ok=True)
                self._last_read.pop(name, None)

    def _names(self) -> Sequence[str]:
        """Give the names of the files, or those at the last scrape. `Path.glob` gives none where it cannot look."""
        try:
            return [file.name for file in self._directory.iterdir() if file.suffix == ".db"]
        except OSError as error:
            _log.warning("counts of the worker processes cannot be looked for", error=error.strerror)
            return list(self._last_read)

    def _read(self, name: str) -> Sequence[tuple[str, float]]:
        """Read all values of a file, or give those that it had last."""
        try:
            return list(_values(self._directory / name))
        except (OSError, struct.error, RuntimeError, UnicodeDecodeError) as error:
            # Just made and still empty, left half written by a machine that went down, or too many files are open.
            _log.warning("counts of a worker process cannot be read", file=name, error=type(error).__name__)
            return self._last_read.get(name, ())

    def _series_of(self, key: str) -> _Series:
        if (known := self._series.get(key)) is None:
            metric, name, labels, meaning = cast("tuple[str, str, dict[str, str], str]", json.loads(key))
            known = self._series[key] = _Series(metric, name, labels, meaning)
        return known


def _kind_of(name: str) -> str:
    """Tell the kind of metrics in a file: they are called counter_7.db, histogram_7.db, gauge_livesum_7.db."""
    return name.partition("_")[0]


def _add_up(totals: defaultdict[tuple[str, str], float], kind: str, values: Iterable[tuple[str, float]]) -> None:
    for key, value in values:
        totals[kind, key] += value


def _values(file: Path) -> Iterator[tuple[str, float]]:
    read = MmapedDict.read_all_values_from_file  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # the library leaves it untyped
    for key, value, *_ in cast("Iterator[tuple[str, float, float, int]]", read(str(file))):
        yield key, value


def _metric(kind: str, name: str, found: list[tuple[_Series, float]]) -> Metric:
    metric = Metric(name, found[0][0].meaning, kind)
    if kind == _HISTOGRAM:
        _add_histogram(metric, found)
    else:
        for series, value in found:
            metric.add_sample(series.name, series.labels, value)
    return metric


def _add_histogram(metric: Metric, found: list[tuple[_Series, float]]) -> None:
    """Add a histogram's samples; processes count each bucket by itself, Prometheus wants all up to it."""
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, str, float]]] = {}
    for series, value in found:
        labels = tuple(item for item in series.labels.items() if item[0] != "le")
        if series.name.endswith(_BUCKET):
            bound = series.labels["le"]
            buckets.setdefault(labels, []).append((float(bound), bound, value))
        else:
            sums[labels] = value
    for labels, counts in buckets.items():
        total = 0.0
        for _, bound, count in sorted(counts):
            total += count
            metric.add_sample(f"{metric.name}{_BUCKET}", {**dict(labels), "le": bound}, total)
        metric.add_sample(f"{metric.name}_count", dict(labels), total)
        metric.add_sample(f"{metric.name}_sum", dict(labels), sums.get(labels, 0.0))
