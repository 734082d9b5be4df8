"""`tocsin` commands for tests: each is a process of its own, forked from one that has loaded all of their code.

To begin Python and to load the code takes a command several times as long as what it is to do.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_SECONDS: Final = 120.0
_ROOT: Final = Path(__file__).parents[2]


def run(
    arguments: Sequence[str], *, environment: Mapping[str, str], given: str | None
) -> subprocess.CompletedProcess[str]:
    """Run a `tocsin` command; `given` is its standard input. Raises TimeoutError after `TIMEOUT_SECONDS`."""
    asking, answering = socket.socketpair()
    with (
        asking,
        tempfile.TemporaryFile("w+") as stdin,
        tempfile.TemporaryFile("w+") as stdout,
        tempfile.TemporaryFile("w+") as stderr,
    ):
        stdin.write(given or "")
        stdin.seek(0)
        with answering:
            streams = (stdin, stdout, stderr)
            socket.send_fds(_loaded(), [b"!"], [answering.fileno(), *(stream.fileno() for stream in streams)])
        asking.sendall(json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode())
        asking.shutdown(socket.SHUT_WR)
        asking.settimeout(TIMEOUT_SECONDS)
        with asking.makefile() as told:
            command_id = int(told.readline())
            try:
                code = int(told.readline())
            except TimeoutError:
                os.kill(command_id, signal.SIGKILL)
                raise
        for stream in (stdout, stderr):
            stream.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, stdout.read(), stderr.read())


@cache
def _loaded() -> socket.socket:
    """Start the process that loads the code; it ends when this one does."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=_ROOT, stdin=theirs.fileno(), stdout=subprocess.DEVNULL
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve() -> None:
    """Fork for each command that is asked for, until nobody can ask any more."""
    import tocsin_console.commands  # only this process loads them

    for module in pkgutil.iter_modules(tocsin_console.commands.__path__):
        importlib.import_module(f"{tocsin_console.commands.__name__}.{module.name}")
    gc.freeze()  # what is loaded stays on pages that all of them share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    asked = socket.socket(fileno=0)
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, 1, 4)
        if not message:
            return
        if os.fork() == 0:
            asked.close()
            _answer(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _answer(answering: int, *streams: int) -> None:
    """Run one command, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=answering) as connection:
        with connection.makefile() as asked:
            command = json.load(asked)
        if (command_id := os.fork()) == 0:
            connection.close()
            _become(command["arguments"], command["environment"], streams)
        connection.sendall(f"{command_id}\n".encode())
        _, status = os.waitpid(command_id, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> None:
    from tocsin_console.main import run as run_command

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = ["tocsin", *arguments]
    run_command()


if __name__ == "__main__":
    _serve()
