"""What a server offers in its EHLO reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The service extensions that matter to us; all absent by default, as after HELO."""

    pipelining: bool = False
    """RFC 2920."""
    eight_bit_mime: bool = False
    """RFC 6152."""
    smtputf8: bool = False
    """RFC 6531."""
    enhanced_status_codes: bool = False
    """RFC 2034."""
    chunking: bool = False
    """RFC 3030."""
    dsn: bool = False
    """RFC 3461."""
    size: bool = False
    """RFC 1870: MAIL may tell the size."""
    size_limit: int | None = None
    """Octets of the largest message, or None where the server names no limit."""
    auth: frozenset[str] = frozenset()
    """SASL mechanisms in upper case (RFC 4954)."""
    recipients_limit: int | None = None
    """RCPTMAX of RFC 9422: recipients of one transaction."""
    transactions_limit: int | None = None
    """MAILMAX of RFC 9422: transactions of one session."""

    @classmethod
    def of(cls, extensions: Mapping[str, str], mechanisms: Iterable[str]) -> Capabilities:
        """Read the EHLO keywords (lower case) with their parameters, and the AUTH mechanisms."""
        limits = dict(limit.upper().split("=", 1) for limit in extensions.get("limits", "").split() if "=" in limit)
        return cls(
            pipelining="pipelining" in extensions,
            eight_bit_mime="8bitmime" in extensions,
            smtputf8="smtputf8" in extensions,
            enhanced_status_codes="enhancedstatuscodes" in extensions,
            chunking="chunking" in extensions,
            dsn="dsn" in extensions,
            size="size" in extensions,
            size_limit=_positive(extensions.get("size", "")),
            auth=frozenset(mechanism.upper() for mechanism in mechanisms),
            recipients_limit=_positive(limits.get("RCPTMAX", "")),
            transactions_limit=_positive(limits.get("MAILMAX", "")),
        )


def _positive(text: str) -> int | None:
    """Read a count; None where there is none, and for 0, which RFC 1870 section 4 makes "no limit"."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 18:  # noqa: PLR2004  # fits 64 bits
        return None
    return int(text) or None
