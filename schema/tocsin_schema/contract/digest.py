"""Digests by which a part that comes again is told from one that merely claims the same id.

Both are SHA-256 over JSON with sorted keys and without what has its default. So neither the order of keys,
nor writing a default out, nor the notation of a time zone makes a difference.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from tocsin_schema.contract.part import WHOLE_JOB, JobPart

_ENCODER = msgspec.json.Encoder(order="sorted")


def job_digest(part: JobPart) -> bytes:
    """Return 32 octets over everything that all parts of a job repeat: all but its own three fields."""
    repeated = msgspec.structs.replace(
        part,
        part=WHOLE_JOB,
        recipients=(),
        attachments=(),
        send_after=_in_utc(part.send_after),
        expires_at=_in_utc(part.expires_at),
    )
    return sha256(_ENCODER.encode(repeated)).digest()


def part_digest(part: JobPart) -> bytes:
    """Return 32 octets over what is this part's own: its position, recipients and attachments."""
    return sha256(_ENCODER.encode((part.part, part.recipients, part.attachments))).digest()


def _in_utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone(UTC)
