"""What opening a session has reached, told as it happens: for whoever looks for a mistake, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tocsin_workers.smtp.capabilities import Capabilities


@dataclass(frozen=True, slots=True)
class Connected:
    """The server's network address, and the seconds until it had greeted us (with implicit TLS: over TLS)."""

    address: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Secured:
    """TLS is there: its version as OpenSSL names it, and the server's certificate (DER)."""

    version: str
    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Greeted:
    """The server has answered EHLO; with STARTTLS once before and once after it, and the second counts."""

    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The server takes us, by a SASL mechanism or, with None, without a log-in."""

    mechanism: str | None


Stage: TypeAlias = Connected | Secured | Greeted | LoggedIn
OnStage: TypeAlias = Callable[[Stage], None]


def unwatched(_stage: Stage) -> None:
    """Watch nothing."""
