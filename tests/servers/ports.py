"""Ports for servers that are told theirs before they listen."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from random import SystemRandom
from typing import Final

#: Below those that Linux gives to whoever connects (ip(7), ip_local_port_range): tests beside these open thousands of
#: connections, and one of them would sooner or later have the port that was free a moment ago.
_PORTS: Final = range(20_000, 32_000)
_RANDOM: Final = SystemRandom()


def free_port() -> int:
    """Give a port that nobody listens on."""
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Give so many ports that nobody listens on."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < number:
            listener = held.enter_context(socket.socket())
            port = _RANDOM.choice(_PORTS)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found
