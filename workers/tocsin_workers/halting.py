"""The sweeper's first look: does the ledger still live where it did? If not, nothing is sent until a person has looked.

Nobody can claim anything meanwhile (`sending_is_allowed`), so nothing depends on how soon the sweeper comes by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import structlog

from tocsin_schema.ledger import sending_halt
from tocsin_schema.ledger.sending_halt import RESTORED_REASON, HaltCause, Whereabouts

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection

_log = structlog.get_logger(__name__)


async def watch_origin(connection: Connection) -> None:
    """Halt all sending where the ledger was restored, go on where a standby took over, and note that it was alive."""
    place = await sending_halt.read_place(connection)
    match place.whereabouts:
        case Whereabouts.SAME:
            if place.is_to_be_noted:
                await sending_halt.note_seen(connection)
        case Whereabouts.FAILED_OVER:
            await sending_halt.adopt_origin(connection)
            _log.warning(
                "another server took over as the ledger; what was written in its last seconds may be missing, and mail "
                "of these seconds may go out twice",
                timeline=place.current.timeline,
            )
        case Whereabouts.RESTORED:
            if place.halted_for is not HaltCause.RESTORED and await sending_halt.halt_restored(connection):
                _log.error("all sending is halted", reason=RESTORED_REASON)
        case _:
            assert_never(place.whereabouts)
