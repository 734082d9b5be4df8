"""The servers that contestants share: Postgres that waits for the disk, RabbitMQ, and Postfix's mail sink.

Each starts when it is first asked for, as a private instance; all end with the `with` statement.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import psutil

from tests.servers.availability import Unavailable
from tests.servers.postfix import SmtpSink, from_debian
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitmqNode
from tocsin_console.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from types import TracebackType

Found = TypeVar("Found")
Entered = TypeVar("Entered")


def required(found: Found | Unavailable) -> Found:
    """Give what was found. RuntimeError with the reason where it is not to be had."""
    if isinstance(found, Unavailable):
        raise RuntimeError(found.reason)  # noqa: TRY004 - not a wrong type but a missing server
    return found


class Servers:
    """Real servers with their default durability; a context manager, to be used from the main thread."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.roots: dict[str, list[int]] = {}
        """The root processes of those that run, by name; whoever enters one may add its own."""

    def enter(self, server: AbstractContextManager[Entered]) -> Entered:
        """Start a server that ends with the others."""
        return self._stack.enter_context(server)

    @cached_property
    def directory(self) -> Path:
        """A directory for whatever contestants keep."""
        return Path(self.enter(tempfile.TemporaryDirectory(prefix="tocsin-bench-")))

    @cached_property
    def postgres(self) -> PostgresServer:
        """A Postgres with fsync and synchronous commits."""
        directory = Path(tempfile.mkdtemp(prefix="tocsin-bench-postgres-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o711)  # under root the server runs as another user, who must pass through
        embedded = EmbeddedPostgres(directory)
        self._stack.callback(embedded.destroy)
        server = PostgresServer(embedded.start(), embedded, None)
        self.roots["postgres"] = [int((embedded.home / "data" / "postmaster.pid").read_text().split()[0])]
        return server

    @cached_property
    def rabbitmq(self) -> RabbitmqNode:
        """A RabbitMQ node of our own."""
        node = required(RabbitmqNode.obtain_own())
        self._stack.callback(node.stop)
        assert node.server is not None
        self.roots["rabbitmq"] = [node.server.pid]
        return node

    @cached_property
    def sink(self) -> SmtpSink:
        """Postfix's `smtp-sink`."""
        sink = self.enter(SmtpSink(required(from_debian())))
        self.roots["sink"] = [sink.process_id]
        return sink

    def groups(self) -> dict[str, list[int]]:
        """Give the root processes of the servers that run, by name."""
        return {name: [root for root in roots if psutil.pid_exists(root)] for name, roots in self.roots.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
