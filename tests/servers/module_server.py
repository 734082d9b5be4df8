"""A server of ours in a process of its own: a module that is run, and tells its port in its first line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from tests.servers.processes import die_with_parent

if TYPE_CHECKING:
    from types import TracebackType

ROOT: Final = Path(__file__).resolve().parents[2]


class ModuleServer:
    """Runs `module` with `arguments` while its `with` statement does, on a loopback port.

    RuntimeError where it does not start.
    """

    host: ClassVar[str] = "127.0.0.1"
    module: ClassVar[str]

    def __init__(self, *arguments: object) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self.port = 0

    @property
    def process_id(self) -> int:
        """The process's, while it runs."""
        return self._process.pid

    def ask(self, what: str) -> dict[str, Any]:
        """Say a line to it, and read the JSON object that it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, *self._arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it only makes one system call
        )
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        if not told:
            self._end()
            raise RuntimeError(f"{self.module} does not start")
        self.port = int(told)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()
