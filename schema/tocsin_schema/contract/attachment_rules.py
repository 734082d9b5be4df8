"""What an attachment may be called and be, and in which part it may travel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tocsin_schema.contract.addresses import shorten
from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.errors import ContractError

if TYPE_CHECKING:
    from tocsin_schema.contract.part import JobPart

MAX_ATTACHMENTS = 20
"""Attachments of one job."""

_FILENAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,200}")
# RFC 6838 section 4.2. multipart/* and message/* must not be sent as base64 (RFC 2045 section 6.4).
_CONTENT_TYPE = re.compile(
    r"(?!multipart/|message/)[a-z0-9][a-z0-9!#$&^_.+-]{0,126}"
    r"/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}",
    re.IGNORECASE | re.ASCII,
)


def check_attachments(part: JobPart) -> None:
    """Raise ContractError for attachments outside part 1, too many, or one with a bad name or type."""
    if not part.attachments:
        return
    if part.part.number != 1:
        raise ContractError(
            ContractCode.ATTACHMENTS_OUTSIDE_PART_1,
            f"Part {part.part.number} has attachments; they travel in part 1 only.",
            field="attachments",
            fix="Leave them out here.",
        )
    if len(part.attachments) > MAX_ATTACHMENTS:
        raise ContractError(
            ContractCode.TOO_MANY,
            f"The job has {len(part.attachments)} attachments; {MAX_ATTACHMENTS} are allowed.",
            field="attachments",
            fix="Leave some out, or send a link.",
        )
    for index, attachment in enumerate(part.attachments):
        path = f"attachments[{index}]"
        if not _FILENAME.fullmatch(attachment.filename):
            raise _bad(
                f"{path}.filename",
                attachment.filename,
                "Give 1 to 200 characters without slashes and control characters.",
            )
        if not _CONTENT_TYPE.fullmatch(attachment.content_type):
            raise _bad(
                f"{path}.content_type",
                attachment.content_type,
                "Give a plain media type such as application/pdf.",
            )


def _bad(field: str, value: str, fix: str) -> ContractError:
    return ContractError(
        ContractCode.BAD_ATTACHMENT,
        f"{field} is {shorten(value)!r}, which cannot be used.",
        field=field,
        fix=fix,
    )
