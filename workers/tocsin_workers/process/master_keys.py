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
        if self._sealer is None:
            return False
        is_changed = self._watch.has_changed()
        # A file that was moved away and back looks as it did before, and has stopped the sealing meanwhile.
        if not is_changed and not self._sealer.is_overtaken:
            return False
        try:
            await self.prove(pool)
        except SealError as error:
            if is_changed:
                self._tell(str(error))
            return False
        return True

    async def prove(self, pool: Pool) -> None:
        """Read the key file, try its keys on the ledger, and use them.

        Raises SealError where they do not fit: what was in use stays. The errors of a Postgres that is away pass
        through.
        """
        assert self._sealer is not None
        watch = KeyFileWatch(self._settings)
        async with pool.connection() as connection:
            proved = await load_sealer(connection, self._settings)
        if proved.keyring != self._sealer.keyring:
            _log.info("master keys read again", keys=list(proved.keyring.ids))
        self._sealer.use(proved.keyring)
        self._watch, self._refusal = watch, None

    def stop_sealing(self) -> None:
        """Seal nothing until the keys have been proved: the one that seals here may be retired."""
        if self._sealer is not None:
            self._sealer.stop_sealing()

    def _tell(self, refusal: str) -> None:
        if refusal != self._refusal:
            _log.error("the changed master key file is not used", reason=refusal)
        self._refusal = refusal
