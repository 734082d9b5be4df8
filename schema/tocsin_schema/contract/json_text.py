"""The first gate: octets from anywhere to plain JSON values, or a ContractError that says why not.

msgspec alone would be faster, but it takes a doubled key in silence (the last one wins) and tells lone
surrogates as truncated input. The standard library's parser sees both, and takes 1 to 2 ms for a full part.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn, cast

from tocsin_schema.contract.addresses import shorten
from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.part import MAX_OCTETS
from tocsin_schema.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 32
"""Objects and arrays inside one another, counted within `data`."""

_SUSPICIOUS_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(raw: bytes) -> object:
    """Return the JSON value in `raw`: at most 8 MiB of UTF-8, no NUL, no lone surrogate, no key twice.

    Raises ContractError, and nothing else.
    """
    if len(raw) > MAX_OCTETS:
        raise ContractError(
            ContractCode.TOO_LARGE,
            f"The part has {len(raw)} octets; {MAX_OCTETS} are allowed.",
            fix="Cut the recipients into more parts, or make the attachments smaller.",
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ContractError(
            ContractCode.NOT_UTF8,
            f"The part is not UTF-8: octet {error.start} fits no character.",
            fix="Encode it as UTF-8.",
        ) from None
    if "\0" in text:
        raise _nul(None)
    value = _parsed(text)
    if _SUSPICIOUS_ESCAPE.search(raw):
        _check_characters(value)
    return value


def _parsed(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object_without_doubles, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ContractError(
            ContractCode.NOT_JSON,
            f"The part is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
            fix="Send one JSON object.",
        ) from None
    except RecursionError:
        raise too_deep(None) from None
    except ValueError:
        # Python's own limit on the digits of a number.
        raise ContractError(
            ContractCode.WRONG_VALUE,
            "The part holds a number with thousands of digits.",
            fix="Send it as a string.",
        ) from None


def _object_without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ContractError(
                ContractCode.DUPLICATE_KEY,
                f"The key {shorten(key)!r} stands twice in one object.",
                field=shorten(key),
                fix="Give it once.",
            )
        seen.add(key)
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ContractError(
        ContractCode.NOT_JSON,
        f"The part is not JSON: {name} is not a number.",
        fix="Send null or leave it out.",
    )


def _check_characters(value: object) -> None:
    for path, text in _strings(value, "", 0):
        if "\0" in text:
            raise _nul(path)
        if _SURROGATE.search(text):
            raise ContractError(
                ContractCode.LONE_SURROGATE,
                f"{path or 'The part'} holds half of a surrogate pair.",
                field=path or None,
                fix="Send whole characters.",
            )


def _strings(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > MAX_DEPTH * 2:
        raise too_deep(path)
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            below = f"{path}.{key}" if path else key
            yield below, key
            yield from _strings(inner, below, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[object]", value)):
            yield from _strings(inner, f"{path}[{index}]", depth + 1)


def _nul(path: str | None) -> ContractError:
    shown = None if path is None else shorten(path.replace("\0", "\\0"))
    return ContractError(
        ContractCode.NUL,
        f"{shown or 'The part'} holds a NUL character, which cannot be stored.",
        field=shown,
        fix="Leave it out.",
    )


def too_deep(path: str | None) -> ContractError:
    """Return the error for objects and arrays nested deeper than MAX_DEPTH."""
    return ContractError(
        ContractCode.TOO_DEEP,
        f"{path or 'The part'} is nested deeper than {MAX_DEPTH} levels.",
        field=path,
        fix="Send flatter data.",
    )
