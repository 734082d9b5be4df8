"""How long to wait for a mail server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from tocsin_workers.smtp.phases import Phase


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds to wait for the next sign of life in each phase.

    RFC 5321 section 4.5.3.2 asks for 5 minutes in most places, made for relays that nobody watches. These are
    shorter, since another try costs little before the dot. The one after the dot is the RFC's: giving up
    there early makes duplicates.
    """

    connect: float = 30.0
    """TCP, and again for the greeting; with implicit TLS the handshake too."""
    tls: float = 30.0
    command: float = 60.0
    """EHLO, and every step of AUTH."""
    mail: float = 120.0
    rcpt: float = 120.0
    data: float = 120.0
    body: float = 180.0
    """The server takes nothing more of a body."""
    final: float = 600.0
    reset: float = 30.0
    quit: float = 5.0

    def seconds(self, phase: Phase) -> float:  # noqa: C901, PLR0911  # one answer a phase
        """Give the seconds to wait in this phase."""
        match phase:
            case Phase.CONNECT | Phase.GREETING:
                return self.connect
            case Phase.TLS:
                return self.tls
            case Phase.EHLO | Phase.AUTH:
                return self.command
            case Phase.MAIL:
                return self.mail
            case Phase.RCPT:
                return self.rcpt
            case Phase.DATA:
                return self.data
            case Phase.BODY:
                return self.body
            case Phase.FINAL:
                return self.final
            case Phase.RSET:
                return self.reset
            case Phase.QUIT:
                return self.quit
            case _:
                assert_never(phase)
