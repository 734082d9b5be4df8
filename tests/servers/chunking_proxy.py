"""A TCP proxy that hands octets on in other pieces than they came in: SMTP knows no pieces, and nothing may change."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

_QUIET_SECONDS = 0.002


class Chunks(Enum):
    """In what pieces octets are handed on, in both directions."""

    ONE_OCTET = "one octet"
    RANDOM = "random"
    """Now an octet or a few, now all there is."""
    ALL_AT_ONCE = "all at once"
    """What has been gathered when nothing more comes for a moment."""


@asynccontextmanager
async def chunking_proxy(host: str, port: int, chunks: Chunks, *, seed: int = 0) -> AsyncGenerator[int]:
    """Run a proxy to this server in the event loop of the test; give its port on 127.0.0.1."""
    chance = random.Random(seed)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        there, back = await asyncio.open_connection(host, port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, back, chunks, chance))
                both.create_task(_pump(there, writer, chunks, chance))
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            back.transport.abort()
            writer.transport.abort()
            serving.discard(task)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in list(serving):
            task.cancel()
        if serving:
            await asyncio.wait(list(serving))


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunks: Chunks, chance: random.Random
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            whole = await _gathered(reader, data) if chunks is Chunks.ALL_AT_ONCE else data
            for piece in _cut(whole, chunks, chance):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        writer.write_eof()


async def _gathered(reader: asyncio.StreamReader, data: bytes) -> bytes:
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(_QUIET_SECONDS):
                more = await reader.read(1 << 16)
            if not more:
                break
            data += more
    return data


def _cut(data: bytes, chunks: Chunks, chance: random.Random) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        match chunks:
            case Chunks.ONE_OCTET:
                size = 1
            case Chunks.RANDOM:
                size = chance.choice((1, 2, 3, 5, 17, 100, 1000, len(data)))
            case Chunks.ALL_AT_ONCE:
                size = len(data)
        yield data[start : start + size]
        start += size
