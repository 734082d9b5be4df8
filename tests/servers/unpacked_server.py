"""A server from Debian's unpacked packages: its home, its process, and the end of both."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

from tests.servers.debian_packages import library_path
from tests.servers.ports import free_port
from tests.servers.processes import lay_programs, make_home, spawn, stop, wait_until_ready

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path
    from types import TracebackType

    from tocsin_console.embedded.account import Account


class UnpackedServer(ABC):
    """Runs while its `with` statement does, on a loopback port; use it from the main thread.

    RuntimeError with the end of its log where it does not start.
    """

    name: ClassVar[str]

    def __init__(self, unpacked: Path) -> None:
        self.port = free_port()
        self._unpacked = unpacked
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the server says; it goes with it."""
        assert self._home is not None
        return self._home / f"{self.name}.log"

    @abstractmethod
    def account(self) -> Account:
        """Say as whom it runs."""

    @abstractmethod
    def furnish(self, home: Path, programs: Path, account: Account) -> list[Path | str]:
        """Write into its home what it reads; give the command that starts it there."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is ready."""

    def directory(self, home: Path) -> Path:
        """Say where it works."""
        return home

    def libraries(self, programs: Path) -> list[Path]:
        """Say where its libraries are."""
        return library_path(programs)

    def __enter__(self) -> Self:
        account = self.account()
        self._home = make_home(self.name, account)
        try:
            programs = lay_programs(self._unpacked, self._home, account)
            command = self.furnish(self._home, programs, account)
            self._process = spawn(
                command,
                account=account,
                environment={"LD_LIBRARY_PATH": ":".join(str(place) for place in self.libraries(programs))},
                directory=self.directory(self._home),
                log=self.log,
            )
            wait_until_ready(self.answers, self._process, log=self.log)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process of the server and remove its files. Harmless to repeat."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        if self._home is not None:
            shutil.rmtree(self._home)
            self._home = None
