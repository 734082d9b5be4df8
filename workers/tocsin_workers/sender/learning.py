"""What a server's replies teach of the limits that it does not publish. Decides, does nothing; takes `now`.

One decrease a cool-down for the whole fleet, from what was seen to get through; back up in small steps, as long as
nothing is refused. Whoever calls these holds the mailbox's row, so that of many refusals at once one decides.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tocsin_schema.ledger.learned_limits import Connections, CountedBy, Rate
from tocsin_schema.ledger.traffic import BUCKET_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tocsin_schema.ledger.traffic import Bucket

#: All processes meet the same refusal within moments: it counts once.
RATE_COOL_DOWN = timedelta(seconds=60)
CONNECTIONS_COOL_DOWN = timedelta(seconds=15)
#: Of what got through, so much is tried from then on.
SHARE_KEPT = 0.9
#: Messages a minute that are left, whatever a server says.
LOWEST_RATE = 0.5
#: Without a refusal for so long the rate is raised a step.
CALM_RATE = timedelta(seconds=120)
LARGEST_STEP_PERCENT = 32
#: … and so long before a rate is tried again that was refused: else one message in a hundred would be.
CALM_BEFORE_REFUSED = timedelta(minutes=10)
SHARE_REFUSED = 0.98
#: A rate of which less than this share is used is no reason to raise it: nobody has tried whether it holds.
SHARE_FELT = 0.5
#: … and with less than this share for so long, an unlimited mailbox is unlimited again.
SHARE_NEEDED = 0.25
FORGOTTEN_AFTER = timedelta(hours=1)
#: A rate of which this share is used is what holds mail up: one more connection would be tried, and refused, in vain.
SHARE_USED_UP = 0.8
#: Without a refusal for so long one more connection is tried; twice as long after each failure.
FIRST_CALM_CONNECTIONS = timedelta(minutes=2)
LONGEST_CALM_CONNECTIONS = timedelta(minutes=60)
#: By when every process has told what it sent before a refusal, and until when that is looked at again.
TOLD_AFTER = timedelta(seconds=4)
TOLD_UNTIL = timedelta(seconds=25)
TOLD_LATER_SECONDS = 2.5

MINUTE_SECONDS = 60.0
SECOND_SPAN_SECONDS = 10.0
#: After a refusal by a server that counts by the second (SES advises 5 s at first).
SECOND_REST_SECONDS = 5.0
SHORTEST_REST_SECONDS = 2.0
#: The sum of a minute that is aimed at when a mailbox goes on after a rest, of what got through.
SHARE_AFTER_REST = 0.95


def observed_rate(traffic: Sequence[Bucket], counted_by: CountedBy, *, since_seconds: float = 0.0) -> float:
    """Give in messages a minute what the server let through before a refusal `since_seconds` ago.

    By the minute: all of the last 60 s. By the second: the fastest of the last buckets.
    """
    # Told a moment later, by another process: it was sent before, too.
    ages = [(age, bucket) for bucket in traffic if (age := bucket.age_seconds - since_seconds) >= -TOLD_LATER_SECONDS]
    match counted_by:
        case CountedBy.MINUTE:
            # A bucket that lies half outside counts, one that lies further outside does not.
            return float(sum(bucket.messages for age, bucket in ages if age <= MINUTE_SECONDS + BUCKET_SECONDS / 2))
        case CountedBy.SECOND:
            return max(
                (
                    bucket.messages / min(BUCKET_SECONDS, max(1.0, bucket.busy_seconds)) * MINUTE_SECONDS
                    for age, bucket in ages
                    if age <= SECOND_SPAN_SECONDS
                ),
                default=0.0,
            )


def slowed(
    rate: Rate, observed: float, counted_by: CountedBy, *, per_minute_set: int | None, now: datetime
) -> Rate | None:
    """Lower the rate after a refusal; None within the cool-down of the last time."""
    if rate.lowered_at is not None and now - rate.lowered_at < RATE_COOL_DOWN:
        return None
    before = _least(per_minute_set, rate.per_minute)
    lowered = SHARE_KEPT * (observed if before is None else min(observed, before))
    return Rate(max(LOWEST_RATE, lowered), lowered_at=now, counted_by=counted_by, needed_at=now, before=before)


def corrected(rate: Rate, traffic: Sequence[Bucket], *, now: datetime) -> Rate | None:
    """Correct a rate that was just lowered, once every process has told what it had sent; None where it stands.

    Whoever met the refusal knew of its own messages and of those that others had told of.
    """
    if rate.per_minute is None or rate.lowered_at is None or rate.counted_by is None or rate.raised_at is not None:
        return None
    age = now - rate.lowered_at
    if not TOLD_AFTER <= age <= TOLD_UNTIL:
        return None
    observed = observed_rate(traffic, rate.counted_by, since_seconds=age.total_seconds())
    better = SHARE_KEPT * (observed if rate.before is None else min(observed, rate.before))
    return replace(rate, per_minute=better) if better > rate.per_minute * 1.01 else None


def rest_seconds(traffic: Sequence[Bucket], per_minute: float, counted_by: CountedBy) -> float:
    """Say how long a mailbox rests after a refusal, so that no minute holds more than what got through.

    A server that counts by the minute goes on refusing until the oldest of what it has seen is a minute old. After a
    burst that is a minute; at an even rate, which the new one is below, a moment.
    """
    if counted_by is CountedBy.SECOND:
        return SECOND_REST_SECONDS
    leaving = [(MINUTE_SECONDS - bucket.age_seconds + BUCKET_SECONDS, bucket.messages) for bucket in traffic]
    leaving = [(min(in_seconds, MINUTE_SECONDS), messages) for in_seconds, messages in leaving if in_seconds > 0]
    most = SHARE_AFTER_REST * sum(messages for _, messages in leaving)
    moments = sorted({SHORTEST_REST_SECONDS, *(max(SHORTEST_REST_SECONDS, at) for at, _ in leaving)})
    for rest in moments:
        # Right before some of it leaves, a window is at its fullest.
        later = [at for at, _ in leaving if at > rest]
        if all(_held(leaving, at) + (at - rest) * per_minute / MINUTE_SECONDS <= most for at in later):
            return rest
    return moments[-1]


def raised_rate(rate: Rate, observed: float, *, per_minute_set: int | None, now: datetime) -> Rate | None:
    """Raise a rate that was calm for a while and is used: by 1, 2, 4 … 32 %; None where nothing changes.

    `observed` is what went out in the last minute. A Rate without a number says that it is forgotten: it has reached
    what is set, or nothing is set and far less was needed for an hour.
    """
    if rate.per_minute is None or rate.lowered_at is None:
        return None
    needed_at = _needed_at(rate, observed, now)
    if per_minute_set is None and now - (needed_at or rate.lowered_at) >= FORGOTTEN_AFTER:
        return Rate()
    raised = rate.per_minute * (1 + min(LARGEST_STEP_PERCENT, 2 ** min(rate.steps, 10)) / 100)
    was_refused = rate.before is not None and raised >= SHARE_REFUSED * rate.before
    calm = now - (rate.raised_at or rate.lowered_at)
    is_calm = calm >= (CALM_BEFORE_REFUSED if was_refused else CALM_RATE)
    if not is_calm or observed < SHARE_FELT * rate.per_minute:
        return replace(rate, needed_at=needed_at) if needed_at != rate.needed_at else None
    if per_minute_set is not None and raised >= per_minute_set:
        return Rate()
    return replace(rate, per_minute=raised, raised_at=now, steps=rate.steps + 1, needed_at=needed_at)


def fewer_connections(
    learned: Connections, open_now: int, *, connections_set: int | None, at_greeting: bool, now: datetime
) -> Connections | None:
    """Lower the number of connections after a refusal; None within the cool-down, or where there is but one.

    `open_now` is how many the fleet has open. Half of them go, or one where it was one more that was tried. A refusal
    at the greeting leaves those that are open: the server has taken them.
    """
    if learned.lowered_at is not None and now - learned.lowered_at < CONNECTIONS_COOL_DOWN:
        return None
    before = _least(connections_set, learned.connections)
    if before == 1:
        return None
    if at_greeting:
        wanted = open_now
    elif learned.raised_at is not None:
        wanted = open_now - 1
    else:
        wanted = open_now // 2
    number = max(1, wanted if before is None else min(wanted, int(before) - 1))
    return Connections(number, lowered_at=now, failures=min(learned.failures + 1, 100))


def more_connections(
    learned: Connections, *, connections_set: int | None, is_rate_used_up: bool, now: datetime
) -> Connections | None:
    """Try one more connection after a calm while: 2, 4, 8 … 60 minutes; None where it is not yet time, or of no use.

    Connections without a number say that it is forgotten: it has reached what is set.
    """
    if learned.connections is None or learned.lowered_at is None or is_rate_used_up:
        return None
    if now - (learned.raised_at or learned.lowered_at) < calm_of_connections(learned.failures):
        return None
    number = learned.connections + 1
    if connections_set is not None and number >= connections_set:
        return Connections()
    return replace(learned, connections=number, raised_at=now)


def is_used_up(rate: Rate, observed: float, *, per_minute_set: int | None) -> bool:
    """Whether the rate in force is what holds a mailbox's mail up; `observed` is what went out in the last minute."""
    in_force = _least(per_minute_set, rate.per_minute)
    return in_force is not None and observed >= SHARE_USED_UP * in_force


def calm_of_connections(failures: int) -> timedelta:
    """Give how long it must be calm after so many failures (at least 1): 2, 4, 8 … 60 minutes."""
    return min(LONGEST_CALM_CONNECTIONS, FIRST_CALM_CONNECTIONS * 2 ** min(max(failures, 1) - 1, 10))


def _needed_at(rate: Rate, observed: float, now: datetime) -> datetime | None:
    """Give when a rate was last needed; told anew once a minute at most."""
    is_needed = rate.per_minute is not None and observed >= SHARE_NEEDED * rate.per_minute
    is_old = rate.needed_at is None or now - rate.needed_at >= timedelta(seconds=MINUTE_SECONDS)
    return now if is_needed and is_old else rate.needed_at


def _held(leaving: Sequence[tuple[float, int]], at: float) -> int:
    """Give how many of what was sent still count right before a moment."""
    return sum(messages for leaves_at, messages in leaving if leaves_at >= at)


def _least(one: float | None, other: float | None) -> float | None:
    known = [limit for limit in (one, other) if limit is not None]
    return min(known, default=None)
