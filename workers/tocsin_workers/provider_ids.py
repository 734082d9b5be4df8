"""The provider's own name for a message, taken from its reply to the final dot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tocsin_workers.smtp.replies import Reply

_PATTERNS = (
    # Amazon SES: "250 Ok 0101018f…-000000"; events carry it as mail.messageId (SES developer guide).
    re.compile(r"\AOk ([0-9a-f-]{20,80})\Z"),
    # Microsoft 365: "250 2.0.0 OK <…@….outlook.com> [Hostname=…]".
    re.compile(r"\AOK (<[^<>\s]{3,200}>)", re.IGNORECASE),
    # Google: "250 2.0.0 OK  1700000000 4fb4d7f45d1cf-… - gsmtp".
    re.compile(r"\AOK\s+\d{6,12} (\S{5,80}) - gsmtp\Z"),
    # Exim: "250 OK id=1rABCD-000000001Xy-2Zab".
    re.compile(r"\AOK id=([0-9A-Za-z-]{5,80})\Z"),
    # sendmail and OpenSMTPD: "250 2.0.0 45A1BcDe012345 Message accepted for delivery".
    re.compile(r"\A([0-9A-Za-z]{5,40}) Message accepted for delivery"),
    # Postfix and many others: "250 2.0.0 Ok: queued as 4Rz…".
    re.compile(r"queued as ([0-9A-Za-z.-]{2,79}[0-9A-Za-z])", re.IGNORECASE),
)


def provider_id(reply: Reply) -> str | None:
    """Give the id by which the provider's logs and events call the message, or None where the reply has none."""
    for pattern in _PATTERNS:
        if found := pattern.search(reply.text):
            return found[1]
    return None
