"""Which job a part belongs to: the idempotency key that its sender chose."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.errors import ContractError

if TYPE_CHECKING:
    from tocsin_schema.contract.part import JobPart

JOB_NAMESPACE = UUID("8c5f2f8e-5a0b-5c0e-9d57-6b1f0a4d3e21")
"""The namespace of ids made from `source` and `key`. It is part of the contract and never changes."""

SEPARATOR = "\x1f"
"""Stands between source and key (U+001F, unit separator), so that no two pairs give the same name."""

NIL = UUID(int=0)


def job_id(part: JobPart) -> UUID:
    """Return the job's id: `id`, or the UUIDv5 (RFC 9562 section 5.5) of source, separator and key.

    Raises ContractError(bad_id) unless exactly one of the two ways was taken.
    """
    if part.id is not None:
        if part.key is not None:
            raise _bad("a part has both id and key", field="key", fix="Give id, or source and key, not both.")
        if part.id == NIL:
            raise _bad("id is the nil UUID", field="id", fix="Make a new UUID for each job.")
        return part.id
    if part.key is None:
        raise _bad("a part has neither id nor key", field=None, fix="Give id, or source and key.")
    if part.source is None:
        raise _bad("a part has key but not source", field="source", fix="Give both.")
    return id_from_key(part.source, part.key)


def id_from_key(source: str, key: str) -> UUID:
    """Return the id of the job that `source` calls `key`. Raises ContractError for U+001F in source."""
    if SEPARATOR in source:
        raise _bad("source contains U+001F", field="source", fix="Leave out control characters.")
    return uuid5(JOB_NAMESPACE, f"{source}{SEPARATOR}{key}")


def _bad(what: str, *, field: str | None, fix: str) -> ContractError:
    return ContractError(ContractCode.BAD_ID, f"The job cannot be told from others: {what}.", field=field, fix=fix)
