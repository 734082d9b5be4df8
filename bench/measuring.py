"""What a turn cost: time, CPU by group of processes, the most memory of a worker, and what others took of the CPU."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

KIBIBYTES_A_MEBIBYTE: Final = 1024
#: The bench's own process, which publishes, and what it ran meanwhile.
OWN_GROUP: Final = "bench"

_STEAL_FIELD: Final = 7
_FIELDS_WITHOUT_GUESTS: Final = 8


@dataclass(slots=True)
class Cost:
    """What was spent between the two ends of a `with` statement."""

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict[str, float])
    """CPU seconds by group, of living and ended processes."""
    stolen: float = 0.0
    """The share of all CPUs' time that the hypervisor gave to others, 0 to 1."""


class measured:  # noqa: N801 - used as a function is
    """Measure what the groups of processes (root process ids, children included) spend within a `with` statement."""

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: list(roots) for name, roots in groups.items()}
        self._cost = Cost()

    def __enter__(self) -> Cost:
        self._cpu_before = self._cpu()
        self._stolen_before = _stolen_and_all()
        self._begun = perf_counter()
        return self._cost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cost.seconds = perf_counter() - self._begun
        stolen, everything = (now - before for now, before in zip(_stolen_and_all(), self._stolen_before, strict=True))
        self._cost.stolen = stolen / everything if everything else 0.0
        self._cost.cpu = {name: spent - self._cpu_before[name] for name, spent in self._cpu().items()}

    def _cpu(self) -> dict[str, float]:
        own = psutil.Process(os.getpid()).cpu_times()
        spent = {name: sum(map(cpu_seconds, roots)) for name, roots in self._groups.items()}
        return {**spent, OWN_GROUP: own.user + own.system + own.children_user + own.children_system}


def cpu_seconds(root: int) -> float:
    """Give the CPU seconds of a process and its children, the ended ones included; 0 where it has ended itself."""
    spent = 0.0
    for process in tree(root):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.system + times.children_user + times.children_system
    return spent


def tree(root: int) -> list[psutil.Process]:
    """Give a process and everything below it."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def peak_memory(pid: int) -> float:
    """Give the most resident memory that a process ever had, in MiB; 0 where it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / KIBIBYTES_A_MEBIBYTE
    return 0.0


def _stolen_and_all() -> tuple[int, int]:
    """Give the stolen and all ticks of all CPUs since the start of the machine (proc(5), /proc/stat)."""
    with Path("/proc/stat").open() as statistics:
        ticks = [int(word) for word in statistics.readline().split()[1:]]
    return ticks[_STEAL_FIELD], sum(ticks[:_FIELDS_WITHOUT_GUESTS])
