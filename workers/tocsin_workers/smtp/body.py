"""A message as it goes over the wire after DATA: right by construction, whatever is in it."""

from __future__ import annotations

import re

LONE_DOT = b".\r\n"
"""Ends a body, or answers a 354 with nothing where nobody was accepted (RFC 2920 section 3.1)."""

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")


def to_wire(message: bytes) -> bytes:
    """Give the octets to write after a 354: every line ended by CRLF, dots stuffed, the final dot at the end.

    A bare CR or LF is a line end too: left alone, servers disagree on what it is, and a message could end
    early and smuggle in another (RFC 5321 sections 2.3.8 and 4.5.2).
    """
    ends = message.count(b"\r\n")
    if message.count(b"\n") != ends or message.count(b"\r") != ends:
        message = _ANY_LINE_END.sub(b"\r\n", message)
    if message.startswith(b"."):
        message = b"." + message
    message = message.replace(b"\r\n.", b"\r\n..")
    if message and not message.endswith(b"\r\n"):
        return message + b"\r\n" + LONE_DOT
    return message + LONE_DOT
