"""The recipients of one part: who can be written to, who cannot and why, and who stood there twice.

One bad address never sinks its part. A rejected recipient keeps its place in the list, so that the ledger can
record it as failed with the reason.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from tocsin_schema.contract.addresses import parse_address, shorten
from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.part import JobPart, Mode, Recipient
from tocsin_schema.contract.plain_data import check_data
from tocsin_schema.errors import AddressError, ContractError

MAX_RECIPIENT_NAME = 200
MAX_KEPT_ADDRESS = 320
"""Characters of a malformed address that are kept for showing."""

_LINE_BREAK = re.compile(r"[\r\n]")


class ValidRecipient(Struct, frozen=True):
    """Somebody who can be written to. `ordinal` is the index, from 0, in the part as sent."""

    ordinal: int
    address: str
    """Canonical: what SMTP and headers carry."""
    key: str
    """What addresses are compared by."""
    needs_smtputf8: bool
    name: str | None
    data: dict[str, Any]


class RejectedRecipient(Struct, frozen=True):
    """Somebody who cannot be written to: to be recorded as failed."""

    ordinal: int
    address: str
    """As given, cut to 320 characters."""
    reason: str


class ValidPart(Struct, frozen=True):
    """A part that keeps the contract, with its recipients told apart."""

    part: JobPart
    recipients: list[ValidRecipient]
    rejected: list[RejectedRecipient]
    duplicates: int
    """Later entries of an address that stood earlier in this part; they are in neither list."""


def screen_recipients(part: JobPart) -> ValidPart:
    """Tell valid, malformed and doubled recipients apart.

    Raises ContractError for recipient data in shared mode, and for data that cannot be stored.
    """
    valid: list[ValidRecipient] = []
    rejected: list[RejectedRecipient] = []
    seen: set[str] = set()
    shared = part.mode is Mode.SHARED
    for ordinal, recipient in enumerate(part.recipients):
        if recipient.data:
            _check_recipient_data(recipient, ordinal, shared=shared)
        try:
            address = parse_address(recipient.address)
            reason = _name_problem(recipient.name)
        except AddressError as error:
            rejected.append(_rejected(ordinal, recipient, error.problem))
            continue
        if reason is not None:
            rejected.append(_rejected(ordinal, recipient, reason))
            continue
        key = address.key
        if key in seen:
            continue
        seen.add(key)
        valid.append(
            ValidRecipient(ordinal, address.address, key, address.needs_smtputf8, recipient.name, recipient.data)
        )
    return ValidPart(part, valid, rejected, len(part.recipients) - len(valid) - len(rejected))


def _check_recipient_data(recipient: Recipient, ordinal: int, *, shared: bool) -> None:
    field = f"recipients[{ordinal}].data"
    if shared:
        raise ContractError(
            ContractCode.DATA_IN_SHARED,
            f"{field} is given in shared mode, where all recipients get the same message.",
            field=field,
            fix="Set mode to individual, or leave it out.",
        )
    check_data(recipient.data, field)


def _name_problem(name: str | None) -> str | None:
    if name is None:
        return None
    if len(name) > MAX_RECIPIENT_NAME:
        return f"The name has {len(name)} characters; {MAX_RECIPIENT_NAME} are allowed."
    if _LINE_BREAK.search(name):
        return f"The name {shorten(name)!r} contains a line break."
    return None


def _rejected(ordinal: int, recipient: Recipient, reason: str) -> RejectedRecipient:
    return RejectedRecipient(ordinal, shorten(recipient.address, MAX_KEPT_ADDRESS), reason)
