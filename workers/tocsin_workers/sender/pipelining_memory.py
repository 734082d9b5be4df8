"""How boldly to pipeline at a mailbox's server: what the profile wants, less what the fleet has seen it break on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_workers.smtp.pipelining import Pipelining, PipeliningRecord

if TYPE_CHECKING:
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.smtp.pipelining import PipeliningWatch


class PipeliningMemory:
    """Doubts stay with this process, what they came to goes into the ledger. Belongs to one event loop."""

    def __init__(self) -> None:
        self._records: dict[int, PipeliningRecord] = {}

    def form_for(self, profile: SenderProfile) -> Pipelining:
        """Give the form in which to begin a session: the ledger's word counts, with this process's doubts."""
        known = Pipelining.FULL if profile.learned_pipelining is None else Pipelining(profile.learned_pipelining)
        record = self._records.get(profile.mailbox_id, PipeliningRecord())
        if record.boldest is not known:
            # Somebody else has learned it, or the day is over for which it was believed.
            record = PipeliningRecord(known)
        self._records[profile.mailbox_id] = record
        return record.allowed(Pipelining(profile.pipelining))

    def after(self, mailbox_id: int, seen: PipeliningWatch) -> Pipelining | None:
        """Take note of a session that has ended; give what is to be remembered for the fleet, mostly nothing."""
        before = self._records.get(mailbox_id, PipeliningRecord())
        record = self._records[mailbox_id] = before.after(seen)
        return None if record.boldest is before.boldest else record.boldest
