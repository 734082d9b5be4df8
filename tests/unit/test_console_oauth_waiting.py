"""Waiting for a person at another screen: how often it is asked, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tocsin_console.reading.device_waiting import Clock, wait_for_decision
from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.device_sign_in import DeviceCode, SignedIn, Undecided

if TYPE_CHECKING:
    from collections.abc import Sequence

CODE = DeviceCode("ABCD-EFGH", "https://example.org/device", SecretStr("device"), 60.0, 5.0)
SIGNED_IN = SignedIn(SecretStr("refresh"), None, "a@example.org")
AWAY = TokenError("away")
Answer = SignedIn | Undecided | TokenError


@dataclass
class Screen:
    """A person who decides after some polls, and a clock that only waiting turns."""

    answers: Sequence[Answer]
    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def poll(self) -> SignedIn | Undecided:
        answer = self.answers[min(len(self.pauses), len(self.answers)) - 1]
        if isinstance(answer, TokenError):
            raise answer
        return answer

    async def wait(self) -> SignedIn | Undecided:
        return await wait_for_decision(self.poll, CODE, Clock(lambda: self.now, self.sleep))


async def test_it_polls_in_the_interval_until_somebody_has_signed_in() -> None:
    screen = Screen([Undecided.PENDING, Undecided.PENDING, SIGNED_IN])
    assert await screen.wait() is SIGNED_IN
    assert screen.pauses == [5, 5, 5]


async def test_asked_to_slow_down_it_waits_5_s_longer_from_then_on() -> None:
    screen = Screen([Undecided.SLOW_DOWN, Undecided.PENDING, Undecided.SLOW_DOWN, SIGNED_IN])
    assert await screen.wait() is SIGNED_IN
    assert screen.pauses == [5, 10, 10, 15]


@pytest.mark.parametrize("decision", [Undecided.DECLINED, Undecided.EXPIRED])
async def test_a_no_and_an_expired_code_end_it_at_once(decision: Undecided) -> None:
    screen = Screen([decision])
    assert await screen.wait() is decision
    assert len(screen.pauses) == 1


async def test_a_code_that_nobody_enters_expires_by_our_clock_too() -> None:
    screen = Screen([Undecided.PENDING])
    assert await screen.wait() is Undecided.EXPIRED
    assert screen.now == 1060


async def test_an_endpoint_that_is_away_is_asked_again_with_growing_pauses() -> None:
    screen = Screen([AWAY, AWAY, Undecided.PENDING, SIGNED_IN])
    assert await screen.wait() is SIGNED_IN
    assert screen.pauses == [5, 10, 20, 5]


async def test_an_endpoints_wish_is_obeyed() -> None:
    screen = Screen([TokenError("busy", retry_after=30), SIGNED_IN])
    assert await screen.wait() is SIGNED_IN
    assert screen.pauses == [5, 30]


async def test_an_endpoint_still_away_at_the_end_is_told() -> None:
    with pytest.raises(TokenError, match="away"):
        await Screen([AWAY]).wait()


async def test_a_refusal_for_good_ends_it() -> None:
    screen = Screen([TokenError("no", permanent=True)])
    with pytest.raises(TokenError, match="no"):
        await screen.wait()
    assert len(screen.pauses) == 1
