"""Waiting for a person who signs in at another screen (RFC 8628 section 3.5), with a clock that tests can turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.device_sign_in import Undecided

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tocsin_workers.tokens.device_sign_in import DeviceCode, SignedIn

SLOW_DOWN_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0
"""Between polls while the endpoint is away; the standard wants the pauses to grow."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The time in seconds, and how to let some of it go by."""

    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


async def wait_for_decision(
    poll: Callable[[], Awaitable[SignedIn | Undecided]], code: DeviceCode, clock: Clock
) -> SignedIn | Undecided:
    """Poll until the person has decided or the code has expired; give who signed in, DECLINED or EXPIRED.

    An endpoint that is away for a while is asked again. Raises TokenError where it refuses for good, or is still
    away when the code expires.
    """
    ends_at = clock.now() + code.expires_in_seconds
    interval = pause = code.interval_seconds
    while (left := ends_at - clock.now()) > 0:
        await clock.sleep(min(pause, left))
        try:
            found = await poll()
        except TokenError as error:
            pause = _pause_after_failure(error, pause)
            if error.permanent or clock.now() >= ends_at:
                raise
            continue
        match found:
            case Undecided.PENDING:
                pass
            case Undecided.SLOW_DOWN:
                interval += SLOW_DOWN_SECONDS
            case _:
                return found
        pause = interval
    return Undecided.EXPIRED


def _pause_after_failure(error: TokenError, pause: float) -> float:
    return max(min(pause * 2, LONGEST_PAUSE_SECONDS), error.retry_after or 0.0)
