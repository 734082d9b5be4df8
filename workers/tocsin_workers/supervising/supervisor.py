"""Keeps child processes running. Each is a small dramatiq worker; the death of one is not noticed by the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from tocsin_workers.sender.windows import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

_log = structlog.get_logger(__name__)

#: A child that lived this long is healthy: its next death is answered at once.
HEALTHY_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 30.0
#: What a child may take beyond its own grace period before it is killed.
KILL_MARGIN_SECONDS = 5.0
#: What becomes of mail when children are killed.
IN_DOUBT = f"messages in flight (at most {WINDOW} a connection) may be sent twice, or are held"


def pause_before_restart(deaths_in_a_row: int) -> float:
    """Say how many seconds to wait before a child is started again: none at first, then growing."""
    return 0.0 if deaths_in_a_row <= 1 else min(LONGEST_PAUSE_SECONDS, 0.5 * 2.0 ** min(deaths_in_a_row - 2, 30))


@dataclass(slots=True)
class Child:
    """One place in the supervisor, and the process that fills it."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = field(default=float("-inf"))
    deaths_in_a_row: int = 0
    start_at: float = field(default=float("-inf"))


class Supervisor:
    """Runs `count` children until SIGTERM or SIGINT, then ends them in good order.

    `command` starts one child; `environment` is what it gets; `on_death` hears the process id of each that ended.
    A second signal kills the children at once, which changes nothing in what is promised.
    """

    def __init__(
        self,
        command: list[str],
        *,
        count: int,
        environment: Mapping[str, str],
        grace_seconds: float,
        on_death: Callable[[int], None],
    ) -> None:
        self._command = command
        self._environment = dict(environment)
        self._grace_seconds = grace_seconds
        self._children = [Child(number) for number in range(1, count + 1)]
        self._signals = 0
        self._on_death = on_death

    def run(self) -> None:
        """Supervise until told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while not self._signals:
            self.tend(time.monotonic())
            # A signal handler does not wake time.sleep up for good (PEP 475), so sleep in short pieces.
            time.sleep(0.1)
        self.stop()

    def tend(self, now: float) -> None:
        """Notice the dead and start what is missing."""
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._bury(child, now)
            if child.process is None and now >= child.start_at:
                self._start(child, now)

    def stop(self) -> None:
        """End the children: SIGTERM, then after the grace period, or at a second signal, SIGKILL."""
        _log.info(f"Finishing what is in hand, {self._grace_seconds:g} s at most; Ctrl-C again ends at once.")
        for child in self._children:
            if child.process is not None:
                child.process.terminate()
        deadline = time.monotonic() + self._grace_seconds + KILL_MARGIN_SECONDS
        while any(child.process is not None and child.process.poll() is None for child in self._children):
            if self._signals > 1:
                self._kill()
                _log.warning(f"Ended at once: {IN_DOUBT}.")
                break
            if time.monotonic() > deadline:
                self._kill()
                _log.warning(f"Ended what did not stop in time: {IN_DOUBT}.")
                break
            time.sleep(0.05)
        for child in self._children:
            if child.process is not None:
                child.process.wait()

    def _start(self, child: Child, now: float) -> None:
        try:
            # A session of its own: Ctrl-C at a terminal reaches the supervisor, which then ends its children in order.
            child.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command, env=self._environment, start_new_session=True
            )
        except OSError as error:
            # Out of memory or processes: the others go on, and this one is tried again.
            child.deaths_in_a_row += 1
            child.start_at = now + max(1.0, pause_before_restart(child.deaths_in_a_row))
            _log.error("worker process cannot be started", process=child.number, reason=error.strerror)
            return
        child.started_at = now
        _log.debug("worker process started", process=child.number, pid=child.process.pid)

    def _bury(self, child: Child, now: float) -> None:
        assert child.process is not None
        code = child.process.returncode
        self._on_death(child.process.pid)
        child.deaths_in_a_row = 1 if now - child.started_at > HEALTHY_SECONDS else child.deaths_in_a_row + 1
        child.start_at = now + pause_before_restart(child.deaths_in_a_row)
        _log.warning(
            "worker process ended",
            process=child.number,
            pid=child.process.pid,
            ended_by=_ending(code),
            restarts_in_seconds=round(child.start_at - now, 1),
        )
        child.process = None

    def _kill(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.kill()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the handler's signature
        self._signals += 1


def _ending(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def child_command(role: str) -> list[str]:
    """Give the command that runs one worker process of a role."""
    return [sys.executable, "-m", "tocsin_workers.process", "--role", role, "--parent", str(os.getpid())]


def die_with_parent(parent_id: int) -> None:
    """Ask the kernel for SIGTERM when our parent dies, so that a killed supervisor leaves no orphans (prctl(2)).

    `parent_id` is the process that started us: if it died before we could ask, we end at once. Does nothing off
    Linux.
    """
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - only Linux has the call

    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent_id:
        os.kill(os.getpid(), signal.SIGTERM)
