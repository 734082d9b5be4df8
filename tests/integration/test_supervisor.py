"""A supervisor with real child processes. Everybody writes to one pipe: when it ends, nobody is left."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_workers.supervising.supervisor import HEALTHY_SECONDS, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent on Linux only")


# Says "ready", then "terminated" at SIGTERM; a stubborn one only says "ignored" and goes on.
CHILD = """
import os, signal, sys
from tocsin_workers.supervising.supervisor import die_with_parent

mode, parent = sys.argv[1:]
die_with_parent(int(parent))

def say(word):
    os.write(1, f"{word} {os.getpid()}\\n".encode())

def on_term(*_):
    if mode == "stubborn":
        say("ignored")
    else:
        say("terminated")
        os._exit(0)

signal.signal(signal.SIGTERM, on_term)
say("ready")
while True:
    signal.pause()
"""

SUPERVISOR = """
import os, sys
import structlog
from tocsin_workers.supervising import supervisor

child, mode, count, grace = sys.argv[1:]
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
supervisor.KILL_MARGIN_SECONDS = 0.1

def say(word, pid):
    os.write(1, f"{word} {pid}\\n".encode())

supervisor.Supervisor(
    [sys.executable, "-c", child, mode, str(os.getpid())],
    count=int(count), environment=os.environ, grace_seconds=float(grace), on_death=lambda pid: say("buried", pid),
).run()
say("over", os.getpid())
"""


class Family:
    """A supervisor process and what it and its children say."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[tuple[str, int] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def hears(self, word: str, count: int = 1) -> list[int]:
        """Wait until so many have said the word, and nobody another one; give their process ids in order."""
        said = [self._lines.get(timeout=PATIENCE_SECONDS) for _ in range(count)]
        assert [line and line[0] for line in said] == [word] * count, said
        return [line[1] for line in said if line is not None]

    def hears_to_the_end(self) -> list[tuple[str, int]]:
        """Give all that is still said, once the last process has ended."""
        return list(iter(lambda: self._lines.get(timeout=PATIENCE_SECONDS), None))

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def close(self) -> None:
        """Wait until everybody is gone and all that they said is read."""
        self._reader.join(PATIENCE_SECONDS)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, pid = line.split()
            self._lines.put((word, int(pid)))
        self._lines.put(None)


@contextmanager
def family(mode: str = "polite", *, count: int = 2, grace: float = 20.0) -> Iterator[tuple[Family, list[int]]]:
    """Start a supervisor; give it and the process ids of its children once all are ready."""
    command = [sys.executable, "-c", SUPERVISOR, CHILD, mode, str(count), str(grace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        seen: list[int] = []
        one = Family(process)
        try:
            seen = one.hears("ready", count)
            yield one, seen
        finally:
            process.kill()
            for pid in seen:
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
            one.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_child_is_replaced_and_its_siblings_keep_running():
    with family(count=3) as (one, children):
        os.kill(children[1], signal.SIGKILL)
        assert one.hears("buried") == [children[1]]
        (replacement,) = one.hears("ready")
        assert replacement not in children
        one.signal(signal.SIGTERM)
        assert set(one.hears("terminated", 3)) == {children[0], children[2], replacement}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_everybody_in_good_order(number: signal.Signals):
    with family(count=3) as (one, children):
        one.signal(number)
        assert set(one.hears("terminated", 3)) == set(children)
        assert one.hears("over") == [one.process.pid]
        assert one.hears_to_the_end() == []
        assert one.process.wait(PATIENCE_SECONDS) == 0


def test_a_signal_from_the_terminal_reaches_the_supervisor_only():
    with family() as (one, children):
        sessions = {os.getsid(pid) for pid in children}
        assert os.getsid(one.process.pid) not in sessions
        assert sessions == set(children)


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_period():
    with family("stubborn", grace=1.0) as (one, children):
        begun = monotonic()
        one.signal(signal.SIGTERM)
        assert set(one.hears("ignored", 2)) == set(children)
        assert one.hears("over")
        assert monotonic() - begun >= 1.0
        assert one.hears_to_the_end() == []
        assert one.process.wait(PATIENCE_SECONDS) == 0


def test_a_second_signal_ends_everybody_at_once_and_each_signal_says_what_it_means(capfd: pytest.CaptureFixture[str]):
    with family("stubborn", grace=1000.0) as (one, children):
        one.signal(signal.SIGTERM)
        assert set(one.hears("ignored", 2)) == set(children)
        one.signal(signal.SIGTERM)
        assert one.hears("over")
        assert one.hears_to_the_end() == []
    said = capfd.readouterr().err
    first = said.index("Finishing what is in hand, 1000 s at most; Ctrl-C again ends at once.")
    second = said.index("Ended at once: messages in flight (at most 20 a connection) may be sent twice, or are held.")
    assert first < second


def test_children_end_when_their_supervisor_is_killed():
    with family() as (one, children):
        one.signal(signal.SIGKILL)
        assert set(one.hears("terminated", 2)) == set(children)
        assert one.hears_to_the_end() == []


def test_a_child_whose_supervisor_is_gone_already_ends_at_once():
    orphan = subprocess.run([sys.executable, "-c", CHILD, "polite", "1"], check=False, timeout=PATIENCE_SECONDS)
    assert orphan.returncode == -signal.SIGTERM


# With a clock of the test's own


@contextmanager
def supervised(script: str) -> Iterator[Supervisor]:
    supervisor = Supervisor(
        [sys.executable, "-c", script], count=1, environment=os.environ, grace_seconds=0.0, on_death=lambda _: None
    )
    try:
        yield supervisor
    finally:
        supervisor.stop()


def runs(supervisor: Supervisor, now: float) -> bool:
    """Tend the children at this time; whether one was started. It has ended when this returns."""
    supervisor.tend(now)
    process = supervisor._children[0].process
    if process is None:
        return False
    process.wait(PATIENCE_SECONDS)
    return True


def test_a_child_that_dies_at_its_start_is_started_again_ever_more_slowly():
    with supervised("raise SystemExit(3)") as supervisor:
        assert runs(supervisor, 0.0)
        assert runs(supervisor, 1.0)
        assert not runs(supervisor, 2.0)
        assert not runs(supervisor, 2.4)
        assert runs(supervisor, 2.5)
        assert not runs(supervisor, 3.0)
        assert not runs(supervisor, 3.9)
        assert runs(supervisor, 4.0)


def test_a_child_that_lived_for_a_while_is_started_again_at_once():
    with supervised("") as supervisor:
        assert runs(supervisor, 0.0)
        assert runs(supervisor, 1.0)
        assert not runs(supervisor, 1.5)
        assert runs(supervisor, 2.0)
        assert runs(supervisor, 2.0 + HEALTHY_SECONDS + 0.1)


def test_a_child_that_a_real_time_signal_ended_is_started_again():
    with supervised(f"import os; os.kill(os.getpid(), {signal.SIGRTMIN + 6})") as supervisor:
        assert runs(supervisor, 0.0)
        assert runs(supervisor, 1.0)


def test_a_child_that_cannot_be_started_is_tried_again():
    with supervised("") as supervisor:
        supervisor._command = ["/nowhere/python"]
        supervisor.tend(0.0)
    assert supervisor.family.children[0].not_started_since == 0.0


# What it knows of its children

SAYS = """
import os, sys
from tocsin_workers.process.signs_of_life import SIGNS_VARIABLE
os.write(int(os.environ[SIGNS_VARIABLE]), {said!r})
{then}
"""


def test_what_a_child_says_is_known_until_it_ends():
    with supervised(SAYS.format(said=b"lw", then="")) as supervisor:
        assert supervisor.family.children == ()
        supervisor.tend(10.0)
        (child,) = supervisor.family.children
        assert (child.is_running, child.came_up, child.takes_work, child.silent_since) == (True, False, False, 10.0)
        process = supervisor._children[0].process
        assert process is not None
        process.wait(PATIENCE_SECONDS)
        assert runs(supervisor, 11.0)
        (child,) = supervisor.family.children
        assert child.came_up
        assert not child.takes_work  # the one that said so has ended
        assert supervisor.family.restarts == 1


def test_a_child_that_falls_silent_is_known_to_be_silent():
    with supervised(SAYS.format(said=b"w", then="import signal; signal.pause()")) as supervisor:
        supervisor.tend(10.0)
        signs = supervisor._children[0].signs
        assert signs is not None
        assert select.select([signs], [], [], PATIENCE_SECONDS)[0]
        supervisor.tend(20.0)
        supervisor.tend(500.0)
        (child,) = supervisor.family.children
        assert (child.is_running, child.takes_work, child.silent_since) == (True, True, 20.0)


def test_a_child_that_says_what_nobody_understands_gives_no_sign():
    with supervised(SAYS.format(said=b"?", then="")) as supervisor:
        assert runs(supervisor, 0.0)
        assert runs(supervisor, 1.0)
        assert not supervisor.family.children[0].came_up
