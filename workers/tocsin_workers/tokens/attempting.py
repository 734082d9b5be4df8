"""One request to a token endpoint: under a lease, to its end, and what comes of it stored.

    claim → prepare → request → renew the sign-in → record

An attempt with a refresh token is not cancelled with whoever asked for it: the endpoint may have taken the old one
already, and some revoke the whole sign-in when it comes a second time. So it goes on by itself until what came is
stored, also while Postgres is away, and its lease is long enough for that.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic import SecretStr

from tocsin_schema.errors import SealError, TokenError, UnknownKeyError
from tocsin_schema.ledger import access_tokens, oauth_profiles
from tocsin_schema.ledger.connection import AWAY
from tocsin_schema.ledger.oauth_providers import SIGN_IN_GRANTS
from tocsin_schema.ledger.refresh_tokens import REFRESH_TOKEN_PURPOSE, read_refresh_token, renew_refresh_token
from tocsin_workers.tokens import refreshing, refusals
from tocsin_workers.tokens.grants.seam import GrantSecrets, UnusableTokenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tocsin_schema.ledger.access_tokens import RefreshLease, TokenRow
    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.refresh_tokens import RefreshTokenRow
    from tocsin_schema.sealing import Sealer
    from tocsin_workers.tokens.grants.seam import Grant, ObtainedToken, Renewal

#: With less than this share of the deadline left there is no use in beginning.
LEAST_SHARE = 0.25
#: How long a lease outlives the request where a refresh token is to be stored: as long as a failover of Postgres.
KEEP_SIGN_IN_SECONDS = 60.0
_STORE_EVERY_SECONDS = 0.25

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


class TokenAttempts:
    """Asks token endpoints. `observe` is told of every request. The errors of a Postgres that is away pass through."""

    def __init__(
        self,
        pool: Pool,
        sealer: Sealer,
        *,
        observe: Callable[[TokenRequest], None],
        grant_for: Callable[[OAuthProfile], Grant],
        deadline_seconds: float,
        lease_seconds: float,
    ) -> None:
        assert lease_seconds > deadline_seconds, "or a second request could begin during the first"
        self._pool = pool
        self._sealer = sealer
        self._observe = observe
        self._grant_for = grant_for
        self._deadline_seconds = deadline_seconds
        self._lease_seconds = lease_seconds
        self._kept: set[asyncio.Task[bool]] = set()

    async def attempt(self, row: TokenRow) -> bool:
        """Ask for a token for the row as it was read; False where somebody else does, or it was too late to begin.

        Raises TokenError, SealError.
        """
        if row.grant_type not in SIGN_IN_GRANTS:
            return await self._attempt(row, lease_seconds=self._lease_seconds)
        kept = asyncio.create_task(self._attempt(row, lease_seconds=self._lease_seconds + KEEP_SIGN_IN_SECONDS))
        self._kept.add(kept)
        kept.add_done_callback(self._forget)
        return await asyncio.shield(kept)

    async def finish(self, *, within_seconds: float) -> None:
        """Wait for attempts with refresh tokens that are under way; what is not done in time is given up."""
        if not self._kept:
            return
        _, late = await asyncio.wait(self._kept, timeout=within_seconds)
        for task in late:
            task.cancel()
        if late:
            _log.error("token requests were cut off: a sign-in may be lost", extra={"requests": len(late)})
            await asyncio.wait(late)

    def _forget(self, kept: asyncio.Task[bool]) -> None:
        self._kept.discard(kept)
        if not kept.cancelled():
            kept.exception()  # whoever asked may be gone; it is in the row

    async def _attempt(self, row: TokenRow, *, lease_seconds: float) -> bool:
        if self._sealer.is_overtaken:
            # What comes could not be stored.
            raise UnknownKeyError("The master keys were changed, and are not read again yet.", fix="Try again soon.")
        async with self._pool.connection() as connection:
            lease = await access_tokens.claim_refresh(connection, row, attempt=uuid4(), lease_seconds=lease_seconds)
        if lease is None:
            return False
        ends_at = asyncio.get_running_loop().time() + self._deadline_seconds
        try:
            # Read under the lease: after a change of the profile from here on, what comes is not stored.
            inquiry = await self._prepare(row)
        except (TokenError, SealError):
            await self._release(lease)
            raise
        if ends_at - asyncio.get_running_loop().time() < LEAST_SHARE * self._deadline_seconds:
            await self._release(lease)  # we waited for the ledger; nothing was asked
            return False
        try:
            obtained = await self._request(inquiry, ends_at)
        except TokenError as error:
            if isinstance(error, UnusableTokenError):
                await self._renew_sign_in(inquiry, error.renewal)
            await self._record_failure(lease, inquiry, error)
            raise
        # First of all: the endpoint may already have revoked the one that was used.
        await self._renew_sign_in(inquiry, obtained.renewal)
        await self._record_token(lease, inquiry, obtained)
        return True

    async def _prepare(self, row: TokenRow) -> _Inquiry:
        """Read the profile and open its secrets. Raises TokenError where the profile is gone, SealError."""
        async with self._pool.connection() as connection:
            # As of one moment: a new secret must not go to the address that the profile had before.
            await oauth_profiles.read_as_of_now(connection)
            profile = await oauth_profiles.get_by_id(connection, row.oauth_profile_id)
            sealed = await oauth_profiles.read_sealed_secrets(connection, row.oauth_profile_id)
            sign_in = await read_refresh_token(connection, row.key)
        if profile is None:
            raise profile_gone()
        secrets = GrantSecrets(
            self._opened(sealed.client_secret, oauth_profiles.CLIENT_SECRET_PURPOSE, profile.id),
            self._opened(sealed.private_key, oauth_profiles.PRIVATE_KEY_PURPOSE, profile.id),
            None if sign_in is None else self._opened(sign_in.sealed_token, REFRESH_TOKEN_PURPOSE, sign_in.id),
        )
        return _Inquiry(row, profile, secrets, sign_in)

    def _opened(self, sealed: bytes | None, purpose: str, row_id: UUID) -> SecretStr | None:
        return None if sealed is None else SecretStr(self._sealer.open(sealed, purpose=purpose, row_id=str(row_id)))

    async def _request(self, inquiry: _Inquiry, ends_at: float) -> ObtainedToken:
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        outcome = RequestOutcome.FAILED
        profile, subject = inquiry.profile, inquiry.row.subject
        try:
            grant = self._grant_for(profile)
            if grant.lives_on_sign_in and inquiry.sign_in is None:
                raise refusals.nobody_signed_in(profile, subject)
            obtained = await grant.request(profile, inquiry.secrets, subject, deadline_seconds=ends_at - asked_at)
            # Stored, a token that is spent on arrival would be asked for again at once, and again.
            lifetime = timedelta(seconds=obtained.lifetime_seconds)
            since_lease = timedelta(seconds=clock() - ends_at + self._deadline_seconds)
            if since_lease >= lifetime - refreshing.margin(lifetime):
                told = refusals.unusable_token(profile, f"lives only {obtained.lifetime_seconds:g} s")
                raise UnusableTokenError(told.problem, renewal=obtained.renewal)
            outcome = RequestOutcome.OBTAINED
        except TokenError as error:
            if error.permanent:
                outcome = RequestOutcome.REFUSED
            raise
        finally:
            self._observe(TokenRequest(profile.name, profile.provider, outcome, clock() - asked_at))
        return obtained

    async def _renew_sign_in(self, inquiry: _Inquiry, renewal: Renewal | None) -> None:
        """Put the refresh token that came in place of the one that was used, however long Postgres is away.

        Nor does it matter that the master keys are being changed: they are read again soon.
        """
        if inquiry.sign_in is None or renewal is None:
            return
        is_told = False
        while True:
            try:
                async with self._pool.connection() as connection:
                    renewed = await renew_refresh_token(
                        connection,
                        self._sealer,
                        inquiry.sign_in,
                        renewal.refresh_token.get_secret_value(),
                        lifetime_seconds=renewal.lifetime_seconds,
                    )
            except (*AWAY, SealError) as error:
                if not is_told:
                    told = {**inquiry.told, "error": type(error).__name__}
                    _log.warning("a new refresh token waits to be stored", extra=told)
                    is_told = True
                await asyncio.sleep(_STORE_EVERY_SECONDS)
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
            _log.info("access token obtained", extra={**inquiry.told, "lifetime_seconds": obtained.lifetime_seconds})
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


def profile_gone() -> TokenError:
    """Say that the OAuth profile was removed."""
    return TokenError(
        "The OAuth profile is gone.", fix="Give the sending profile another one: `tocsin profile set`.", permanent=True
    )
