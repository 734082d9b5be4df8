"""The job's id in a part that may be broken in any way: to name the job in a dead letter, if that can be done."""

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


_decoder = msgspec.json.Decoder(_Identity)


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


def _as(kind: type[T], value: object) -> T | None:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None
