"""Where Python workers spend their CPU during a turn, by py-spy (`pip install py-spy`, it is not one of ours)."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

TOP: Final = 25

_SAMPLES_A_SECOND: Final = "200"
_LONGEST_SECONDS: Final = "3600"
_STOP_SECONDS: Final = 30


class profiled:  # noqa: N801 - used as a function is
    """Sample processes within a `with` statement into `DIRECTORY/NAME-PID.txt`: a stack and its samples a line.

    Only samples on the CPU count, C code included where it can be seen. RuntimeError where there is no py-spy.
    """

    def __init__(self, process_ids: Sequence[int], directory: Path, name: str) -> None:
        self.files = [directory / f"{name}-{process_id}.txt" for process_id in process_ids]
        self._process_ids = process_ids
        self._samplers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> list[Path]:
        program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
        if program is None:
            raise RuntimeError("there is no py-spy; install it to profile")
        for process_id, file in zip(self._process_ids, self.files, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            command = [
                program, "record", "--pid", str(process_id), "--format", "raw", "--output", str(file), "--nonblocking",
                "--rate", _SAMPLES_A_SECOND, "--duration", _LONGEST_SECONDS,
            ]  # fmt: skip
            self._samplers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self.files

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sampler in self._samplers:
            sampler.send_signal(signal.SIGINT)
        for sampler in self._samplers:
            sampler.wait(_STOP_SECONDS)


def print_top(files: Sequence[Path]) -> None:
    """Print which functions took the most: by themselves, and with all that they called."""
    itself: Counter[str] = Counter()
    with_calls: Counter[str] = Counter()
    for file in files:
        for line in file.read_text().splitlines() if file.exists() else ():
            stack, _, samples = line.rpartition(" ")
            frames = [_without_line(frame) for frame in stack.split(";")]
            itself[frames[-1]] += int(samples)
            for frame in set(frames):
                with_calls[frame] += int(samples)
    everything = itself.total() or 1
    print(f"\n{'itself':>7} {'in all':>7}  function")
    for frame, samples in itself.most_common(TOP):
        print(f"{samples / everything:>7.1%} {with_calls[frame] / everything:>7.1%}  {frame}")


def _without_line(frame: str) -> str:
    """Name a function whichever of its lines was met: `name (file.py:12)`."""
    return frame.rpartition(":")[0] + ")" if frame.endswith(")") else frame
