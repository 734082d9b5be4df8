"""The job's id and the part's number in a part that may be broken in any way: to name them, if that can be done."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

import msgspec

from tocsin_schema.contract.identity import NIL, id_from_key
from tocsin_schema.errors import ContractError

T = TypeVar("T")


class _Identity(msgspec.Struct):
    """The fields that say which job it is, whatever stands in them; all others are skipped."""

    id: object = None
    source: object = None
    key: object = None


class _Position(msgspec.Struct):
    """The field that says which part of the job it is; a part without it is the whole job."""

    part: object = msgspec.field(default_factory=lambda: {"number": 1})


_decoder = msgspec.json.Decoder(_Identity)
_position_decoder = msgspec.json.Decoder(_Position)


def job_id_in(body: bytes) -> UUID | None:
    """Read the job's id, or None where the part does not say it."""
    try:
        identity = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    given = _as(UUID, identity.id)
    if given is not None:
        return None if given == NIL else given
    source, key = _as(str, identity.source), _as(str, identity.key)
    if source is None or key is None:
        return None
    try:
        return id_from_key(source, key)
    except (ContractError, ValueError):
        return None


def part_number_in(body: bytes) -> int | None:
    """Read the part's number, or None where the part does not say it."""
    try:
        position = _position_decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    said = _as(dict[str, object], position.part)
    return None if said is None else _as(int, said.get("number"))


def _as(kind: type[T], value: object) -> T | None:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None
