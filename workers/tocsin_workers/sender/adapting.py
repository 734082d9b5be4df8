"""Carrying out what `learning` decides: one decrease for the whole fleet, and back up as long as nothing is refused."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.ledger import learned_limits, traffic
from tocsin_schema.ledger.connection import AWAY
from tocsin_schema.ledger.learned_limits import CountedBy, Rate
from tocsin_workers.sender import learning

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection, Pool
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.desk import SenderDesk

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoweredConnections:
    """How many are in force after a refusal, and whether that is all that can be done: with one left, it is not."""

    in_force: int | None
    is_enough: bool


async def tell_traffic(desk: SenderDesk) -> None:
    """Tell the ledger what this process has sent since it last did; nothing where it is idle."""
    counted = desk.traffic.take(desk.sessions.open_by_mailbox, monotonic())
    if not counted:
        return
    try:
        async with desk.pool.connection() as connection:
            await traffic.note_traffic(connection, desk.lease.worker_id, counted)
    except AWAY:
        desk.traffic.put_back(counted, monotonic())
        raise


async def slow_down(connection: Connection, profile: SenderProfile, counted_by: CountedBy, reason: str) -> float:
    """Lower the mailbox's rate after a refusal, unless that was just done; give in seconds how long to rest."""
    learned = await learned_limits.lock_learned(connection, profile.mailbox_id)
    if learned is None:
        return learning.SHORTEST_REST_SECONDS
    recent = await traffic.recent_traffic(connection, profile.mailbox_id)
    observed = learning.observed_rate(recent, counted_by)
    rate = learning.slowed(
        learned.rate, observed, counted_by, per_minute_set=learned.per_minute_set, now=learned.read_at
    )
    if rate is not None:
        await learned_limits.write_rate(connection, profile.mailbox_id, rate, reason=reason)
        _log.warning(
            "rate lowered",
            mailbox=f"{profile.login} at {profile.host}",
            messages_a_minute=round(rate.per_minute or 0.0, 1),
            observed=round(observed, 1),
            reason=reason,
        )
    in_force = (rate or learned.rate).per_minute or learning.LOWEST_RATE
    return learning.rest_seconds(recent, in_force, counted_by)


async def lower_connections(
    connection: Connection, profile: SenderProfile, reason: str, *, at_greeting: bool
) -> LoweredConnections:
    """Lower the mailbox's connections after a refusal, unless that was just done."""
    learned = await learned_limits.lock_learned(connection, profile.mailbox_id)
    if learned is None:
        return LoweredConnections(None, is_enough=False)
    fewer = learning.fewer_connections(
        learned.connections,
        await learned_limits.open_connections(connection, profile.mailbox_id),
        connections_set=learned.connections_set,
        at_greeting=at_greeting,
        now=learned.read_at,
    )
    if fewer is not None:
        await learned_limits.write_connections(connection, profile.mailbox_id, fewer, reason=reason)
        _log.warning(
            "connections lowered",
            mailbox=f"{profile.login} at {profile.host}",
            connections=fewer.connections,
            reason=reason,
        )
    known = (learned.connections_set, (fewer or learned.connections).connections)
    in_force = min((number for number in known if number is not None), default=None)
    return LoweredConnections(in_force, is_enough=fewer is not None or in_force != 1)


async def raise_limits(pool: Pool) -> None:
    """Raise what was calm for a while, in all mailboxes of which something was learned. Safe in every pod at once."""
    async with pool.connection() as connection:
        await traffic.forget_old_traffic(connection)
        mailboxes = await learned_limits.list_learned(connection)
    for mailbox_id in mailboxes:
        async with pool.connection() as connection:
            await _raise_one(connection, mailbox_id)


async def _raise_one(connection: Connection, mailbox_id: int) -> None:
    learned = await learned_limits.lock_learned(connection, mailbox_id)
    if learned is None:
        return
    recent = await traffic.recent_traffic(connection, mailbox_id)
    observed = learning.observed_rate(recent, CountedBy.MINUTE)
    rate = learning.corrected(learned.rate, recent, now=learned.read_at) or learning.raised_rate(
        learned.rate, observed, per_minute_set=learned.per_minute_set, now=learned.read_at
    )
    if rate is not None:
        await learned_limits.write_rate(connection, mailbox_id, rate)
        _tell_of_rate(mailbox_id, learned.rate, rate)
    more = learning.more_connections(
        learned.connections,
        connections_set=learned.connections_set,
        is_rate_used_up=learning.is_used_up(learned.rate, observed, per_minute_set=learned.per_minute_set),
        now=learned.read_at,
    )
    if more is not None:
        await learned_limits.write_connections(connection, mailbox_id, more)
        _log.info("connections raised", mailbox_id=mailbox_id, connections=more.connections or "as set")


def _tell_of_rate(mailbox_id: int, before: Rate, rate: Rate) -> None:
    if rate.per_minute != before.per_minute:
        messages = "as set" if rate.per_minute is None else round(rate.per_minute, 1)
        _log.info("rate raised", mailbox_id=mailbox_id, messages_a_minute=messages)
