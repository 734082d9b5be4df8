"""When a part was published, as its message tells: for measuring only, since anybody may write anything there. Pure.

AMQP's property `timestamp` counts seconds (AMQP 0-9-1 section 4.2.5.4). RabbitMQ's own interceptor and plugin
add a header with milliseconds (https://www.rabbitmq.com/docs/message-interceptors), which we write and read too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER: Final = "timestamp_in_ms"

_MILLISECONDS: Final = 1000
#: From 2000 to the end of the year 9998: what lies outside is no time at which somebody published something.
_EARLIEST: Final = 946_684_800_000
_LATEST: Final = 253_370_764_800_000


def published_ms(timestamp: object, headers: Mapping[str, object] | None) -> int | None:
    """Read the time from a message's properties, in milliseconds since 1970; None where it has none. Never raises."""
    told = (headers or {}).get(HEADER)
    if _is_count(told):
        return int(told)  # pika gives an integer of its own kind
    return timestamp * _MILLISECONDS if _is_count(timestamp) else None


def moment(milliseconds: int | None) -> datetime | None:
    """Give the time; None where there is none, or none that could be meant."""
    if milliseconds is None or not _EARLIEST <= milliseconds < _LATEST:
        return None
    return datetime.fromtimestamp(milliseconds / _MILLISECONDS, tz=UTC)


def properties_at(now: float) -> tuple[int, dict[str, int | str]]:
    """Give `timestamp` and the header for a message that is published at `now` (`time.time`)."""
    return int(now), {HEADER: int(now * _MILLISECONDS)}


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
