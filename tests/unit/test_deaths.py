from __future__ import annotations

import json
import math
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.message_broker.deaths import death_of

header_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def test_the_newest_death_tells_reason_queue_and_count() -> None:
    death = death_of(
        {
            "x-death": [
                {"reason": "delivery_limit", "queue": "tocsin.intake.bulk", "count": 2, "time": datetime.now(UTC)},
                {"reason": "rejected", "queue": "tocsin.intake.urgent", "count": 1},
            ],
            "x-first-death-reason": "rejected",
        }
    )
    assert (death["reason"], death["queue"], death["count"]) == ("delivery_limit", "tocsin.intake.bulk", 2)


def test_a_message_that_did_not_die_here_has_an_unknown_reason() -> None:
    assert death_of(None) == {"reason": "unknown", "queue": None, "count": 1, "headers": {}}


@given(st.dictionaries(st.sampled_from(["x-death", "x-first-death-reason", "other"]) | st.text(), header_values))
def test_strangers_headers_become_plain_json_without_nul(headers: dict[str, object]) -> None:
    text = json.dumps(death_of(headers), ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    assert "\\u0000" not in text
    assert len(death_of(headers)["reason"]) <= 1000


def test_numbers_that_json_has_no_form_for_become_words() -> None:
    # Postgres refuses NaN in JSON: the letter would come back and hold up the queue for ever.
    headers = death_of({"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": 1.5})["headers"]
    assert headers == {"a": "nan", "b": ["inf", {"c": "-inf"}], "d": 1.5}


def test_deep_and_long_headers_are_cut() -> None:
    deep: object = "bottom"
    for _ in range(200):
        deep = [deep]
    death = death_of({"deep": deep, "long": "x" * 100_000})
    assert len(json.dumps(death)) < 5_000
