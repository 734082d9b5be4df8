"""A mailbox walked forward in time through its backlog, and what the time went by. Pure.

Messages leave evenly at one pace. Recipients are counted in the minute in which their message begins, and a minute
counts for 24 hours and a minute, as `mailboxes.sql` has it; so where a day is full, it goes on as the minutes of
yesterday run out. In the second such period nothing counts any more that was there before the walk, and each one after
it has its messages in the same minutes. Whole ones are then leapt over: a backlog of a year costs no more to walk than
one of three days.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

COUNTED_SECONDS = 86_460.0
"""For so long from its beginning a minute's recipients count: `recipients_of_a_day` of mailboxes.sql."""

SECONDS_OF_A_LIMITED_MINUTE = 61.0
"""A minute's messages are spread over so long: `reserve_messages` of mailboxes.sql."""

_MINUTE = 60.0
_NOBODY = 1e-6
"""Fewer recipients than this are a rounding error."""


class Limit(StrEnum):
    """What holds mail most: the one thing that an operator would look at to have it sooner."""

    RATE = "rate"
    """The mailbox's messages a minute."""
    DAY = "day"
    """The mailbox's recipients of 24 hours."""
    TENANT = "tenant"
    """The tenant's external recipients of 24 hours."""
    CONNECTIONS_OR_SPEED = "connections_or_speed"
    """No rate is set: how many connections there are, and how fast the server takes messages."""
    UNKNOWN_SPEED = "unknown_speed"
    """No rate is set, and nothing was sent lately that would show a speed."""
    PARKED = "parked"
    """The mailbox rests: its provider asked for it."""
    RETRIES = "retries"
    """Recipients whom a server put off are tried again later."""
    NOT_BEGUN = "not_begun"
    """Its `send_after`, or its part 1, has not come."""
    PAUSED = "paused"
    """A person has paused the job, or the sending profile is paused."""
    HALTED = "halted"
    """All sending is halted."""
    NO_WORKER = "no_worker"
    """No worker that sends is alive."""


@dataclass(frozen=True, slots=True)
class UsedMinute:
    """Recipients that were tried in one minute; the urgent ones are among them."""

    minute: datetime
    recipients: int
    urgent: int = 0


@dataclass(frozen=True, slots=True)
class RollingDay:
    """Recipients that are allowed in 24 hours, what is kept of them for urgent mail, and what is used.

    `part` is which part of the recipients counts: of a tenant's quota only the external ones do.
    """

    recipients: int
    kept_for_urgent: int = 0
    used: Sequence[UsedMinute] = ()
    limit: Limit = Limit.DAY
    part: float = 1.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What a mailbox allows: messages a minute in force, None for no limit, and what quotas there are.

    `seen_per_minute` is how fast it sent in the last minute, None where it did not: its speed where there is no rate.
    Until `kept_for_urgent_until` only urgent mail goes out.
    """

    messages_per_minute: float | None = None
    seen_per_minute: float | None = None
    days: Sequence[RollingDay] = ()
    parked_until: datetime | None = None
    kept_for_urgent_until: datetime | None = None

    @property
    def seconds_a_message(self) -> float | None:
        """How long a message takes on average; None where nothing tells."""
        if self.messages_per_minute is not None:
            return SECONDS_OF_A_LIMITED_MINUTE / self.messages_per_minute
        return _MINUTE / self.seen_per_minute if self.seen_per_minute else None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Work that is done in one go: recipients in messages, evenly; shares of jobs need not be whole."""

    recipients: float
    messages: float
    is_urgent: bool
    not_before: datetime | None = None

    @property
    def of_a_message(self) -> float:
        """How many recipients a message has, on average."""
        return self.recipients / self.messages


class MailboxWalk:
    """A mailbox on its way: `at` is when it is, in seconds since 1970; `spent` is what the seconds went by."""

    def __init__(self, budget: Budget, now: datetime) -> None:
        self.at = now.timestamp()
        self.spent: dict[Limit, float] = {}
        self._budget = budget
        self._pace = budget.seconds_a_message or 0.0
        self._pace_limit = Limit.CONNECTIONS_OR_SPEED if budget.messages_per_minute is None else Limit.RATE
        self._days = [_CountedDay(quota) for quota in budget.days if quota.part > _NOBODY]

    def go(self, stretch: Stretch) -> bool:
        """Walk to where the stretch is sent; False where it never can be, since no message fits into the day."""
        if stretch.not_before is not None:
            self.wait(stretch.not_before, Limit.NOT_BEGUN)
        self._rest(stretch)
        if not self._days:
            self._spend(stretch.messages * self._pace, self._pace_limit)
            return True
        return self._go_by_the_day(stretch)

    def wait(self, until: datetime, limit: Limit) -> None:
        """Let the time go by until then, for that reason."""
        self._wait(until.timestamp(), limit)

    def _rest(self, stretch: Stretch) -> None:
        """Wait while the mailbox rests. It does too while a day is full; then that is the reason."""
        for until in (self._budget.parked_until, None if stretch.is_urgent else self._budget.kept_for_urgent_until):
            if until is not None and until.timestamp() > self.at:
                tightest = self._tightest(stretch)
                is_full = tightest is not None and tightest.room(self.at, stretch) < stretch.of_a_message - _NOBODY
                self.wait(until, tightest.limit if tightest is not None and is_full else Limit.PARKED)

    def _tightest(self, stretch: Stretch) -> _CountedDay | None:
        return min(self._days, key=lambda day: day.room(self.at, stretch), default=None)

    def _go_by_the_day(self, stretch: Stretch) -> bool:
        begun = waited = self.at
        has_leapt, left = False, stretch.recipients
        while left > _NOBODY:
            if self.at - max(waited, begun + COUNTED_SECONDS) >= COUNTED_SECONDS:
                # For a whole period no quota was met: none ever will be.
                self._spend(left / stretch.of_a_message * self._pace, self._pace_limit)
                return True
            tightest = self._tightest(stretch)
            assert tightest is not None, "it is walked so where there is a quota"
            fits = _fitting(tightest.room(self.at, stretch), left, stretch)
            if fits > _NOBODY:
                left -= self._go_within_a_minute(fits, stretch)
            elif tightest.frees_at is not None:
                self._wait(tightest.frees_at, tightest.limit)
                if not has_leapt and self.at - begun >= 2 * COUNTED_SECONDS:
                    left, has_leapt = self._leap(left, stretch), True
                waited = self.at
            else:
                return False
        return True

    def _go_within_a_minute(self, most: float, stretch: Stretch) -> float:
        """Begin messages to at most so many recipients in what is left of the minute; give to how many."""
        minute = self.at // _MINUTE * _MINUTE
        count = most
        if self._pace:
            begin = ceil((minute + _MINUTE - self.at) / self._pace)
            count = min(most, begin * stretch.of_a_message)
        for day in self._days:
            day.count(minute + COUNTED_SECONDS, count, is_urgent=stretch.is_urgent)
        self._spend(count / stretch.of_a_message * self._pace, self._pace_limit)
        return count

    def _leap(self, left: float, stretch: Stretch) -> float:
        """Leap over the whole periods that are like the one that was just walked; give who is left then.

        At the moment at which a quota has room again, and with it a period of before begins anew.
        """
        of_a_period = self._days[0].counted_since(self.at - COUNTED_SECONDS)
        periods = (left - _NOBODY) // of_a_period if of_a_period else 0.0
        end = self.at + periods * COUNTED_SECONDS
        for day in self._days:
            day.shift(end - self.at)
        sending = periods * of_a_period / stretch.of_a_message * self._pace
        self._spend(min(end - self.at, sending), self._pace_limit)
        # Where the pace leaves time over, a quota does: the one that time was lost to before.
        self._wait(end, max((day.limit for day in self._days), key=lambda limit: self.spent.get(limit, 0.0)))
        return left - periods * of_a_period

    def _wait(self, until: float, limit: Limit) -> None:
        if until > self.at:
            self._spend(until - self.at, limit)
            self.at = until  # exactly

    def _spend(self, seconds: float, limit: Limit) -> None:
        self.at += seconds
        self.spent[limit] = self.spent.get(limit, 0.0) + seconds


def _fitting(room: float, left: float, stretch: Stretch) -> float:
    """Give how many of who is left fit into the room, in whole messages; the last may be a share of one."""
    if left <= room + _NOBODY:
        return left
    return (room + _NOBODY) // stretch.of_a_message * stretch.of_a_message


@dataclass(slots=True)
class _CountedMinute:
    """Recipients that count until then, in seconds since 1970; those of ordinary mail are among them."""

    until: float
    recipients: float
    ordinary: float


class _CountedDay:
    """A quota of 24 hours: what counts against it now, and for how many recipients there is room.

    What goes in and comes out is all recipients; inside only those are counted whom the quota is about.
    """

    def __init__(self, quota: RollingDay) -> None:
        self.limit = quota.limit
        self._part = quota.part
        self._most = quota.recipients
        self._most_ordinary = quota.recipients - quota.kept_for_urgent
        self._recipients = 0.0
        self._ordinary = 0.0
        self._minutes: deque[_CountedMinute] = deque()
        for used in sorted(quota.used, key=lambda one: one.minute):
            self._add(used.minute.timestamp() + COUNTED_SECONDS, used.recipients, used.recipients - used.urgent)

    @property
    def frees_at(self) -> float | None:
        """When the oldest minute counts no more; None where nothing counts."""
        return self._minutes[0].until if self._minutes else None

    def room(self, at: float, stretch: Stretch) -> float:
        """Say for how many recipients there is room then. What urgent mail has used of its share is kept no more."""
        while self._minutes and self._minutes[0].until <= at:
            gone = self._minutes.popleft()
            self._recipients -= gone.recipients
            self._ordinary -= gone.ordinary
        room = self._most - self._recipients
        return (room if stretch.is_urgent else min(room, self._most_ordinary - self._ordinary)) / self._part

    def counted_since(self, at: float) -> float:
        """Give the recipients of the minutes since then, the one that begins then among them."""
        counted = sum(minute.recipients for minute in self._minutes if minute.until >= at + COUNTED_SECONDS)
        return counted / self._part

    def count(self, until: float, recipients: float, *, is_urgent: bool) -> None:
        """Count recipients."""
        counted = recipients * self._part
        self._add(until, counted, 0.0 if is_urgent else counted)

    def shift(self, seconds: float) -> None:
        """Let everything count so much longer."""
        for minute in self._minutes:
            minute.until += seconds

    def _add(self, until: float, recipients: float, ordinary: float) -> None:
        self._recipients += recipients
        self._ordinary += ordinary
        if self._minutes and self._minutes[-1].until == until:
            self._minutes[-1].recipients += recipients
            self._minutes[-1].ordinary += ordinary
        else:
            self._minutes.append(_CountedMinute(until, recipients, ordinary))
