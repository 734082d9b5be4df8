"""Counting recipients against the rolling 24 hours of a mailbox and of its tenant. Queries of `daily_recipients.sql`.

The mailbox's row is locked first and the tenant's after it, so that whoever counts next sees what was counted before,
and nobody waits for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from tocsin_schema.ledger.day_quota import DayQuota, Leaving, Used, room, seconds_until_room
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("daily_recipients")


class _Names(NamedTuple):
    """The queries of one kind of day."""

    used: str
    leaving: str
    counting: str


class MessageSize(NamedTuple):
    """How many recipients a message has, and how many of them are outside of the tenant's own domains."""

    recipients: int
    external: int


class Whose(StrEnum):
    """Whose 24 hours are used up."""

    MAILBOX = "mailbox"
    TENANT = "tenant"


_NAMES = {
    Whose.MAILBOX: _Names("used_by_mailbox", "leaving_of_mailbox", "count_for_mailbox"),
    Whose.TENANT: _Names("used_by_tenant", "leaving_of_tenant", "count_for_tenant"),
}


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why the next message did not fit, and when it will.

    `wanted` are the recipients of it that count, `left` for how many there is room, both as far as its job may use it.
    `tenant_id` and `tenant` are set where it is the tenant's 24 hours. `frees_in_seconds` is when this message fits;
    `any_in_seconds` when any urgent message may go out again, which is 0 where what is left is only kept for them.
    """

    whose: Whose
    limit: int
    frees_in_seconds: float
    any_in_seconds: float
    wanted: int
    left: int
    tenant_id: int | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class DayRoom:
    """How many messages fit, in their order, and are counted; and what the next one lacks, where there is one."""

    messages: int
    shortage: Shortage | None = None


@dataclass(frozen=True, slots=True)
class _Day:
    """One of the two days that a message counts against: its quota, and what is used of it."""

    whose: Whose
    id: int
    quota: DayQuota
    used: Used
    sizes: tuple[int, ...]
    tenant: str | None = None

    def fitting(self, *, is_urgent: bool) -> int:
        """Give how many messages fit, from the first on."""
        left = room(self.quota, self.used, is_urgent=is_urgent)
        count = total = 0
        for size in self.sizes:
            total += size
            # Who counts for nothing always fits: a message within the tenant.
            if size and total > left:
                break
            count += 1
        return count


async def count_recipients(
    connection: Connection, mailbox_id: int, messages: Sequence[MessageSize], *, is_urgent: bool
) -> DayRoom:
    """Count messages against the 24 hours of their mailbox and its tenant: as many as there is room for.

    Run in one transaction: the rows are locked until it ends.
    """
    days = await _lock_days(connection, mailbox_id, messages)
    count = min((day.fitting(is_urgent=is_urgent) for day in days), default=len(messages))
    for day in days:
        if recipients := sum(day.sizes[:count]):
            await connection.execute(
                _QUERIES[_NAMES[day.whose].counting],
                {"id": day.id, "recipients": recipients, "urgent": recipients if is_urgent else 0},
            )
    if count == len(messages):
        return DayRoom(count)
    short = next(day for day in days if day.fitting(is_urgent=is_urgent) == count)
    return DayRoom(count, await _shortage(connection, short, count, is_urgent=is_urgent))


async def give_back_recipients(
    connection: Connection, mailbox_id: int | None, size: MessageSize, *, tenant_id: int | None, is_urgent: bool
) -> None:
    """Take back recipients that were counted and not tried after all; None: no mailbox, or tenant, had counted them."""
    if mailbox_id is not None and size.recipients:
        await connection.execute(_QUERIES["lock_mailbox_day"], {"mailbox_id": mailbox_id})
        await connection.execute(
            _QUERIES["give_back_to_mailbox"], {"id": mailbox_id, "count": size.recipients, "is_urgent": is_urgent}
        )
    if tenant_id is not None and size.external:
        await connection.execute(_QUERIES["lock_tenant_day"], {"tenant_id": tenant_id})
        await connection.execute(
            _QUERIES["give_back_to_tenant"], {"id": tenant_id, "count": size.external, "is_urgent": is_urgent}
        )


async def _lock_days(connection: Connection, mailbox_id: int, messages: Sequence[MessageSize]) -> list[_Day]:
    """Lock what is limited, and read what is used of it: with statements of their own, which see who came before."""
    found: list[_Day] = []
    row = await (await connection.execute(_QUERIES["lock_mailbox_day"], {"mailbox_id": mailbox_id})).fetchone()
    if row is None:
        return found
    limit, share, tenant_id = row
    if limit is not None:
        used = await _used(connection, Whose.MAILBOX, mailbox_id)
        sizes = tuple(size.recipients for size in messages)
        found.append(_Day(Whose.MAILBOX, mailbox_id, DayQuota(int(limit), int(share)), used, sizes))
    if tenant_id is None:
        return found
    row = await (await connection.execute(_QUERIES["lock_tenant_day"], {"tenant_id": tenant_id})).fetchone()
    if row is not None and row[0] is not None:
        used = await _used(connection, Whose.TENANT, int(tenant_id))
        sizes = tuple(size.external for size in messages)
        quota = DayQuota(int(row[0]), int(row[1]))
        found.append(_Day(Whose.TENANT, int(tenant_id), quota, used, sizes, str(row[2])))
    return found


async def _used(connection: Connection, whose: Whose, day_id: int) -> Used:
    row = await (await connection.execute(_QUERIES[_NAMES[whose].used], {"id": day_id})).fetchone()
    assert row is not None
    return Used(int(row[0]), int(row[1]))


async def _shortage(connection: Connection, day: _Day, fitting: int, *, is_urgent: bool) -> Shortage:
    """Say what the message after those that fit, and are counted, lacks."""
    wanted = day.sizes[fitting]
    left = max(0, room(day.quota, day.used, is_urgent=is_urgent) - sum(day.sizes[:fitting]))
    rows = await (await connection.execute(_QUERIES[_NAMES[day.whose].leaving], {"id": day.id})).fetchall()
    leaving = [Leaving(float(seconds), int(recipients), int(urgent)) for seconds, recipients, urgent in rows]
    frees = seconds_until_room(day.quota, leaving, wanted, is_urgent=is_urgent)
    least_urgent = wanted if is_urgent else 1
    return Shortage(
        day.whose,
        day.quota.limit,
        frees_in_seconds=max(1.0, frees),
        any_in_seconds=seconds_until_room(day.quota, leaving, least_urgent, is_urgent=True),
        wanted=wanted,
        left=left,
        tenant_id=day.id if day.whose is Whose.TENANT else None,
        tenant=day.tenant,
    )
