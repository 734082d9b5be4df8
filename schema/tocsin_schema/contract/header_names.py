"""Which header fields a job or a template may set: `List-*`, `Auto-Submitted` and `X-*`.

All others (From, Bcc, Received, Content-*, …) are Tocsin's or the transport's to write.
"""

from __future__ import annotations

import re

MAX_HEADERS = 50
"""Header fields that one job may set."""

_ALLOWED = re.compile(r"(?:List-[A-Za-z0-9-]{1,60}|X-[A-Za-z0-9-]{1,60}|Auto-Submitted)", re.IGNORECASE | re.ASCII)


def is_allowed_header(name: str) -> bool:
    """Say whether a job or template may set this header field; case does not matter."""
    return _ALLOWED.fullmatch(name) is not None
