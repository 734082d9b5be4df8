"""Ctrl-C ends the demo wherever it comes, also in the middle of a line that is being written."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from tocsin_console.demo import tour
from tocsin_console.output import say


class Interrupted(io.StringIO):
    """A standard error during whose first write Ctrl-C comes; like the real one it lets nobody in twice."""

    is_busy = False

    def write(self, text: str, /) -> int:
        if self.is_busy:
            raise RuntimeError("reentrant call")
        self.is_busy = True
        signal.raise_signal(signal.SIGINT)
        return len(text)


def test_ctrl_c_in_the_middle_of_a_line_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Interrupted())
    with pytest.raises(KeyboardInterrupt), tour._signals_as_interrupts():
        say("$ tocsin send")
