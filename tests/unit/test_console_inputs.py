"""Pairs and limits are read strictly, and what is wrong is named."""

from __future__ import annotations

import pytest

from tocsin_console.reading.inputs import read_limit, read_pairs
from tocsin_schema.errors import UsageError


def test_pairs_become_a_mapping_and_only_the_first_equals_sign_parts_them() -> None:
    assert read_pairs(["a=1", "b=x=y", "c="], "--data") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("pair", ["a", "=1", "  =1", ""])
def test_a_pair_without_name_or_equals_sign_is_refused(pair: str) -> None:
    with pytest.raises(UsageError, match="--data"):
        read_pairs([pair], "--data")


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="'a' twice"):
        read_pairs(["a=1", "a=2"], "--data")


def test_a_limit_is_a_number_or_none() -> None:
    assert read_limit("30", "--per-minute") == 30
    assert read_limit("None", "--per-minute") is None


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "³", "9" * 40, "2000000001"])
def test_any_other_limit_is_refused_and_the_flag_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"--per-minute.*1 to 2000000000"):
        read_limit(text, "--per-minute")
