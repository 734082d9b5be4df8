"""What a sender calls for its token: process memory, then the row, then the token broker, then by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from tocsin_schema.errors import MessageBrokerError, SealError
from tocsin_schema.ledger.access_tokens import TokenKey
from tocsin_workers.tokens import refreshing
from tocsin_workers.tokens.grants import subject_of
from tocsin_workers.tokens.refreshing import AfterRefusal, HoldOff, Refresh, UseToken, WaitForRefresh
from tocsin_workers.tokens.single_flight import cached_failure, poll_pauses

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.access_token import AccessToken
    from tocsin_workers.tokens.single_flight import TokenSource

#: How long a process goes without a look at the row, and so how long a thrown away token may still be used.
MEMORY_SECONDS = 30.0
#: How long the token broker may take to begin, before a sender asks the endpoint itself.
BROKER_PATIENCE_SECONDS = 3.0
#: Handing the wish to the message broker must not cost more than doing without.
_ASK_SECONDS = 1.0

#: Wakes the token broker for a key. It may raise MessageBrokerError, and may be lost.
Ask = Callable[[TokenKey], Awaitable[None]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    token: AccessToken
    until: float


class TokenAccess:
    """The tokens of one process. Belongs to one event loop."""

    def __init__(
        self,
        source: TokenSource,
        ask: Ask,
        *,
        memory_seconds: float = MEMORY_SECONDS,
        broker_patience_seconds: float = BROKER_PATIENCE_SECONDS,
    ) -> None:
        self._source = source
        self._ask = ask
        self._memory_seconds = memory_seconds
        self._broker_patience_seconds = broker_patience_seconds
        self._held: dict[TokenKey, _Held] = {}
        self._refused: dict[tuple[TokenKey, str], int] = {}
        """By mailbox, the version that the mail server refused last: only a later one is of use to it."""
        self._locks: dict[TokenKey, asyncio.Lock] = {}

    async def get(self, profile: OAuthProfile, mailbox: str) -> AccessToken:
        """Give a token with which `mailbox` may log in now.

        Raises TokenError where none is to be had (`retry_after` says when to come again, `permanent` that a person
        must act first) and SealError; the errors of a Postgres that is away pass through.
        """
        key = TokenKey(profile.id, subject_of(profile, mailbox))
        beyond = self._refused.get((key, mailbox))
        if (held := self._remembered(key, beyond)) is not None:
            return held
        # One look a process: the others find its token in memory.
        async with self._locks.setdefault(key, asyncio.Lock()):
            if (held := self._remembered(key, beyond)) is not None:
                return held
            return await self._get_from_ledger(key, beyond)

    async def refused(self, token: AccessToken, mailbox: str) -> AfterRefusal:
        """Tell that a mail server refused the token (535) for a mailbox, and learn what to do.

        TRY_AGAIN: `get` will give it another token. PAUSE: the token was new; pause the sending profile. Others whom
        the server does not refuse go on with the token until there is another.
        """
        row, _ = await self._source.look(token.key)
        if row.version == token.version:
            decision = refreshing.after_refusal(token.obtained_at, token.expires_at, now=row.now)
            if decision is AfterRefusal.PAUSE:
                return decision
            await self._source.note_refusal(token.key, version=token.version)
        self._refused[token.key, mailbox] = token.version
        return AfterRefusal.TRY_AGAIN

    async def _get_from_ledger(self, key: TokenKey, beyond: int | None) -> AccessToken:
        read_at = asyncio.get_running_loop().time()
        row, step = await self._source.look(key, beyond=beyond, in_use=True)
        match step:
            case UseToken(due):
                with suppress(SealError):  # then another one is obtained, below
                    token = self._remember(self._source.open(row), read_at)
                    if due:
                        await self._wake_broker(key)
                    return token
            case HoldOff():
                raise cached_failure(row, step)
            case Refresh():
                await self._wake_broker(key)
                await self._wait_for_broker(key, beyond)
            case WaitForRefresh():
                pass
            case _:
                assert_never(step)
        read_at = asyncio.get_running_loop().time()
        return self._remember(await self._source.obtain(key, beyond=beyond), read_at)

    async def _wait_for_broker(self, key: TokenKey, beyond: int | None) -> None:
        """Wait until the token broker has begun, or for so long that there seems to be none."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._broker_patience_seconds
        for pause in poll_pauses():
            _, step = await self._source.look(key, beyond=beyond)
            if not isinstance(step, Refresh):
                return
            if clock() >= give_up_at:
                _log.warning("no token broker answers: asking the token endpoint without it")
                return
            await asyncio.sleep(min(pause, max(give_up_at - clock(), 0.0)))

    async def _wake_broker(self, key: TokenKey) -> None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await self._ask(key)
        except (MessageBrokerError, TimeoutError):
            _log.warning("the token broker could not be woken")

    def _remembered(self, key: TokenKey, beyond: int | None) -> AccessToken | None:
        held = self._held.get(key)
        if held is None or asyncio.get_running_loop().time() >= held.until:
            return None
        return held.token if beyond is None or held.token.version > beyond else None

    def _remember(self, token: AccessToken, read_at: float) -> AccessToken:
        """Hold a token by the process's own clock, counted from before the row was read."""
        holding = refreshing.holding_time(
            token.obtained_at,
            token.expires_at,
            now=token.read_at,
            at_most=timedelta(seconds=self._memory_seconds),
        )
        self._held[token.key] = _Held(token, read_at + holding.total_seconds())
        return token
