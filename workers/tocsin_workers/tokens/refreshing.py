"""What to do with a token, decided: pure functions of the row and the database's clock.

A token is refreshed ahead of its expiry by a fifth of its life, at most 10 minutes, and used until shortly before
it. Failures are answered with growing waits, the endpoint's own wish obeyed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from tocsin_schema.ledger.access_tokens import TokenRow

MAX_REFRESH_AHEAD = timedelta(minutes=10)
#: Time for the AUTH command to arrive while the token still lives.
MAX_MARGIN = timedelta(seconds=30)
#: A refusal of a token younger than this is not mended by another token.
MAX_YOUTH = timedelta(seconds=60)

#: A token that is no older shows that the endpoint gives tokens now.
JUST_OBTAINED = timedelta(seconds=10)

FIRST_WAIT = timedelta(seconds=2)
LONGEST_WAIT = timedelta(minutes=1)
FIRST_PERMANENT_WAIT = timedelta(minutes=1)
LONGEST_PERMANENT_WAIT = timedelta(hours=1)


class Want(Enum):
    """How good a token must be."""

    USABLE = auto()
    """Alive."""
    FRESH = auto()
    """With so much life left that it is not due for refresh."""
    NEW = auto()
    """Just obtained, which shows that the endpoint gives tokens now."""


@dataclass(frozen=True, slots=True)
class UseToken:
    """The row's token will do."""

    due: bool
    """Whether it should be refreshed soon, by the token broker."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """Nobody is asking the endpoint: do it."""


@dataclass(frozen=True, slots=True)
class WaitForRefresh:
    """Somebody is asking the endpoint: look at the row again soon."""


@dataclass(frozen=True, slots=True)
class HoldOff:
    """The last attempt failed and it is too early for another."""

    seconds: float


Step = UseToken | Refresh | WaitForRefresh | HoldOff


class AfterRefusal(Enum):
    """What follows when a mail server refuses a token (535)."""

    TRY_AGAIN = auto()
    """Get a token again, which will be another one."""
    PAUSE = auto()
    """The token was new: pause the sending profile, since another one will fare no better."""


def next_step(row: TokenRow, *, want: Want, beyond: int | None = None) -> Step:
    """Decide what an asker does with a row as it was read.

    `beyond` is the version that the asker was refused with: only a later one is of use.
    """
    usable = is_usable(row.obtained_at, row.expires_at, now=row.now) and (beyond is None or row.version > beyond)
    due = is_due(row)
    if usable and _is_good_enough(row, want, due=due):
        return UseToken(due)
    # Who wants a new one waits for it; the others go on with what they have.
    will_do = usable and want is not Want.NEW
    if row.refresh_leased_until is not None and row.now < row.refresh_leased_until:
        return UseToken(due) if will_do else WaitForRefresh()
    if row.retry_at is not None and row.now < row.retry_at:
        return UseToken(due) if will_do else HoldOff((row.retry_at - row.now).total_seconds())
    return Refresh()


def _is_good_enough(row: TokenRow, want: Want, *, due: bool) -> bool:
    match want:
        case Want.USABLE:
            return True
        case Want.FRESH:
            return not due
        case Want.NEW:
            return row.obtained_at is not None and row.now - row.obtained_at < JUST_OBTAINED
        case _:
            assert_never(want)


def is_usable(obtained_at: datetime | None, expires_at: datetime | None, *, now: datetime) -> bool:
    """Whether a token may still be shown to a mail server."""
    if obtained_at is None or expires_at is None:
        return False
    return now < expires_at - margin(expires_at - obtained_at)


def is_due(row: TokenRow) -> bool:
    """Whether it is time to ask for another token: ahead of its expiry, or since a mail server refused it."""
    if row.obtained_at is None or row.expires_at is None or row.refused_version == row.version:
        return True
    return row.now >= row.expires_at - refresh_ahead(row.expires_at - row.obtained_at)


def refresh_ahead(lifetime: timedelta) -> timedelta:
    """How long before its expiry a token of that life is refreshed."""
    return min(MAX_REFRESH_AHEAD, lifetime / 5)


def margin(lifetime: timedelta) -> timedelta:
    """How long before its expiry a token of that life is no longer used."""
    return min(MAX_MARGIN, lifetime / 10)


def holding_time(obtained_at: datetime, expires_at: datetime, *, now: datetime, at_most: timedelta) -> timedelta:
    """How long a process may use a token without looking at the row again.

    To the time when it is due; then, since a new one is to be expected, for short steps within its life.
    """
    lifetime = expires_at - obtained_at
    until_due = expires_at - refresh_ahead(lifetime) - now
    if until_due > timedelta(0):
        return min(at_most, until_due)
    until_end = expires_at - margin(lifetime) - now
    return max(min(at_most, refresh_ahead(lifetime) / 5, until_end), timedelta(0))


def after_refusal(obtained_at: datetime, expires_at: datetime, *, now: datetime) -> AfterRefusal:
    """Decide whether a mail server's refusal of the current token is answered with another token."""
    youth = min(MAX_YOUTH, (expires_at - obtained_at) / 5)
    return AfterRefusal.PAUSE if now - obtained_at < youth else AfterRefusal.TRY_AGAIN


def wait_after_failure(*, permanent: bool, retry_after: float | None, previous_wait: timedelta | None) -> timedelta:
    """How long nobody asks the endpoint again: double the previous wait, and never less than it wishes."""
    first, longest = (FIRST_PERMANENT_WAIT, LONGEST_PERMANENT_WAIT) if permanent else (FIRST_WAIT, LONGEST_WAIT)
    wait = first if previous_wait is None else min(max(previous_wait * 2, first), longest)
    return wait if retry_after is None else max(wait, timedelta(seconds=retry_after))


def previous_wait(row: TokenRow) -> timedelta | None:
    """Give the wait that the row's last failure led to; None where the last attempt did not fail."""
    if row.failure is None or row.failed_at is None or row.retry_at is None:
        return None
    return row.retry_at - row.failed_at
