"""Why a part was dead-lettered, as the broker tells it. Pure."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Headers come from strangers: what is deeper, longer or more than this is cut.
_DEEPEST = 4
_LONGEST_TEXT = 1_000
_MOST_ENTRIES = 50


class Death(TypedDict):
    """What the dead-letter actor is told beside the part's bytes; plain JSON.

    `reason` is RabbitMQ's word: `rejected` (intake failed on it), `delivery_limit` (its consumers died),
    `expired`, `maxlen`, or `unknown` where the message was put into the dead-letter queue by hand. `queue` is
    where it was, `count` how often it died there.
    """

    reason: str
    queue: str | None
    count: int
    headers: dict[str, object]


def death_of(headers: Mapping[str, object] | None) -> Death:
    """Read RabbitMQ's `x-death` (https://www.rabbitmq.com/docs/dlx#effects), newest entry first.

    Never raises.
    """
    known = headers or {}
    newest = _newest(known.get("x-death"))
    return Death(
        reason=_text(newest.get("reason")) or _text(known.get("x-first-death-reason")) or "unknown",
        queue=_text(newest.get("queue")) or _text(known.get("x-first-death-queue")),
        count=_count(newest.get("count")),
        headers=_table(known, depth=0),
    )


def _newest(deaths: object) -> Mapping[str, object]:
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return cast("Mapping[str, object]", deaths[0])
    return {}


def _text(value: object) -> str | None:
    plain = _plain(value, depth=0)
    return plain if isinstance(plain, str) and plain else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def _table(table: Mapping[object, object] | Mapping[str, object], *, depth: int) -> dict[str, object]:
    entries = list(table.items())[:_MOST_ENTRIES]
    return {_clean(str(name)): _plain(value, depth=depth) for name, value in entries}


def _plain(value: object, *, depth: int) -> object:
    """Turn what AMQP can carry into what JSON and Postgres can."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, bytes | bytearray):
        return _clean(bytes(value).decode("utf-8", errors="replace"))
    if isinstance(value, datetime):
        return value.isoformat()
    if depth < _DEEPEST and isinstance(value, dict):
        return _table(cast("Mapping[object, object]", value), depth=depth + 1)
    if depth < _DEEPEST and isinstance(value, list):
        return [_plain(item, depth=depth + 1) for item in cast("Sequence[object]", value)[:_MOST_ENTRIES]]
    return _clean(str(value))


def _clean(text: str) -> str:
    """Drop what Postgres and JSON refuse: NUL and lone surrogates."""
    short = text[:_LONGEST_TEXT].replace("\x00", "")
    return short.encode("utf-8", errors="replace").decode("utf-8")
