"""What `data` may hold: plain JSON that comes out of the ledger and out of a template as it went in."""

from __future__ import annotations

from typing import cast

from tocsin_schema.contract.addresses import shorten
from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.json_text import MAX_DEPTH, too_deep
from tocsin_schema.errors import ContractError

MAX_DATA_KEY = 200
"""Characters of a key in `data`."""

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


def check_data(data: dict[str, object], path: str) -> None:
    """Raise ContractError for numbers beyond 64 bits, long keys and deep nesting."""
    _check_object(data, path, 1)


def _check_object(data: dict[str, object], path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise too_deep(shorten(path, 200))
    for key, value in data.items():
        if len(key) > MAX_DATA_KEY:
            raise ContractError(
                ContractCode.TOO_LONG,
                f"A key in {path} has {len(key)} characters; {MAX_DATA_KEY} are allowed.",
                field=path,
                fix="Shorten it.",
            )
        if type(value) is not str:
            _check_value(value, f"{path}.{key}", depth)


def _check_value(value: object, path: str, depth: int) -> None:
    if isinstance(value, dict):
        _check_object(cast("dict[str, object]", value), path, depth + 1)
    elif isinstance(value, list):
        if depth >= MAX_DEPTH:
            raise too_deep(shorten(path, 200))
        for index, inner in enumerate(cast("list[object]", value)):
            _check_value(inner, f"{path}[{index}]", depth + 1)
    elif isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        raise ContractError(
            ContractCode.WRONG_VALUE,
            f"{shorten(path, 200)} is a whole number of more than 64 bits.",
            field=shorten(path, 200),
            fix="Send it as a string.",
        )
