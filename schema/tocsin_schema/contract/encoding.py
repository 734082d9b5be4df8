"""A part as octets: plain JSON, as any producer in any language could have written it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tocsin_schema.contract.part import JobPart, Recipient

_ENCODER = msgspec.json.Encoder(order="deterministic")


def encode_part(part: JobPart) -> bytes:
    """Return the part as UTF-8 JSON, without what has its default, with the keys of `data` in order.

    Raises TypeError for data that JSON cannot express.
    """
    return _ENCODER.encode(part)


def encoded_recipient_size(recipient: Recipient) -> int:
    """Return how many octets one recipient adds to a part, its comma included."""
    return len(_ENCODER.encode(recipient)) + 1
