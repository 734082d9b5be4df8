"""The raw client, the ceiling: pipelined SMTP on uvloop, ready-made bytes, no queue and no record."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bench.contestants.client_process import ClientProcess

if TYPE_CHECKING:
    from pathlib import Path

    from bench.contestants.contestant import MailServer


class Raw(ClientProcess):
    """`envelope`: two round trips a message; `full`: a message's body and the next one's envelope in one flight."""

    def __init__(self, mail_server: MailServer, *, connections: int = 20, pipelining: str = "envelope") -> None:
        super().__init__()
        self._mail_server = mail_server
        self._connections = connections
        self._pipelining = pipelining
        self.name = "raw" if pipelining == "envelope" else f"raw-{pipelining}"

    def command(self) -> list[Path | str]:
        return [sys.executable, "-m", "bench.contestants.raw_client"]

    def configuration(self) -> dict[str, Any]:
        return {
            "host": self._mail_server.host,
            "port": self._mail_server.port,
            "connections": self._connections,
            "full": self._pipelining == "full",
        }
