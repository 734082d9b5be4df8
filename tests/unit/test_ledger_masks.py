from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sending import ClaimedBatch


@given(st.integers(1, 1000).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
def test_a_bit_string_says_of_each_recipient_what_the_mask_says(drawn: tuple[int, set[int]]) -> None:
    size, indexes = drawn
    written = bit_string(sum(1 << index for index in indexes), size)
    batch = ClaimedBatch(job_number=1, number=0, first_ordinal=0, size=size, lease_epoch=1, sent=written)
    assert len(written) == size
    assert {index for index in range(size) if batch.is_sent(index)} == indexes


def test_recipient_zero_stands_first() -> None:
    assert bit_string(0b0001, 4) == "1000"
