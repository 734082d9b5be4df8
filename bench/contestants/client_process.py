"""A contestant that is a client program: it keeps no queue and no record, and connects before its turn.

The program reads its configuration as a line of JSON, says `{"ready": true}`, and for every further line, a load,
sends it and says `{"sent": messages}`; it ends with its standard input.
"""

from __future__ import annotations

import json
import subprocess
from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.contestants.contestant import Contestant

if TYPE_CHECKING:
    from bench.mail import Load

ROOT: Final = Path(__file__).resolve().parents[2]

_STOP_SECONDS: Final = 10


class ClientProcess(Contestant):
    """Runs the program while a turn lasts."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    @abstractmethod
    def command(self) -> list[Path | str]:
        """Give the command that starts the program."""

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """Give what it reads first."""

    def environment(self) -> dict[str, str] | None:
        """Give its environment; None for this process's own."""
        return None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self.command(), cwd=ROOT, env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._ask(self.configuration()) != {"ready": True}:
            raise RuntimeError(f"{self.name} does not start")

    def send(self, load: Load) -> None:
        answer = self._ask(asdict(load))
        if answer != {"sent": load.messages}:
            raise RuntimeError(f"{self.name} did not send {load.messages} messages: {answer}")

    def stop(self) -> None:
        if self._process is not None:
            try:
                self._process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
            self._process = None

    def groups(self) -> dict[str, list[int]]:
        return {} if self._process is None else {"client": [self._process.pid]}

    def worker_ids(self) -> list[int]:
        return [] if self._process is None else [self._process.pid]

    def _ask(self, question: dict[str, Any]) -> object:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return json.loads(answer) if answer else None
