"""One token request for the whole fleet: whoever needs a token asks here, in the token broker or in a sender.

The single flight is a lease in the token's row, on the database's clock, longer than the request's hard deadline.
No transaction and no connection is held while the endpoint is asked (`attempting`). Losers watch the row.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, assert_never

from pydantic import SecretStr

from tocsin_schema.errors import SealError, TokenError
from tocsin_schema.ledger import access_tokens
from tocsin_workers.tokens import refreshing
from tocsin_workers.tokens.access_token import AccessToken
from tocsin_workers.tokens.attempting import TokenAttempts, TokenRequest, profile_gone
from tocsin_workers.tokens.grants import grant_of
from tocsin_workers.tokens.refreshing import HoldOff, Refresh, Step, UseToken, WaitForRefresh, Want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tocsin_schema.ledger.access_tokens import TokenKey, TokenRow
    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.sealing import Sealer
    from tocsin_workers.tokens.grants.seam import Grant

REQUEST_DEADLINE_SECONDS = 8.0
LEASE_SECONDS = 12.0
#: Nobody waits longer for a token; two leases fit in, should a first holder die.
PATIENCE_SECONDS = 30.0
#: What a process that ends gives requests with refresh tokens: their deadline, and time to store what comes.
FINISH_SECONDS = REQUEST_DEADLINE_SECONDS + 2.0


def _unobserved(request: TokenRequest) -> None:
    del request


class TokenSource:
    """Tokens from the ledger, and from the endpoint where the ledger has none.

    `observe` is told of every request to a token endpoint. The errors of a Postgres that is away pass through. Whoever
    has made one calls `finish` before its pool is closed.
    """

    def __init__(
        self,
        pool: Pool,
        sealer: Sealer,
        *,
        observe: Callable[[TokenRequest], None] = _unobserved,
        grant_for: Callable[[OAuthProfile], Grant] = grant_of,
        request_deadline_seconds: float = REQUEST_DEADLINE_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._pool = pool
        self._sealer = sealer
        self._patience_seconds = patience_seconds
        self.told_of_seals: dict[TokenKey, str] = {}
        """By key, what was last logged of a secret that does not open here; until one does."""
        self._attempts = TokenAttempts(
            pool,
            sealer,
            observe=observe,
            grant_for=grant_for,
            deadline_seconds=request_deadline_seconds,
            lease_seconds=lease_seconds,
        )

    async def obtain(self, key: TokenKey, *, want: Want = Want.USABLE, beyond: int | None = None) -> AccessToken:
        """Give the token of a profile and subject: the row's, or else a new one, asked for once by all.

        `beyond` is a version that was refused: only a later one is of use. A token that does not open is taken for
        refused. Raises TokenError where none is to be had now, SealError where a secret does not open.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._patience_seconds
        pauses = poll_pauses()
        while clock() < give_up_at:
            row, step = await self.look(key, want=want, beyond=beyond)
            match step:
                case UseToken():
                    try:
                        return self.open(row)
                    except SealError:
                        # Worthless to us, whatever became of it: another one can be asked for.
                        if beyond is not None and row.version <= beyond + 1:
                            raise
                        await self.note_refusal(key, version=row.version)
                        beyond = row.version
                case HoldOff():
                    raise cached_failure(row, step)
                case WaitForRefresh():
                    await asyncio.sleep(next(pauses))
                case Refresh():
                    if not await self._attempts.attempt(row):
                        await asyncio.sleep(next(pauses))
                        continue
                    want = Want.USABLE  # one attempt was made; a token that lives but shortly is no cause for another
                case _:
                    assert_never(step)
        raise TokenError(f"No access token came within {self._patience_seconds:g} s, though others ask for it.")

    async def look(
        self, key: TokenKey, *, want: Want = Want.USABLE, beyond: int | None = None, in_use: bool = False
    ) -> tuple[TokenRow, Step]:
        """Read the row and say what is to be done; `in_use` notes that a sender uses the token.

        Raises TokenError (permanent) where the OAuth profile is gone.
        """
        async with self._pool.connection() as connection:
            row = await access_tokens.read_row(connection, key)
            if in_use:
                await access_tokens.note_use(connection, key)
        if row is None:
            raise profile_gone()
        return row, refreshing.next_step(row, want=want, beyond=beyond)

    def open(self, row: TokenRow) -> AccessToken:
        """Open the row's token. Raises SealError."""
        assert row.sealed_token is not None
        assert row.obtained_at is not None
        assert row.expires_at is not None
        token = self._sealer.open(row.sealed_token, purpose=access_tokens.TOKEN_PURPOSE, row_id=str(row.id))
        return AccessToken(row.key, SecretStr(token), row.version, row.obtained_at, row.expires_at, row.now)

    async def note_refusal(self, key: TokenKey, *, version: int) -> bool:
        """Have another token asked for in place of that version; False where somebody else has seen to it."""
        async with self._pool.connection() as connection:
            return await access_tokens.note_refusal(connection, key, version=version)

    async def used_lately(self, *, within_seconds: float) -> list[TokenRow]:
        """Give the rows whose tokens senders used lately."""
        async with self._pool.connection() as connection:
            return await access_tokens.list_used_lately(connection, within_seconds=within_seconds)

    async def finish(self, *, within_seconds: float = FINISH_SECONDS) -> None:
        """Wait for requests that must not be cut off."""
        await self._attempts.finish(within_seconds=within_seconds)


def cached_failure(row: TokenRow, hold_off: HoldOff) -> TokenError:
    """Give the row's last failure again, as an error that says when the next attempt may be."""
    return TokenError(
        row.failure or "The last token request failed.",
        fix=row.failure_fix,
        permanent=row.failure_permanent,
        retry_after=hold_off.seconds,
        code=row.failure_code,
    )


def poll_pauses() -> Iterator[float]:
    """Give the pauses in seconds between looks at a row: short at first, then two a second."""
    pause = 0.05
    while True:
        yield pause
        pause = min(pause * 1.5, 0.5)
