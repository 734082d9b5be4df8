"""When mail will be through: a mailbox's budget and backlog walked forward from now. Pure; asks nobody.

The model. Better ranks go first. Jobs of one rank share evenly, so a job is through when each of the others has had as
much as it, or is through itself; a small job behind a big one ends early. Messages leave at the rate in force, where
there is one; else as fast as the mailbox's last minute shows; where that shows nothing the speed is not known, and no
figure is made up. Recipients count against the rolling 24 hours, minute by minute, exactly as `mailboxes.sql` counts
them. What is paused, or begins later than the job in question, is not in its way.

An estimate is for a person who decides whether to wait, so it is rounded up: to a minute, ten minutes, an hour, the
further off the coarser.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tocsin_schema.ledger.mailbox_walk import Limit, MailboxWalk, Stretch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.mailbox_walk import Budget

URGENT_RANK = 0

_ROUNDING = (
    (timedelta(hours=6), timedelta(minutes=1)),
    (timedelta(days=2), timedelta(minutes=10)),
    (timedelta.max, timedelta(hours=1)),
)
"""Up to so far off, rounded up to so much."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is left of a job: so many recipients in so many messages, from `begins_at` on (None: from now on)."""

    rank: int
    recipients: int
    messages: int
    begins_at: datetime | None = None
    deferred: int = 0
    """Of the recipients, those whom a server put off."""
    deferred_until: datetime | None = None
    """When the last of them is due again."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """When work will be through.

    `done_at` is None where nobody can know; `limited_by` says why, and of a time that is known what costs most of it.
    `not_before` is what is known without a `done_at`. `takes` is how long it takes from when a hold that a person
    must end (`paused`, `halted`, `no_worker`, no part 1) has ended; without such a hold from now. All are rounded up.
    """

    done_at: datetime | None
    limited_by: Limit
    not_before: datetime | None = None
    takes: timedelta | None = None
    ahead: int = 0
    """Recipients of other jobs that are sent to before it is through."""
    is_never: bool = False
    """Whether it never will be: a message does not fit into what the day allows."""

    def is_after(self, expires_at: datetime) -> bool:
        """Whether it will not be through by then, as far as anything is known."""
        known = self.done_at or self.not_before
        return self.is_never or (known is not None and known > expires_at)


def estimate_job(
    own: Work, others: Sequence[Work], budget: Budget, *, now: datetime, hold: Limit | None = None
) -> Estimate:
    """Estimate when a job will be through that shares its mailbox with `others`.

    `hold` is what keeps it back until a person ends it: then there is no `done_at`.
    """
    ahead = stretches_ahead(own, others, now)
    stretches = [*ahead, _stretch(own)] if own.recipients else ahead
    estimate = _estimated(stretches, own, budget, now, hold)
    return Estimate(
        estimate.done_at, estimate.limited_by, estimate.not_before, estimate.takes,
        ahead=round(sum(stretch.recipients for stretch in ahead)), is_never=estimate.is_never,
    )  # fmt: skip


def estimate_backlog(
    works: Sequence[Work], budget: Budget, *, now: datetime, hold: Limit | None = None
) -> Estimate | None:
    """Estimate when a mailbox will be through all of it; None where there is nothing to do."""
    if not any(work.recipients for work in works):
        return None
    stretches = [_stretch(work) for work in sorted(works, key=lambda work: (work.rank, _begin(work, now)))]
    deferred = sum(work.deferred for work in works)
    deferred_until = max((work.deferred_until for work in works if work.deferred_until is not None), default=None)
    recipients = sum(work.recipients for work in works)
    whole = Work(works[0].rank, recipients, 0, deferred=deferred, deferred_until=deferred_until)
    return _estimated(stretches, whole, budget, now, hold)


def stretches_ahead(own: Work, others: Sequence[Work], now: datetime) -> list[Stretch]:
    """Give what is sent before a job is through, in its order: better ranks whole, of its own rank an even share."""
    begin = _begin(own, now)
    in_the_way = [
        other for other in others if other.rank <= own.rank and other.recipients and _begin(other, now) <= begin
    ]
    found: list[Stretch] = []
    for rank in sorted({other.rank for other in in_the_way}):
        recipients = messages = 0.0
        for other in in_the_way:
            if other.rank == rank:
                share = 1.0 if rank < own.rank else min(1.0, own.recipients / other.recipients)
                recipients += other.recipients * share
                messages += other.messages * share
        if recipients:
            found.append(Stretch(recipients, messages, is_urgent=rank == URGENT_RANK))
    return found


def rounded_up(at: datetime, now: datetime) -> datetime:
    """Round a time up, the coarser the further it is off.

    >>> rounded_up(datetime(2026, 11, 22, 14, 34, 20, tzinfo=UTC), datetime(2026, 11, 22, 14, 10, tzinfo=UTC)).minute
    35
    """
    step = next(step for until, step in _ROUNDING if at - now < until)
    start = datetime(2000, 1, 1, tzinfo=UTC)
    return start - (start - at) // step * step


def _stretch(work: Work) -> Stretch:
    return Stretch(work.recipients, work.messages, is_urgent=work.rank == URGENT_RANK, not_before=work.begins_at)


def _begin(work: Work, now: datetime) -> datetime:
    return now if work.begins_at is None else max(now, work.begins_at)


def _estimated(stretches: Sequence[Stretch], own: Work, budget: Budget, now: datetime, hold: Limit | None) -> Estimate:
    """Walk the stretches in turn, then wait for `own`'s deferred recipients. Only those are looked at of `own`."""
    walk = MailboxWalk(budget, now)
    if not all(walk.go(stretch) for stretch in stretches):
        return Estimate(None, hold or Limit.DAY, is_never=True)
    if own.deferred_until is not None:
        walk.wait(own.deferred_until, Limit.RETRIES)
    end = rounded_up(datetime.fromtimestamp(walk.at, UTC), now)
    main = max(walk.spent, key=lambda limit: walk.spent[limit], default=Limit.UNKNOWN_SPEED)
    if not _is_known(walk, own, budget):
        waits = walk.spent.get(main, 0.0) > 0 and hold is None
        return Estimate(None, hold or (main if waits else Limit.UNKNOWN_SPEED), not_before=end if waits else None)
    if hold is not None:
        return Estimate(None, hold, takes=end - now)
    return Estimate(end, main, takes=end - now)


def _is_known(walk: MailboxWalk, own: Work, budget: Budget) -> bool:
    """Whether the end of the walk is one that can be told, also where no speed is known.

    A full day outweighs any speed; and recipients who only wait to be tried again are few.
    """
    if budget.seconds_a_message is not None:
        return True
    waited = walk.spent.get(Limit.DAY, 0.0) + walk.spent.get(Limit.TENANT, 0.0)
    return waited > 0 or own.recipients == own.deferred
