"""The token broker's work: what its actor does when it is woken, and what it does by itself from time to time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tocsin_schema.errors import SealError, TokenError
from tocsin_workers.tokens import refreshing
from tocsin_workers.tokens.refreshing import Want

if TYPE_CHECKING:
    from tocsin_schema.ledger.access_tokens import TokenKey
    from tocsin_workers.tokens.single_flight import TokenSource

#: A token that no sender used for so long is left to expire.
USED_WITHIN_SECONDS = 3600.0
#: Profiles whose endpoints are asked at the same time.
CONCURRENT_REFRESHES = 8

_log = logging.getLogger(__name__)


async def refresh(source: TokenSource, key: TokenKey) -> bool:
    """See to it that a key has a token that is not due; False where that failed.

    Why it failed stands in the row, for those who wait. The errors of a Postgres that is away pass through.
    """
    try:
        await source.obtain(key, want=Want.FRESH)
    except TokenError:
        return False  # recorded, and logged where it was
    except SealError as error:
        _tell_once(source, key, str(error))
        return False
    source.told_of_seals.pop(key, None)
    return True


async def refresh_due(source: TokenSource, *, used_within_seconds: float = USED_WITHIN_SECONDS) -> int:
    """Refresh the tokens that are due ahead of their expiry and were used lately; give how many were tried.

    Call it every few seconds; a call that overlaps another one costs a look at the ledger and no more.
    """
    rows = await source.used_lately(within_seconds=used_within_seconds)
    due = [row.key for row in rows if refreshing.is_due(row)]
    room = asyncio.Semaphore(CONCURRENT_REFRESHES)

    async def refresh_one(key: TokenKey) -> None:
        async with room:
            await refresh(source, key)

    # Not a task group: where one key meets a Postgres that is away, the others' requests go on to their end.
    ended = await asyncio.gather(*(refresh_one(key) for key in due), return_exceptions=True)
    for failure in ended:
        if isinstance(failure, BaseException):
            raise failure
    return len(due)


def _tell_once(source: TokenSource, key: TokenKey, reason: str) -> None:
    """Log it once and not every few seconds: it stays so until the master keys are changed."""
    if source.told_of_seals.get(key) != reason:
        source.told_of_seals[key] = reason
        _log.error("no access token: %s", reason, extra={"oauth_profile_id": str(key.profile_id)})
