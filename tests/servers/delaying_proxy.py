"""A TCP proxy that holds back every byte for a while, as a long way does; a process of its own.

What arrives together leaves together, in order, never early and at most a millisecond or two late. Connecting itself
takes no time: the first byte is delayed, not the handshake.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Final, cast

import uvloop

from tests.servers.module_server import ModuleServer

#: Octets on their way, of one connection in one direction, at which the proxy stops reading.
_MOST_ON_THE_WAY: Final = 8 * 1024 * 1024


class DelayingProxy(ModuleServer):
    """Runs while its `with` statement does: `host` and `port` lead to `server`, each way `seconds` longer."""

    module = "tests.servers.delaying_proxy"

    def __init__(self, server: tuple[str, int], *, seconds: float) -> None:
        super().__init__(*server, seconds)


# The proxy's process


class Direction:
    """What is on its way from one side to the other; `None` is the end of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, source: asyncio.Transport) -> None:
        self._loop = loop
        self._seconds = seconds
        self._source = source
        self._target: asyncio.Transport | None = None
        self._on_the_way: deque[tuple[float, bytes | None]] = deque()
        self._octets = 0
        self._timer: asyncio.TimerHandle | None = None

    def lead_to(self, target: asyncio.Transport) -> None:
        """Say where it leads; what came before waits."""
        self._target = target
        self._arrive()

    def take(self, data: bytes | None) -> None:
        """Take what the source sent now."""
        self._on_the_way.append((self._loop.time() + self._seconds, data))
        self._octets += len(data or b"")
        if self._octets > _MOST_ON_THE_WAY:
            self._source.pause_reading()
        if self._timer is None:
            self._arrive()

    def _arrive(self) -> None:
        """Hand over what is due, and come again for the rest."""
        self._timer = None
        if self._target is None or self._target.is_closing():
            return
        now = self._loop.time()
        due: list[bytes] = []
        is_end = False
        while self._on_the_way and self._on_the_way[0][0] <= now:
            data = self._on_the_way.popleft()[1]
            is_end = data is None
            due.append(data or b"")
        self._octets -= sum(map(len, due))
        if due:
            self._target.write(b"".join(due))
            if not self._source.is_closing() and self._octets <= _MOST_ON_THE_WAY:
                self._source.resume_reading()
        if is_end:
            self._target.close()
        elif self._on_the_way:
            self._timer = self._loop.call_at(self._on_the_way[0][0], self._arrive)


class Side(asyncio.Protocol):
    """One connection; `Entrance` and the connection behind it are a pair."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.transport: asyncio.Transport
        self.outward: Direction

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        self.outward = Direction(asyncio.get_running_loop(), self._seconds, self.transport)

    def data_received(self, data: bytes) -> None:
        self.outward.take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.outward.take(None)


class Entrance(Side):
    """A client's connection, for which one to the server is opened."""

    def __init__(self, server: tuple[str, int], seconds: float) -> None:
        super().__init__(seconds)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, behind = await loop.create_connection(lambda: Side(self._seconds), *self._server)
        except OSError:
            self.transport.abort()
            return
        self.outward.lead_to(behind.transport)
        behind.outward.lead_to(self.transport)


async def serve(server: tuple[str, int], seconds: float) -> None:
    """Listen on a free port, say which, and serve until killed."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Entrance(server, seconds), DelayingProxy.host, 0, backlog=1000)
    print(listener.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - its parent reads it
    await listener.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])))
