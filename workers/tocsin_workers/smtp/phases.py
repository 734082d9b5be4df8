"""The phases of an SMTP session, as blame and as time spent."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """The step of a session that a reply answers, or in which something went wrong."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    """From the 354 until the final dot is written."""
    FINAL = "final"
    """From the final dot until its reply."""
    RSET = "rset"
    QUIT = "quit"


class TimedPhase(StrEnum):
    """What SMTP seconds are counted by."""

    CONNECT = "connect"
    """Name look-up, TCP, greeting and EHLO; with implicit TLS its handshake too."""
    TLS = "tls"
    """STARTTLS, its handshake and the second EHLO."""
    AUTH = "auth"
    ENVELOPE = "envelope"
    """MAIL, RCPT and DATA until the last of their replies."""
    DATA = "data"
    """Writing the body, and the caller's `on_body`."""
    FINAL = "final"
    """Waiting for the reply to the final dot."""
