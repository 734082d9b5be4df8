"""What this process sends, counted by the mailbox until the ledger is told: nothing where it is idle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.ledger.traffic import BUCKET_SECONDS, Counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(slots=True)
class _Tally:
    """What was counted of a mailbox since it was last told, and when that began, by a monotonic clock."""

    began_at: float
    messages: int = 0
    recipients: int = 0


class Traffic:
    """Counts what servers accept. Belongs to one event loop."""

    def __init__(self) -> None:
        self._tallies: dict[int, _Tally] = {}

    def count(self, mailbox_id: int, *, recipients: int, now: float, messages: int = 1) -> None:
        """Count messages that a server has accepted, or may have; `now` is on a monotonic clock."""
        tally = self._tallies.get(mailbox_id)
        if tally is None:
            tally = self._tallies[mailbox_id] = _Tally(now)
        tally.messages += messages
        tally.recipients += recipients

    def take(self, open_sessions: Mapping[int, int], now: float) -> list[Counted]:
        """Give what is to be told, and count anew; `open_sessions` is how many are open by the mailbox."""
        tallies, self._tallies = self._tallies, {}
        quiet = _Tally(now)
        counted: list[Counted] = []
        for mailbox_id in tallies.keys() | open_sessions.keys():
            tally = tallies.get(mailbox_id, quiet)
            busy = min(BUCKET_SECONDS, now - tally.began_at)
            sessions = open_sessions.get(mailbox_id, 0)
            counted.append(Counted(mailbox_id, tally.messages, tally.recipients, sessions, busy))
        return counted

    def put_back(self, counted: Iterable[Counted], now: float) -> None:
        """Count again what could not be told: the ledger was away."""
        for one in counted:
            if one.messages:
                tally = self._tallies.setdefault(one.mailbox_id, _Tally(now - one.busy_seconds))
                tally.messages += one.messages
                tally.recipients += one.recipients
