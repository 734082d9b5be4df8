"""Recipients in a rolling 24 hours, the share that is kept for urgent jobs, and who counts as external."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.day_quota import DayQuota, Leaving, Used, room, seconds_until_room
from tocsin_schema.ledger.installation_settings import checked_value, definition_of, in_force
from tocsin_schema.ledger.internal_domains import is_internal, read_domains

QUOTA = DayQuota(10_000, 2_000)


@pytest.mark.parametrize(
    ("used", "is_urgent", "left"),
    [
        (Used(0, 0), False, 8_000),
        (Used(0, 0), True, 10_000),
        (Used(8_000, 0), False, 0),
        (Used(8_000, 0), True, 2_000),
        (Used(8_000, 500), False, 500),  # urgent jobs have used a part of their share
        (Used(9_000, 2_500), False, 1_000),  # and all of it
        (Used(10_000, 2_000), True, 0),
        (Used(12_000, 0), False, -4_000),  # the limit was lowered
    ],
)
def test_what_urgent_jobs_have_not_used_of_their_share_is_kept_for_them(used, is_urgent, left):
    assert room(QUOTA, used, is_urgent=is_urgent) == left


def test_there_is_room_again_when_enough_have_grown_a_day_old():
    leaving = [Leaving(600.0, 100, 0), Leaving(1200.0, 100, 0), Leaving(1800.0, 9_800, 0)]
    assert seconds_until_room(QUOTA, leaving, 1, is_urgent=True) == 600.0
    assert seconds_until_room(QUOTA, leaving, 101, is_urgent=True) == 1200.0
    assert seconds_until_room(QUOTA, leaving, 1, is_urgent=False) == 1800.0
    assert seconds_until_room(QUOTA, [Leaving(600.0, 100, 0)], 50, is_urgent=False) == 0.0


def test_as_urgent_recipients_grow_old_their_share_is_kept_anew():
    quota = DayQuota(100, 20)
    leaving = [Leaving(60.0, 20, 20), Leaving(120.0, 80, 0)]
    # After a minute 20 are free, and kept for urgent jobs.
    assert seconds_until_room(quota, leaving, 1, is_urgent=False) == 120.0


@given(
    st.integers(1, 200),
    st.integers(0, 90),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=10),
    st.integers(1, 50),
    st.booleans(),
)
def test_when_there_is_room_it_is_there_and_not_before(limit, percent, minutes, wanted, is_urgent):
    quota = DayQuota(limit, limit * percent // 100)
    leaving = [Leaving(60.0 * place, n + urgent, urgent) for place, (n, urgent) in enumerate(minutes, 1)]

    def fits(seconds: float) -> bool:
        left = [one for one in leaving if one.in_seconds > seconds]
        used = Used(sum(one.recipients for one in left), sum(one.urgent for one in left))
        return room(quota, used, is_urgent=is_urgent) >= wanted

    seconds = seconds_until_room(quota, leaving, wanted, is_urgent=is_urgent)
    assert all(not fits(one.in_seconds) for one in leaving if one.in_seconds < seconds)
    assert fits(seconds) or seconds == (leaving[-1].in_seconds if leaving else 0.0)


@pytest.mark.parametrize(
    ("address", "internal"),
    [
        ("a@example.org", True),
        ("a@mail.example.org", True),
        ("a@example.org.net", False),
        ("a@notexample.org", False),
        ("a@org", False),
        ("a@xn--mnchen-3ya.de", True),
        ("example.org@other.net", False),
    ],
)
def test_a_domain_of_the_organisation_or_one_below_it_is_internal(address, internal):
    assert is_internal(address, read_domains("Example.ORG,  München.de")) is internal


def test_without_internal_domains_everybody_is_external():
    assert not is_internal("a@example.org", in_force({}).internal_domains)


def test_internal_domains_are_kept_in_one_form_and_can_be_taken_back():
    definition = definition_of("InternalDomains")
    assert checked_value(definition, "Example.org, b.example") == "b.example, example.org"
    assert checked_value(definition, "none") == ""
    assert in_force({"InternalDomains": "b.example, example.org"}).internal_domains == {"b.example", "example.org"}
    for text in ("", "a@b.example", "exa mple_", "http://example.org", "1.2.3.4", "org"):
        with pytest.raises(UsageError):
            checked_value(definition, text)
