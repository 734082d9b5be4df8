"""The second gate: from JSON to a valid part. Recipients, attachments and data have their own modules.

`decode_part` runs the whole chain and raises ContractError and nothing else, whatever the octets are.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import msgspec

from tocsin_schema.contract.addresses import parse_address, shorten
from tocsin_schema.contract.attachment_rules import check_attachments
from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.header_names import MAX_HEADERS, is_allowed_header
from tocsin_schema.contract.identity import job_id
from tocsin_schema.contract.json_text import read_json, too_deep
from tocsin_schema.contract.part import (
    CONTRACT_VERSION,
    MAX_PART_NUMBER,
    MAX_RECIPIENTS,
    Attachment,
    Content,
    JobPart,
    Mode,
    PartPosition,
    Recipient,
)
from tocsin_schema.contract.plain_data import check_data
from tocsin_schema.contract.recipient_list import ValidPart, screen_recipients
from tocsin_schema.errors import AddressError, ContractError

MAX_NAME = 200
MAX_KEY = 500
MAX_SUBJECT = 998
"""RFC 5322 section 2.1.1: the longest line; a subject template is held to it as well."""
MAX_HEADER_VALUE = 2_000
MAX_BODY = 1024 * 1024
MAX_YEARS_AWAY = 10
"""How far from now a time may lie. Postgres takes instants that no client can read back in its own time zone."""

_DECODER = msgspec.json.Decoder(JobPart)
_FIELDS = sorted(
    {name for struct in (JobPart, Recipient, PartPosition, Content, Attachment) for name in struct.__struct_fields__}
)
_WHERE = re.compile(r" - at `\$\.?(?P<path>.*)`\Z", re.DOTALL)
_QUOTED = re.compile(r"`(.*)`", re.DOTALL)
_LINE_BREAK = re.compile(r"[\r\n]")
_TAG = re.compile(r"\{[{%#]")


def decode_part(raw: bytes, *, now: datetime | None = None) -> ValidPart:
    """Return the part in `raw`, validated and normalised. Raises ContractError, and nothing else.

    Recipients whose address or name is malformed do not break the part: they come back in `rejected`. `now`, the
    clock's unless given, only tells which times lie too far away.
    """
    value = read_json(raw)
    _check_version(value)
    part = _in_utc(_typed(raw))
    _check_identity(part)
    _check_content(part)
    _check_headers(part)
    _check_addresses(part)
    _check_times(part, now or datetime.now(UTC))
    _check_position(part)
    check_attachments(part)
    check_data(part.data, "data")
    _check_recipient_count(part)
    return screen_recipients(part)


def _check_version(value: object) -> None:
    if not isinstance(value, dict):
        raise ContractError(
            ContractCode.WRONG_TYPE,
            "The part is not a JSON object.",
            fix="Send one object, as in docs/contract.md.",
        )
    version: object = value.get("version", CONTRACT_VERSION)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  any JSON
    if isinstance(version, int) and not isinstance(version, bool) and version != CONTRACT_VERSION:
        raise ContractError(
            ContractCode.UNSUPPORTED_VERSION,
            f"version is {shorten(str(version))}; this Tocsin understands {CONTRACT_VERSION}.",
            field="version",
            fix="Leave it out, or update Tocsin before its publishers.",
        )


def _typed(raw: bytes) -> JobPart:
    try:
        return _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        _raise_translated(str(error))
    except msgspec.DecodeError as error:
        raise ContractError(
            ContractCode.NOT_JSON, f"The part is not JSON: {error}.", fix="Send one JSON object."
        ) from None
    except RecursionError:
        raise too_deep(None) from None


def _raise_translated(message: str) -> NoReturn:
    """Turn msgspec's words into the contract's: what, where (JSON path), what to do."""
    found = _WHERE.search(message)
    where = "" if found is None else found.group("path")
    what = message if found is None else message[: found.start()]
    quoted = _QUOTED.search(what)
    name = "" if quoted is None else quoted.group(1)
    below = shorten(f"{where}.{name}" if where else name, 200)
    if what.startswith("Object contains unknown field"):
        close = difflib.get_close_matches(name, _FIELDS, n=1)
        fix = f"Did you mean {close[0]}?" if close else "Leave it out, or look for a typing error."
        raise ContractError(ContractCode.UNKNOWN_FIELD, f"{below} is not a field.", field=below, fix=fix)
    if what.startswith("Object missing required field"):
        raise ContractError(ContractCode.MISSING_FIELD, f"{below} is missing.", field=below, fix="Give it.")
    code = _code_of(what)
    said = shorten(f"{what[:1].lower()}{what[1:]}", 200)
    raise ContractError(
        code,
        f"{where or 'The part'} cannot be used: {said}.",
        field=where or None,
        fix="See docs/contract.md.",
    )


def _code_of(what: str) -> ContractCode:
    if "UUID" in what or "uuid" in what:
        return ContractCode.BAD_ID
    if "datetime" in what:
        return ContractCode.BAD_TIME
    if "base64" in what:
        return ContractCode.BAD_ATTACHMENT
    return ContractCode.WRONG_TYPE if what.startswith("Expected") else ContractCode.WRONG_VALUE


def _check_identity(part: JobPart) -> None:
    _bounded(part.source, "source", MAX_NAME)
    _bounded(part.key, "key", MAX_KEY)
    _bounded(part.event, "event", MAX_NAME)
    _bounded(part.correlation_id, "correlation_id", MAX_NAME)
    _bounded(part.profile, "profile", MAX_NAME)
    _bounded(part.template, "template", MAX_NAME)
    job_id(part)


def _check_content(part: JobPart) -> None:
    content = part.content
    if part.template is not None and content is not None:
        raise ContractError(
            ContractCode.BOTH_TEMPLATE_AND_CONTENT,
            "The part has both template and content.",
            field="content",
            fix="Give one of them.",
        )
    if content is None:
        if part.template is None:
            raise _missing("The part has neither template nor content.", "template", "Give one of them.")
        return
    if content.text is None and content.html is None:
        raise _missing("content has neither text nor html.", "content.text", "Give one of them, or both.")
    _one_line(content.subject, "content.subject", MAX_SUBJECT)
    _bounded(content.text, "content.text", MAX_BODY)
    _bounded(content.html, "content.html", MAX_BODY)


def _check_headers(part: JobPart) -> None:
    _one_line(part.from_name, "from_name", MAX_SUBJECT)
    if len(part.headers) > MAX_HEADERS:
        raise ContractError(
            ContractCode.TOO_MANY,
            f"headers has {len(part.headers)} entries; {MAX_HEADERS} are allowed.",
            field="headers",
            fix="Leave some out.",
        )
    seen: set[str] = set()
    for name, value in part.headers.items():
        field = f"headers.{shorten(name)}"
        if not is_allowed_header(name):
            raise ContractError(
                ContractCode.BAD_HEADER,
                f"The header {shorten(name)!r} cannot be set.",
                field="headers",
                fix="List-*, X-* and Auto-Submitted can.",
            )
        if name.lower() in seen:
            raise ContractError(
                ContractCode.BAD_HEADER, f"The header {name} stands twice.", field=field, fix="Give it once."
            )
        seen.add(name.lower())
        _one_line(value, field, MAX_HEADER_VALUE)


def _check_addresses(part: JobPart) -> None:
    if part.to is not None and part.mode is Mode.INDIVIDUAL:
        raise ContractError(
            ContractCode.TO_IN_INDIVIDUAL,
            "to is given in individual mode, where each message goes To its recipient.",
            field="to",
            fix="Leave it out, or set mode to shared.",
        )
    for field, text in (("reply_to", part.reply_to), ("to", part.to)):
        _one_line(text, field, MAX_SUBJECT)
        if text is None or _TAG.search(text):
            continue
        try:
            parse_address(text)
        except AddressError as error:
            raise ContractError(
                ContractCode.BAD_ADDRESS, f"{field}: {error.problem}", field=field, fix=error.fix
            ) from None


def _check_times(part: JobPart, now: datetime) -> None:
    farthest = timedelta(days=MAX_YEARS_AWAY * 366)
    for field, time in (("send_after", part.send_after), ("expires_at", part.expires_at)):
        if time is not None and abs(time - now) > farthest:
            raise _too_far_away(field)
    if part.send_after is not None and part.expires_at is not None and part.expires_at <= part.send_after:
        raise ContractError(
            ContractCode.BAD_TIME,
            "expires_at is not later than send_after, so nothing could be sent.",
            field="expires_at",
            fix="Give a later time.",
        )


def _check_position(part: JobPart) -> None:
    if not 1 <= part.part.number <= MAX_PART_NUMBER:
        raise ContractError(
            ContractCode.WRONG_VALUE,
            f"part.number is {shorten(str(part.part.number))}; it counts from 1 to {MAX_PART_NUMBER}.",
            field="part.number",
            fix="Count the parts from 1.",
        )


def _check_recipient_count(part: JobPart) -> None:
    count = len(part.recipients)
    if count == 0:
        raise ContractError(
            ContractCode.NO_RECIPIENTS, "recipients is empty.", field="recipients", fix="Give at least one."
        )
    if count > MAX_RECIPIENTS:
        raise ContractError(
            ContractCode.TOO_MANY_RECIPIENTS,
            f"recipients has {count} entries; a part has at most {MAX_RECIPIENTS}.",
            field="recipients",
            fix="Cut the list into parts, as docs/contract.md shows.",
        )


def _in_utc(part: JobPart) -> JobPart:
    if part.send_after is None and part.expires_at is None:
        return part
    return msgspec.structs.replace(
        part, send_after=_utc(part.send_after, "send_after"), expires_at=_utc(part.expires_at, "expires_at")
    )


def _utc(time: datetime | None, field: str) -> datetime | None:
    try:
        return None if time is None else time.astimezone(UTC)
    except OverflowError:
        raise _too_far_away(field) from None


def _too_far_away(field: str) -> ContractError:
    return ContractError(
        ContractCode.BAD_TIME,
        f"{field} lies more than {MAX_YEARS_AWAY} years away.",
        field=field,
        fix=f"Give a time within {MAX_YEARS_AWAY} years, or leave it out.",
    )


def _bounded(text: str | None, field: str, limit: int) -> None:
    if text is None:
        return
    if not text:
        raise ContractError(
            ContractCode.WRONG_VALUE, f"{field} is empty.", field=field, fix="Give a value, or leave it out."
        )
    if len(text) > limit:
        raise ContractError(
            ContractCode.TOO_LONG,
            f"{field} has {len(text)} characters; {limit} are allowed.",
            field=field,
            fix="Shorten it.",
        )


def _one_line(text: str | None, field: str, limit: int) -> None:
    _bounded(text, field, limit)
    if text is not None and _LINE_BREAK.search(text):
        raise ContractError(
            ContractCode.BAD_HEADER,
            f"{field} contains a line break, which would start another header.",
            field=field,
            fix="Put it on one line.",
        )


def _missing(problem: str, field: str, fix: str) -> ContractError:
    return ContractError(ContractCode.MISSING_FIELD, problem, field=field, fix=fix)
