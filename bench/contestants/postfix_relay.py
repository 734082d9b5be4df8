"""Postfix as a relay: smtp-source hands the mail in, and Postfix's own queue and log are what is kept of it."""

from __future__ import annotations

import subprocess
import time
from typing import Final

from bench.contestants.contestant import Contestant, MailServer
from bench.mail import BATCH_SIZE, SENDER, SHARED_TEXT, Load, Mode
from bench.servers import required
from tests.servers.postfix import PostfixRelay, from_debian

#: Sessions of who hands the mail in.
SOURCE_SESSIONS: Final = 20

_POLL_SECONDS: Final = 0.02
_LEAST_RATE: Final = 20


class Postfix(Contestant):
    """An instance of its own, tuned to take in what comes and to open all its connections at once; as root only."""

    name = "postfix"

    def __init__(self, mail_server: MailServer) -> None:
        """Fetch Postfix. RuntimeError where it is not to be had."""
        self._unpacked = required(from_debian())
        self._relay_to = (mail_server.host, mail_server.port)
        self._relay: PostfixRelay | None = None

    def start(self) -> None:
        self._relay = PostfixRelay(self._unpacked, relay=self._relay_to)
        self._relay.__enter__()

    def send(self, load: Load) -> None:
        assert self._relay is not None
        before = self._relay.delivered()
        size = 1 if load.mode is Mode.INDIVIDUAL else BATCH_SIZE
        source = [
            self._unpacked / "usr/sbin/smtp-source", "-s", str(min(SOURCE_SESSIONS, load.messages)), "-d",
            "-m", str(load.messages), "-r", str(size), "-l", str(len(SHARED_TEXT)),
            "-f", SENDER, "-t", f"{load.tag}@campus.example", f"{self._relay.host}:{self._relay.port}",
        ]  # fmt: skip
        libraries = {"LD_LIBRARY_PATH": str(self._unpacked / "usr/lib/postfix")}
        subprocess.run(source, env=libraries, check=True, capture_output=True)
        expected = before + load.messages * size
        deadline = time.monotonic() + 60 + load.recipients / _LEAST_RATE
        while not (self._relay.is_empty() and self._relay.delivered() == expected):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Postfix delivered {self._relay.delivered() - before} of {load.messages * size}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        if self._relay is not None:
            self._relay.stop()
            self._relay = None

    def groups(self) -> dict[str, list[int]]:
        return {} if self._relay is None else {"postfix": [self._relay.process_id]}
