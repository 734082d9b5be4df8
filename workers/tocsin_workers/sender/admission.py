"""How many slices a process runs at once: in all, of one profile, and what of it is kept for more urgent work. Pure.

A slice that waits for its mail server takes little, so there may be many more of them than threads. They are bounded
all the same: each holds a connection and what it has claimed. However slow the servers of some are, there shall be a
place for others:

- A profile begins with a few, and earns one more with each that ends well, as a destination does with Postfix
  (`initial_destination_concurrency`, `default_destination_concurrency_limit`); but only while the process has time to
  spare, since where it has not, more slices make nothing quicker.
- It never has more than it leaves free (A. K. Choudhury and E. L. Hahne, "Dynamic Queue Length Thresholds in a
  Shared-Memory ATM Switch", 1996, with a factor of one).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.message_broker.topology import reserved_for_urgent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

URGENT_RANK = 0
#: Slices that a process runs at once, for each of its threads.
SLICES_A_THREAD = 32
#: Slices of one profile in one process, at first and at most; urgent wake-ups may have a few more.
FIRST_OF_A_PROFILE = 10
MOST_OF_A_PROFILE = 20
MORE_IF_URGENT = reserved_for_urgent(MOST_OF_A_PROFILE)
#: A process whose event loop is busy for this share of the time has none to spare.
BUSY_SHARE = 0.8


def earned(before: int, busy_share: float) -> int:
    """Give how many slices a profile may have beyond the first few, once one more of them has ended well."""
    return min(MOST_OF_A_PROFILE, before + 1) if busy_share < BUSY_SHARE else max(0, before - 1)


def admits(running: Mapping[UUID, int], profile_id: UUID, rank: int, *, earned: int, most: int) -> bool:
    """Whether a process that runs so many slices of each profile, and `most` at once, may begin one more.

    `earned` is how many the profile may have beyond the first few. A quarter of all is kept from each rank for those
    before it.
    """
    own = running.get(profile_id, 0)
    free = most - sum(running.values()) - rank * reserved_for_urgent(most)
    deserved = min(MOST_OF_A_PROFILE, FIRST_OF_A_PROFILE + earned)
    return own < min(free, deserved + (MORE_IF_URGENT if rank == URGENT_RANK else 0))
