"""A Postgres of the suite's own, which it stops as a crash would; what was committed is there when it comes back."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_console.embedded import EmbeddedPostgres
from tocsin_console.embedded.postmaster import is_alive, recorded_postmaster

_POLL_SECONDS = 0.02


class Cluster:
    """An embedded Postgres with its usual settings: every commit is on the disk."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="tocsin-test-faults-"))
        self._directory.chmod(0o711)  # under root the server runs as another user, who must pass through
        self._postgres = EmbeddedPostgres(self._directory)
        self.url = self._postgres.start()

    def stop_at_once(self) -> None:
        """Do what `pg_ctl stop -m immediate` does, and see the server gone."""
        data = self._postgres.home / "data"
        postmaster = recorded_postmaster(data)
        assert postmaster is not None
        os.kill(postmaster.pid, signal.SIGQUIT)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while is_alive(postmaster, data):
            assert time.monotonic() < deadline, "Postgres does not stop"
            time.sleep(_POLL_SECONDS)

    def start(self) -> None:
        """Start it again, where it was."""
        assert self._postgres.start() == self.url

    def destroy(self) -> None:
        """Stop it and remove its files."""
        self._postgres.destroy()
        shutil.rmtree(self._directory)
