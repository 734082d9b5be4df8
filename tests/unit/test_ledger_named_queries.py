from __future__ import annotations

import pytest

from tocsin_schema.ledger.sql import named_queries, split_queries


def test_a_query_goes_from_its_name_to_the_next_one() -> None:
    text = "-- What this file is.\n\n-- name: one\n-- says why\nSELECT 1;\n\n-- name: two_2\nSELECT 2;\n"
    assert split_queries(text) == {"one": b"-- says why\nSELECT 1;", "two_2": b"SELECT 2;"}


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        split_queries("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")


def test_sql_before_the_first_name_is_refused() -> None:
    with pytest.raises(ValueError, match="before the first"):
        split_queries("SELECT 0;\n-- name: one\nSELECT 1;\n")


@pytest.mark.parametrize("line", ["  -- name: one", "-- name: One", "-- name:one", "-- name: one, two"])
def test_only_a_whole_line_is_a_name(line: str) -> None:
    assert set(split_queries(f"-- name: first\nSELECT 1;\n{line}\n")) == {"first"}


def test_a_file_of_queries_cannot_be_changed_by_its_readers() -> None:
    queries = named_queries("sending")
    assert queries is named_queries("sending")
    with pytest.raises(TypeError):
        queries["claim_batches"] = b""  # pyright: ignore[reportIndexIssue]  # that is what is tried
