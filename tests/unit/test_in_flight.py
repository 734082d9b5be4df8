from __future__ import annotations

from tocsin_schema.message_broker.in_flight import InFlight


def filled(*bodies: bytes) -> InFlight:
    parts = InFlight(most=10, most_bytes=100)
    for body in bodies:
        parts.add(body, "normal")
    return parts


def published(parts: InFlight) -> list[bytes]:
    """Publish what waits, under tags from 1 on."""
    sent: list[bytes] = []
    while (part := parts.publish_next(len(sent) + 1)) is not None:
        sent.append(part.body)
    return sent


def test_a_confirmed_part_is_forgotten() -> None:
    parts = filled(b"a", b"b")
    assert published(parts) == [b"a", b"b"]
    assert parts.confirm(1, multiple=False)
    assert len(parts) == 1
    assert parts.size == 1


def test_one_confirm_can_stand_for_many() -> None:
    parts = filled(b"a", b"b", b"c")
    published(parts)
    assert parts.confirm(2, multiple=True)
    assert [part.body for part in parts.unconfirmed.values()] == [b"c"]


def test_a_refused_part_waits_again() -> None:
    parts = filled(b"a", b"b")
    published(parts)
    parts.refuse(1, multiple=False)
    assert published(parts) == [b"a"]


def test_a_returned_part_is_not_kept_although_it_is_confirmed() -> None:
    parts = filled(b"a", b"b")
    published(parts)
    parts.note_unroutable(0)
    assert not parts.confirm(2, multiple=True)
    assert published(parts) == [b"a"]
    assert parts.confirm(1, multiple=False)
    assert not len(parts)


def test_what_a_dropped_connection_left_unconfirmed_goes_first_and_in_order() -> None:
    parts = filled(b"a", b"b", b"c")
    parts.publish_next(1)
    parts.publish_next(2)
    parts.reconnect()
    assert published(parts) == [b"a", b"b", b"c"]


def test_a_tag_of_an_earlier_connection_confirms_nothing() -> None:
    parts = filled(b"a")
    published(parts)
    parts.reconnect()
    assert parts.confirm(1, multiple=True)
    assert len(parts) == 1


def test_there_is_room_until_number_or_bytes_are_used_up() -> None:
    parts = InFlight(most=2, most_bytes=10)
    assert parts.has_room(1_000), "a single part always has room"
    parts.add(b"12345678", "bulk")
    assert parts.has_room(2)
    assert not parts.has_room(3)
    parts.add(b"1", "bulk")
    assert not parts.has_room(1)
