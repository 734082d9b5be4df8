"""The master keys of a worker process: read again when their file changes, so that a rotation needs no restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from tocsin_schema.errors import SealError
from tocsin_schema.sealing import KeyFileWatch, load_sealer

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection, Pool
    from tocsin_schema.sealing import Sealer
    from tocsin_schema.settings import Settings

_log = structlog.get_logger(__name__)


class ProcessKeys:
    """What this process seals and opens with, as its key file stands."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watch = KeyFileWatch(settings)
        self._sealer: Sealer | None = None
        self._refusal: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys that are open, the one that seals first; none before they were loaded."""
        return () if self._sealer is None else self._sealer.keyring.ids

    async def load(self, connection: Connection) -> Sealer:
        """Read the keys for the first time and try them on the ledger. Raises SealError, LedgerError."""
        self._watch = KeyFileWatch(self._settings)
        self._sealer = await load_sealer(connection, self._settings)
        return self._sealer

    async def renew(self, pool: Pool) -> bool:
        """Use the keys of a file that has changed, and say whether that was done.

        A file that does not fit the ledger is told once and not used; it is tried again until it fits. The errors of a
        Postgres that is away pass through.
        """
        if self._sealer is None or not self._watch.has_changed():
            return False
        watch = KeyFileWatch(self._settings)
        try:
            async with pool.connection() as connection:
                changed = await load_sealer(connection, self._settings)
        except SealError as error:
            self._tell(str(error))
            return False
        self._sealer.use(changed.keyring)
        self._watch, self._refusal = watch, None
        _log.info("master keys read again", keys=list(self.ids))
        return True

    def _tell(self, refusal: str) -> None:
        if refusal != self._refusal:
            _log.error("the changed master key file is not used", reason=refusal)
        self._refusal = refusal
