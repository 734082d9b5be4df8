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
from tocsin_schema.ledger.connection import AWAY
from tocsin_schema.ledger.refresh_tokens import REFRESH_TOKEN_PURPOSE, read_refresh_token, renew_refresh_token
from tocsin_workers.tokens import refreshing, refusals
from tocsin_workers.tokens.access_token import AccessToken
from tocsin_workers.tokens.grants import grant_of
from tocsin_workers.tokens.grants.seam import GrantSecrets
from tocsin_workers.tokens.refreshing import HoldOff, Refresh, Step, UseToken, WaitForRefresh, Want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow
    from psycopg_pool import AsyncConnectionPool

    from tocsin_schema.ledger.access_tokens import RefreshLease, TokenKey, TokenRow
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.refresh_tokens import RefreshTokenRow
    from tocsin_schema.sealing import Sealer
    from tocsin_workers.tokens.grants.seam import Grant, ObtainedToken

REQUEST_DEADLINE_SECONDS = 8.0
LEASE_SECONDS = 12.0
#: Nobody waits longer for a token; two leases fit in, should a first holder die.
PATIENCE_SECONDS = 30.0
#: How long a new refresh token is held while Postgres is away: the old one may be worth nothing any more.
KEEP_REFRESH_TOKEN_SECONDS = 60.0

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


@dataclass(frozen=True, slots=True)
class _Inquiry:
    """What one attempt asks with."""

    row: TokenRow
    profile: OAuthProfile
    secrets: GrantSecrets
    sign_in: RefreshTokenRow | None

    @property
    def told(self) -> dict[str, object]:
        """What log lines say of it."""
        return {"oauth_profile": self.profile.name, "subject": self.row.subject}


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
            # Read under the lease: after a change of the profile from here on, what comes is not stored.
            inquiry = await self._prepare(row)
        except (TokenError, SealError):
            await self._release(lease)
            raise
        try:
            obtained = await self._request(inquiry, started)
        except TokenError as error:
            await self._record_failure(lease, inquiry, error)
            raise
        # First of all: the endpoint may already have revoked the one that was used.
        await self._renew_sign_in(inquiry, obtained)
        await self._record_token(lease, inquiry, obtained)

    async def _prepare(self, row: TokenRow) -> _Inquiry:
        """Read the profile and open its secrets. Raises TokenError where the profile is gone, SealError."""
        async with self._pool.connection() as connection:
            profile = await oauth_profiles.get_by_id(connection, row.oauth_profile_id)
            sealed = await oauth_profiles.read_sealed_secrets(connection, row.oauth_profile_id)
            sign_in = await read_refresh_token(connection, row.key)
        if profile is None:
            raise _profile_gone()
        secrets = GrantSecrets(
            self._opened(sealed.client_secret, oauth_profiles.CLIENT_SECRET_PURPOSE, profile.id),
            self._opened(sealed.private_key, oauth_profiles.PRIVATE_KEY_PURPOSE, profile.id),
            None if sign_in is None else self._opened(sign_in.sealed_token, REFRESH_TOKEN_PURPOSE, sign_in.id),
        )
        return _Inquiry(row, profile, secrets, sign_in)

    def _opened(self, sealed: bytes | None, purpose: str, row_id: UUID) -> SecretStr | None:
        return None if sealed is None else SecretStr(self._sealer.open(sealed, purpose=purpose, row_id=str(row_id)))

    async def _request(self, inquiry: _Inquiry, started: float) -> ObtainedToken:
        clock = asyncio.get_running_loop().time
        deadline_seconds = self._request_deadline_seconds - (clock() - started)
        asked = clock()
        outcome = RequestOutcome.FAILED
        profile, subject = inquiry.profile, inquiry.row.subject
        try:
            grant = self._grant_for(profile)
            if grant.lives_on_sign_in and inquiry.sign_in is None:
                raise refusals.nobody_signed_in(profile, subject)
            obtained = await grant.request(profile, inquiry.secrets, subject, deadline_seconds=deadline_seconds)
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

    async def _renew_sign_in(self, inquiry: _Inquiry, obtained: ObtainedToken) -> None:
        """Put the refresh token that came in place of the one that was used, also where Postgres is away a while."""
        if inquiry.sign_in is None or obtained.refresh_token is None:
            return
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + KEEP_REFRESH_TOKEN_SECONDS
        for pause in poll_pauses():
            try:
                async with self._pool.connection() as connection:
                    renewed = await renew_refresh_token(
                        connection,
                        self._sealer,
                        inquiry.sign_in,
                        obtained.refresh_token.get_secret_value(),
                        lifetime_seconds=obtained.refresh_lifetime_seconds,
                    )
            except AWAY:
                if clock() >= give_up_at:
                    _log.error("the new refresh token could not be stored", extra=inquiry.told)
                    raise
                await asyncio.sleep(pause)
            else:
                if not renewed:
                    _log.warning("refresh token dropped: somebody signed in anew meanwhile", extra=inquiry.told)
                return

    async def _record_token(self, lease: RefreshLease, inquiry: _Inquiry, obtained: ObtainedToken) -> None:
        sealed = self._sealer.seal(
            obtained.token.get_secret_value(), purpose=access_tokens.TOKEN_PURPOSE, row_id=str(inquiry.row.id)
        )
        async with self._pool.connection() as connection:
            stored = await access_tokens.record_token(
                connection, lease, sealed_token=sealed, lifetime_seconds=obtained.lifetime_seconds
            )
        if stored:
            told = {**inquiry.told, "lifetime_seconds": obtained.lifetime_seconds}
            _log.info("access token obtained", extra=told)
        else:
            await self._drop(lease, inquiry)

    async def _record_failure(self, lease: RefreshLease, inquiry: _Inquiry, error: TokenError) -> None:
        wait = refreshing.wait_after_failure(
            permanent=error.permanent,
            retry_after=error.retry_after,
            previous_wait=refreshing.previous_wait(inquiry.row),
        ).total_seconds()
        async with self._pool.connection() as connection:
            stored = await access_tokens.record_failure(connection, lease, error, wait_seconds=wait)
        if not stored:
            await self._drop(lease, inquiry)
        # Whoever gets the error learns when the next attempt will be.
        error.retry_after = wait if stored else 0.0
        _log.warning("no access token: %s", error, extra={**inquiry.told, "retry_in_seconds": wait})

    async def _drop(self, lease: RefreshLease, inquiry: _Inquiry) -> None:
        """Let the next one ask: what came was asked for with what the profile was before, or too late."""
        await self._release(lease)
        _log.warning("a token answer was dropped: the profile changed, or the lease lapsed", extra=inquiry.told)

    async def _release(self, lease: RefreshLease) -> None:
        async with self._pool.connection() as connection:
            await access_tokens.release_refresh(connection, lease)


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


def _profile_gone() -> TokenError:
    return TokenError(
        "The OAuth profile is gone.", fix="Give the sending profile another one: `tocsin profile set`.", permanent=True
    )
