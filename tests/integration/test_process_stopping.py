"""How a worker process hears signals, and how the threads of dramatiq are stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from queue import PriorityQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from dramatiq.brokers.stub import StubBroker
from dramatiq.worker import WorkerThread

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_workers.process import stopping
from tocsin_workers.process.stopping import ECHO_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE_SECONDS = 100.0

# The main thread is in C code, where no signal handler of Python's would run.
PROCESS = """
import ctypes, os, sys
from tocsin_workers.process import stopping

stopping.CLOSING_SECONDS = 0.2
stopping.LAST_CALL_MARGIN_SECONDS = 0.2
stop = stopping.Stop(float(sys.argv[1]))
stop.watch(lambda: os.write(1, b"told\\n"))
os.write(1, b"ready\\n")
while True:
    ctypes.CDLL(None).sleep(1000)
"""


@contextmanager
def busy_process(grace_seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Run a process whose main thread comes back for nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(grace_seconds)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert hears(process) == "ready"
            yield process
        finally:
            process.kill()


def hears(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_that_is_told_to_stop_ends_after_its_grace_period_whatever_its_main_thread_does():
    with busy_process(0.0) as process:
        process.send_signal(signal.SIGTERM)
        assert hears(process) == "told"
        assert process.wait(PATIENCE_SECONDS) == 1


def test_a_second_signal_ends_a_process_at_once():
    with busy_process(GRACE_SECONDS) as process:
        process.send_signal(signal.SIGINT)
        assert hears(process) == "told"
        told_at = monotonic()
        while process.poll() is None and monotonic() - told_at < PATIENCE_SECONDS:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert process.returncode == 1
        assert monotonic() - told_at < ECHO_SECONDS + 1


def test_the_echo_of_the_first_signal_is_no_second_one():
    """A service manager tells the whole group, the supervisor among them, which tells its children once more."""
    with busy_process(GRACE_SECONDS) as process:
        process.send_signal(signal.SIGTERM)
        assert hears(process) == "told"
        process.send_signal(signal.SIGTERM)
        time.sleep(2 * ECHO_SECONDS)  # that it goes on can only be waited for
        assert process.poll() is None


class LateThread(WorkerThread):
    """A thread that gets its turn only after it was told to stop, as on a busy machine."""

    def __init__(self) -> None:
        work: PriorityQueue[Any] = PriorityQueue()
        super().__init__(broker=StubBroker(), consumers={}, work_queue=work, worker_timeout=10)
        self.was_told = threading.Event()

    def run(self) -> None:
        self.was_told.wait(PATIENCE_SECONDS)
        super().run()

    def stop(self) -> None:
        super().stop()
        self.was_told.set()


def test_a_thread_that_was_told_to_stop_before_it_ran_stops_all_the_same():
    thread = LateThread()
    thread.start()
    stopping._stop_threads([thread], by=monotonic() + PATIENCE_SECONDS)
    assert not thread.is_alive()
