"""Keeps child processes running. Each is a small dramatiq worker; the death of one is not noticed by the others.

A child tells through a pipe of its own how it is (`process.signs_of_life`); the supervisor notes it, and tells others
what it knows of all of them as one value (`Supervisor.family`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from tocsin_workers.process.signs_of_life import SIGNS_VARIABLE, Sign
from tocsin_workers.sender.windows import WINDOW
from tocsin_workers.supervising.family import ChildState, FamilyState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

_log = structlog.get_logger(__name__)

#: A child that lived this long is healthy: its next death is answered at once.
HEALTHY_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 30.0
#: What a child may take beyond its own grace period before it is killed.
KILL_MARGIN_SECONDS = 5.0
#: All that a pipe holds: of a byte a second, those of many hours in which we were stuck.
_MOST_SIGNS = 65_536
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
    signs: int | None = None
    """The end of its pipe that we read."""
    sign: Sign | None = None
    """What it said last."""
    sign_at: float = field(default=float("-inf"))
    came_up: bool = False
    """Whether a process in this place ever gave a sign."""
    not_started_since: float | None = None
    """Since when the operating system gives us no process for it."""

    def state(self) -> ChildState:
        """Give what others may know of it."""
        return ChildState(
            is_running=self.process is not None,
            came_up=self.came_up,
            takes_work=self.process is not None and self.sign is Sign.TAKES_WORK,
            silent_since=None if self.process is None else max(self.started_at, self.sign_at),
            deaths_in_a_row=self.deaths_in_a_row,
            not_started_since=self.not_started_since,
        )


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
        self._restarts = 0
        self._family = FamilyState(time.monotonic(), is_stopping=False, restarts=0, children=())

    @property
    def family(self) -> FamilyState:
        """What is known of the children, as of the last look at them. Any thread may ask."""
        return self._family

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
            _hear(child, now)
            if child.process is not None and child.process.poll() is not None:
                self._bury(child, now)
            if child.process is None and now >= child.start_at:
                self._start(child, now)
        self._note_family(now)

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
            self._note_family(time.monotonic())
            time.sleep(0.05)
        for child in self._children:
            if child.process is not None:
                child.process.wait()
            if child.signs is not None:
                os.close(child.signs)
                child.signs = None

    def _note_family(self, now: float) -> None:
        self._family = FamilyState(
            now,
            is_stopping=bool(self._signals),
            restarts=self._restarts,
            children=tuple(child.state() for child in self._children),
        )

    def _start(self, child: Child, now: float) -> None:
        try:
            child.process, child.signs = self._spawn()
        except OSError as error:
            # Out of memory, processes or files: the others go on, and this one is tried again.
            child.deaths_in_a_row += 1
            child.start_at = now + max(1.0, pause_before_restart(child.deaths_in_a_row))
            child.not_started_since = now if child.not_started_since is None else child.not_started_since
            _log.error("worker process cannot be started", process=child.number, reason=error.strerror)
            return
        child.not_started_since = None
        child.started_at = now
        _log.debug("worker process started", process=child.number, pid=child.process.pid)

    def _spawn(self) -> tuple[subprocess.Popen[bytes], int]:
        """Start a process and give it with our end of its pipe. Raises OSError."""
        ours, its = os.pipe()
        try:
            os.set_blocking(ours, False)
            # A session of its own: Ctrl-C at a terminal reaches the supervisor, which then ends its children in order.
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command,
                env={**self._environment, SIGNS_VARIABLE: str(its)},
                start_new_session=True,
                pass_fds=(its,),
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(its)
        return process, ours

    def _bury(self, child: Child, now: float) -> None:
        assert child.process is not None
        self._restarts += 1
        if child.signs is not None:
            os.close(child.signs)
            child.signs = child.sign = None
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


def _hear(child: Child, now: float) -> None:
    """Read what a child has said since; only the last of it counts."""
    if child.signs is None:
        return
    with suppress(BlockingIOError):
        said = os.read(child.signs, _MOST_SIGNS)
        if said and (sign := Sign.of(said[-1:])) is not None:
            child.sign, child.sign_at, child.came_up = sign, now, True


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
