"""Time slots of many processes: however they interleave, no 60 seconds ever hold more than is allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_workers.sender.reserving import LATEST_SECONDS, ReservedSlots


class Mailbox:
    """What `reserve_messages` does, one caller after the other."""

    def __init__(self, per_minute: float) -> None:
        self.spacing = 61.0 / per_minute
        self.next_at = float("-inf")

    def reserve(self, now: float, count: int) -> float:
        first = max(self.next_at, now)
        self.next_at = first + count * self.spacing
        return first


RESERVATION = st.tuples(
    st.floats(0, 20),  # seconds since the one before
    st.integers(1, 5),  # messages
    st.floats(0, 2),  # how long the question travels
    st.floats(0, 2),  # how long the answer does
    st.lists(st.floats(0, 3), min_size=5, max_size=5),  # how much too late each message would begin
)


@given(st.integers(1, 60), st.lists(RESERVATION, min_size=1, max_size=40))
def test_no_window_of_a_minute_holds_more_than_allowed_whoever_reserves_when_and_however_late_it_begins(
    per_minute, reservations
):
    mailbox, now, began = Mailbox(per_minute), 0.0, []
    for gap, count, way_there, way_back, delays in reservations:
        now += gap
        # Every process has a clock of its own; here they differ by what the ledger's answer takes.
        first = mailbox.reserve(now, count)
        slots = ReservedSlots(first - now, mailbox.spacing, asked_at=now - way_there, answered_at=now + way_back)
        for place in range(count):
            begins = slots.due_at(place) + delays[place]
            assert slots.due_at(place) >= first + place * mailbox.spacing - 1e-6
            if not slots.is_lapsed(place, begins):
                began.append(begins)
    began.sort()
    for earlier, later in zip(began, began[per_minute:], strict=False):
        assert later - earlier >= 60.0 - 1e-6


def test_a_slot_is_lapsed_when_it_is_a_second_old_by_the_strictest_reckoning():
    slots = ReservedSlots(2.0, 3.0, asked_at=100.0, answered_at=100.4)
    assert slots.due_at(0) == 102.4
    assert slots.due_at(2) == 108.4
    assert not slots.is_lapsed(0, 102.0 + LATEST_SECONDS)
    assert slots.is_lapsed(0, 102.01 + LATEST_SECONDS)
    assert not slots.is_lapsed(2, 108.9)
