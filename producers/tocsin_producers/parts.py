"""From a job and its recipients to parts that intake will take: cut, encoded and validated. Pure, in flat memory."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003  the fields of JobFields are read at run time by tools
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast
from uuid import UUID, uuid4

from msgspec.structs import replace

from tocsin_schema.contract.addresses import shorten
from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.encoding import encode_part, encoded_recipient_size
from tocsin_schema.contract.part import Attachment, Content, JobPart, Recipient
from tocsin_schema.contract.splitting import split_job
from tocsin_schema.contract.validation import decode_part
from tocsin_schema.errors import ContractError

if TYPE_CHECKING:
    from tocsin_schema.contract.recipient_list import ValidPart

AnyRecipient: TypeAlias = Recipient | str | Mapping[str, object]
"""A recipient as callers have it: a bare address, or `{"address": …, "name": …, "data": {…}}`."""


class JobFields(TypedDict, total=False):
    """The fields of a job that all its parts repeat, as docs/contract.md tells them, and its attachments."""

    id: UUID | str
    source: str
    key: str
    event: str
    correlation_id: str
    profile: str
    template: str
    data: dict[str, Any]
    content: Content
    from_name: str
    reply_to: str
    to: str
    headers: dict[str, str]
    mode: str
    priority: str
    send_after: datetime
    expires_at: datetime
    on_unknown: str
    attachments: tuple[Attachment, ...]


_FIELDS = frozenset(JobFields.__annotations__)
_RECIPIENT_FIELDS = frozenset(Recipient.__struct_fields__)


@dataclass(frozen=True, slots=True)
class PreparedPart:
    """One part, ready to be published: `body` is exactly what goes on the wire."""

    body: bytes = field(repr=False)
    valid: ValidPart = field(repr=False)
    """What intake will make of it."""

    @property
    def rank(self) -> str:
        """The routing key."""
        return self.valid.part.priority.value


def job_of(job: JobPart | None, fields: JobFields) -> JobPart:
    """Give the job that `fields` describe, or `job` with `fields` in place of its own.

    Where nothing says which job it is (no id and no key), it gets a new id. Raises ContractError for a field that
    does not exist or whose value JSON cannot express.
    """
    for name in fields.keys() - _FIELDS:
        raise _unknown_field(shorten(name), _FIELDS)
    values = cast("dict[str, Any]", fields)
    if job is None and "profile" not in fields:
        raise ContractError(ContractCode.MISSING_FIELD, "profile is missing.", field="profile", fix="Give it.")
    made = JobPart(recipients=(), **values) if job is None else replace(job, recipients=(), **values)
    if made.id is None and made.key is None:
        made = replace(made, id=uuid4())
    _expressible(None, lambda: encode_part(made))
    return made


def prepare_parts(job: JobPart, recipients: Iterable[AnyRecipient]) -> Iterator[PreparedPart]:
    """Yield the parts of a job, each validated as intake will do it.

    `recipients` is read once and lazily. Raises ContractError; what `recipients` itself raises goes through, and no
    part has been marked as the last then.
    """
    begins_with = 0
    for part in split_job(job, _typed(recipients)):
        body = encode_part(part)
        try:
            valid = decode_part(body)
        except ContractError as error:
            if part.part.number == 1:
                raise
            raise ContractError(
                error.code,
                f"In part {part.part.number}, which begins with recipient {begins_with}: {error.problem}",
                field=error.field,
                fix=error.fix,
            ) from None
        yield PreparedPart(body, valid)
        begins_with += len(part.recipients)


def _typed(recipients: Iterable[AnyRecipient]) -> Iterator[Recipient]:
    for index, entry in enumerate(recipients):
        match entry:
            case Recipient():
                recipient = entry
            case str():
                recipient = Recipient(entry)
            case Mapping():
                recipient = _from_mapping(entry, index)
            case _:
                raise ContractError(  # pyright: ignore[reportUnreachable]  # callers without types
                    ContractCode.WRONG_TYPE,
                    f"recipients[{index}] is a {type(entry).__name__}.",
                    field=f"recipients[{index}]",
                    fix="Give an address, or an object with address, name and data.",
                )
        _expressible(f"recipients[{index}]", lambda recipient=recipient: encoded_recipient_size(recipient))
        yield recipient


def _from_mapping(entry: Mapping[str, object], index: int) -> Recipient:
    """Take the fields as they are: their types are checked with the whole part."""
    where = f"recipients[{index}]"
    for name in entry.keys() - _RECIPIENT_FIELDS:
        raise _unknown_field(f"{where}.{shorten(str(name))}", _RECIPIENT_FIELDS)
    if "address" not in entry:
        raise ContractError(
            ContractCode.MISSING_FIELD, f"{where}.address is missing.", field=f"{where}.address", fix="Give it."
        )
    return Recipient(**cast("dict[str, Any]", dict(entry)))


def _expressible(field: str | None, encode: Callable[[], object]) -> None:
    """Raise ContractError for what JSON, or its Unicode, has no form for."""
    what = field or "The job"
    try:
        encode()
    except UnicodeEncodeError:
        raise ContractError(
            ContractCode.LONE_SURROGATE,
            f"{what} holds half of a surrogate pair.",
            field=field,
            fix="Send whole characters.",
        ) from None
    except RecursionError:
        raise ContractError(
            ContractCode.TOO_DEEP, f"{what} is nested too deeply.", field=field, fix="Send flatter data."
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractError(
            ContractCode.WRONG_TYPE,
            f"{what} holds what JSON cannot express: {shorten(str(error), 200)}.",
            field=field,
            fix="Send text, numbers, true, false, null, lists and objects.",
        ) from None


def _unknown_field(name: str, known: frozenset[str]) -> ContractError:
    close = difflib.get_close_matches(name.rpartition(".")[2], sorted(known), n=1)
    fix = f"Did you mean {close[0]}?" if close else "Leave it out, or look for a typing error."
    return ContractError(ContractCode.UNKNOWN_FIELD, f"{name} is not a field.", field=name, fix=fix)
