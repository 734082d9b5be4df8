"""The sweeper's first look: does the ledger still live where it did? If not, nothing is sent until a person has looked.

Nobody can claim anything meanwhile (`sending_is_allowed`), so nothing depends on how soon the sweeper comes by.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, assert_never

import structlog

from tocsin_schema.ledger import sending_halt
from tocsin_schema.ledger.sending_halt import RESTORED_REASON, HaltCause, HaltNews, Whereabouts

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.connection import Connection

_log = structlog.get_logger(__name__)


async def watch_origin(connection: Connection) -> None:
    """Halt all sending where the ledger was restored, go on where a standby took over, and note that it was alive.

    What people did about a halt is told in the log, once by all pods: that it was alive is noted with it.
    """
    place = await sending_halt.read_place(connection)
    match place.whereabouts:
        case Whereabouts.SAME:
            news = await sending_halt.read_halt_news(connection)
            if place.is_to_be_noted or news:
                await sending_halt.note_seen(connection, news)
            for halt in news:
                _tell(halt)
        case Whereabouts.FAILED_OVER:
            await sending_halt.adopt_origin(connection)
            _log.warning(
                "another server took over as the ledger; what was written in its last seconds may be missing, and mail "
                "of these seconds may go out twice",
                timeline=place.current.timeline,
            )
        case Whereabouts.RESTORED:
            if place.halted_for is not HaltCause.RESTORED and await sending_halt.halt_restored(connection):
                _log.error("all sending is halted", reason=RESTORED_REASON, fix="then let it go on: `tocsin resume`")
        case _:
            assert_never(place.whereabouts)


def _tell(halt: HaltNews) -> None:
    """Tell who halted all sending by hand, and who let it go on; a restored ledger was told of when it was found."""
    if halt.is_new and halt.cause is HaltCause.BY_HAND:
        _log.info("all sending was halted", by=halt.actor, at=_moment(halt.halted_at), reason=halt.reason)
    if halt.lifted_at is not None:
        _log.info(
            "sending goes on",
            by=halt.lifted_by,
            at=_moment(halt.lifted_at),
            halted_by=halt.actor,
            halted_at=_moment(halt.halted_at),
            reason=halt.reason,
        )


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
