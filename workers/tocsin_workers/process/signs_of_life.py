"""How a worker process tells its supervisor that it lives, and whether it takes work: a byte on a pipe, every second.

The bytes come from the process's event loop. Silence therefore says that the loop is stuck, or the process frozen; a
ledger or a message broker that is away says nothing of the kind.
"""

from __future__ import annotations

import os
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, MutableMapping

#: The environment variable that names the pipe's file descriptor; set by the supervisor for its child only.
SIGNS_VARIABLE: Final = "TOCSIN_SIGNS_OF_LIFE_FD"
SIGN_EVERY_SECONDS: Final = 1.0


class Sign(Enum):
    """What a worker process says of itself."""

    LIVES = b"l"
    """Its event loop turns; it waits for something before it can take work."""
    TAKES_WORK = b"w"

    @classmethod
    def of(cls, byte: bytes) -> Sign | None:
        """Read a byte; None where it means nothing."""
        with suppress(ValueError):
            return cls(byte)
        return None


def signs_descriptor(environment: MutableMapping[str, str]) -> int | None:
    """Take the pipe out of the environment, so that no process of ours inherits it; None where there is none."""
    text = environment.pop(SIGNS_VARIABLE, "")
    if not text.isdecimal():
        return None
    descriptor = int(text)
    try:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no name
        os.set_blocking(descriptor, False)
    except OSError:
        return None
    return descriptor


def give_signs(loop: asyncio.AbstractEventLoop, descriptor: int | None, takes_work: Callable[[], bool]) -> None:
    """Begin to tell, and go on until the loop ends. Call it in the loop's own thread."""
    if descriptor is None:
        return

    def say() -> None:
        sign = Sign.TAKES_WORK if takes_work() else Sign.LIVES
        # A supervisor that is stuck does not read: what it would have heard is said again soon.
        with suppress(OSError):
            os.write(descriptor, sign.value)
        loop.call_later(SIGN_EVERY_SECONDS, say)

    say()
