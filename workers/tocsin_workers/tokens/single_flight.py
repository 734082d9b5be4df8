"""One token request for the whole fleet: whoever needs a token asks here, in the token broker or in a sender.

The single flight is a lease in the token's row, on the database's clock, longer than the request's hard deadline.
No transaction and no connection is held while the endpoint is asked. Losers watch the row.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never
from uuid import uuid4

from pydantic import SecretStr

from tocsin_schema.errors import SealError, TokenError
from tocsin_schema.ledger import access_tokens, oauth_profiles
from tocsin_workers.tokens import refreshing, refusals
from tocsin_workers.tokens.access_token import AccessToken
from tocsin_workers.tokens.grants import grant_of
from tocsin_workers.tokens.refreshing import HoldOff, Refresh, Step, UseToken, WaitForRefresh, Want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow
    from psycopg_pool import AsyncConnectionPool

    from tocsin_schema.ledger.access_tokens import RefreshLease, TokenKey, TokenRow
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.sealing import Sealer
    from tocsin_workers.tokens.grants.seam import Grant, ObtainedToken

REQUEST_DEADLINE_SECONDS = 8.0
LEASE_SECONDS = 12.0
#: Nobody waits longer for a token; two leases fit in, should a first holder die.
PATIENCE_SECONDS = 30.0

_log = logging.getLogger(__name__)


class RequestOutcome(StrEnum):
    """How a token request ended."""

    OBTAINED = "obtained"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request to a token endpoint, for the metrics."""

    profile: str
    provider: str
    outcome: RequestOutcome
    seconds: float


def _unobserved(request: TokenRequest) -> None:
    del request


class TokenSource:
    """Tokens from the ledger, and from the endpoint where the ledger has none.

    `observe` is told of every request to a token endpoint. The errors of a Postgres that is away pass through.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[TupleRow]],
        sealer: Sealer,
        *,
        observe: Callable[[TokenRequest], None] = _unobserved,
        grant_for: Callable[[OAuthProfile], Grant] = grant_of,
        request_deadline_seconds: float = REQUEST_DEADLINE_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        assert lease_seconds > request_deadline_seconds, "or a second request could begin during the first"
        self._pool = pool
        self._sealer = sealer
        self._observe = observe
        self._grant_for = grant_for
        self._request_deadline_seconds = request_deadline_seconds
        self._lease_seconds = lease_seconds
        self._patience_seconds = patience_seconds

    async def obtain(self, key: TokenKey, *, want: Want = Want.USABLE) -> AccessToken:
        """Give the token of a profile and subject: the row's, or else a new one, asked for once by all.

        Raises TokenError where none is to be had now, SealError where a secret does not open.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._patience_seconds
        pauses = poll_pauses()
        while clock() < give_up_at:
            row, step = await self.look(key, want=want)
            match step:
                case UseToken():
                    return self.open(row)
                case HoldOff():
                    raise cached_failure(row, step)
                case WaitForRefresh():
                    await asyncio.sleep(next(pauses))
                case Refresh():
                    await self._refresh(row)
                    want = Want.USABLE  # one attempt was made; a token that lives but shortly is no cause for another
                case _:
                    assert_never(step)
        raise TokenError(f"No access token came within {self._patience_seconds:g} s, though others ask for it.")

    async def look(self, key: TokenKey, *, want: Want = Want.USABLE, in_use: bool = False) -> tuple[TokenRow, Step]:
        """Read the row and say what is to be done; `in_use` notes that a sender uses the token.

        Raises TokenError (permanent) where the OAuth profile is gone.
        """
        async with self._pool.connection() as connection:
            row = await access_tokens.read_row(connection, key)
            if in_use:
                await access_tokens.note_use(connection, key)
        if row is None:
            raise _profile_gone()
        return row, refreshing.next_step(row, want=want)

    def open(self, row: TokenRow) -> AccessToken:
        """Open the row's token. Raises SealError."""
        assert row.sealed_token is not None
        assert row.obtained_at is not None
        assert row.expires_at is not None
        token = self._sealer.open(row.sealed_token, purpose=access_tokens.TOKEN_PURPOSE, row_id=str(row.id))
        return AccessToken(row.key, SecretStr(token), row.version, row.obtained_at, row.expires_at, row.now)

    async def invalidate(self, key: TokenKey, *, version: int) -> bool:
        """Throw away the token of that version; False where somebody else has done so already."""
        async with self._pool.connection() as connection:
            return await access_tokens.invalidate_token(connection, key, version=version)

    async def used_lately(self, *, within_seconds: float) -> list[TokenRow]:
        """Give the rows whose tokens senders used lately."""
        async with self._pool.connection() as connection:
            return await access_tokens.list_used_lately(connection, within_seconds=within_seconds)

    async def _refresh(self, row: TokenRow) -> None:
        """Ask the endpoint, if the lease is to be had, and store what comes. Raises TokenError, SealError."""
        started = asyncio.get_running_loop().time()
        async with self._pool.connection() as connection:
            lease = await access_tokens.claim_refresh(
                connection, row, attempt=uuid4(), lease_seconds=self._lease_seconds
            )
        if lease is None:
            return
        try:
            # Read under the lease: a change of the profile after this ends the lease, and what comes is not stored.
            profile, secret = await self._read_profile(row.oauth_profile_id)
        except (TokenError, SealError):
            await self._release(lease)
            raise
        try:
            obtained = await self._request(profile, secret, row.subject, started)
        except TokenError as error:
            await self._record_failure(lease, row, profile, error)
            raise
        await self._record_token(lease, row, profile, obtained)

    async def _read_profile(self, profile_id: UUID) -> tuple[OAuthProfile, SecretStr | None]:
        async with self._pool.connection() as connection:
            profile = await oauth_profiles.get_by_id(connection, profile_id)
            sealed = await oauth_profiles.read_sealed_client_secret(connection, profile_id)
        if profile is None:
            raise _profile_gone()
        if sealed is None:
            return profile, None
        purpose = oauth_profiles.CLIENT_SECRET_PURPOSE
        return profile, SecretStr(self._sealer.open(sealed, purpose=purpose, row_id=str(profile.id)))

    async def _request(
        self, profile: OAuthProfile, secret: SecretStr | None, subject: str, started: float
    ) -> ObtainedToken:
        clock = asyncio.get_running_loop().time
        deadline_seconds = self._request_deadline_seconds - (clock() - started)
        asked = clock()
        outcome = RequestOutcome.FAILED
        try:
            grant = self._grant_for(profile)
            obtained = await grant.request(profile, secret, subject, deadline_seconds=deadline_seconds)
            # Stored, a token that is spent on arrival would be asked for again at once, and again.
            lifetime = timedelta(seconds=obtained.lifetime_seconds)
            if timedelta(seconds=clock() - started) >= lifetime - refreshing.margin(lifetime):
                raise refusals.unusable_token(profile, f"lives only {obtained.lifetime_seconds:g} s")
            outcome = RequestOutcome.OBTAINED
        except TokenError as error:
            if error.permanent:
                outcome = RequestOutcome.REFUSED
            raise
        finally:
            self._observe(TokenRequest(profile.name, profile.provider, outcome, clock() - asked))
        return obtained

    async def _record_token(
        self, lease: RefreshLease, row: TokenRow, profile: OAuthProfile, obtained: ObtainedToken
    ) -> None:
        sealed = self._sealer.seal(
            obtained.token.get_secret_value(), purpose=access_tokens.TOKEN_PURPOSE, row_id=str(row.id)
        )
        async with self._pool.connection() as connection:
            stored = await access_tokens.record_token(
                connection, lease, sealed_token=sealed, lifetime_seconds=obtained.lifetime_seconds
            )
        told = {"oauth_profile": profile.name, "subject": row.subject, "lifetime_seconds": obtained.lifetime_seconds}
        if stored:
            _log.info("access token obtained", extra=told)
        else:
            _log.warning("access token dropped: the profile changed, or the lease lapsed, meanwhile", extra=told)

    async def _record_failure(
        self, lease: RefreshLease, row: TokenRow, profile: OAuthProfile, error: TokenError
    ) -> None:
        wait = refreshing.wait_after_failure(
            permanent=error.permanent,
            retry_after=error.retry_after,
            previous_wait=refreshing.previous_wait(row),
        ).total_seconds()
        async with self._pool.connection() as connection:
            await access_tokens.record_failure(
                connection,
                lease,
                failure="\n".join(filter(None, (error.problem, error.fix))),
                permanent=error.permanent,
                wait_seconds=wait,
            )
        # Whoever gets the error learns when the next attempt will be.
        error.retry_after = wait
        told = {"oauth_profile": profile.name, "subject": row.subject, "retry_in_seconds": wait}
        _log.warning("no access token: %s", error, extra=told)

    async def _release(self, lease: RefreshLease) -> None:
        async with self._pool.connection() as connection:
            await access_tokens.release_refresh(connection, lease)


def cached_failure(row: TokenRow, hold_off: HoldOff) -> TokenError:
    """Give the row's last failure again, as an error that says when the next attempt may be."""
    problem, _, fix = (row.failure or "The last token request failed.").partition("\n")
    return TokenError(problem, fix=fix or None, permanent=row.failure_permanent, retry_after=hold_off.seconds)


def poll_pauses() -> Iterator[float]:
    """Give the pauses in seconds between looks at a row: short at first, then two a second."""
    pause = 0.05
    while True:
        yield pause
        pause = min(pause * 1.5, 0.5)


def _profile_gone() -> TokenError:
    return TokenError(
        "The OAuth profile is gone.", fix="Give the sending profile another one: `tocsin profile set`.", permanent=True
    )
