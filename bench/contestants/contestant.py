"""What takes part in a benchmark, and the mail server that it sends to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.mail import Load


@dataclass(frozen=True, slots=True)
class SignIn:
    """STARTTLS, and XOAUTH2 with tokens of the client credentials grant."""

    mailbox: str
    """Whom to log in as, and the sender."""
    ca_pem: str
    """Vouches for the mail server."""
    token_endpoint: str
    token_ca_pem: str
    """Vouches for the token endpoint."""
    scope: str
    client_id: str
    client_secret: str
    token: Callable[[], str]
    """Gives a fresh access token, for contestants that do not get their own."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where the mail goes; without `sign_in` it goes without TLS and without a log-in."""

    host: str
    port: int
    sign_in: SignIn | None = None


class Contestant(ABC):
    """A way of sending mail. Its turns are `start`, any number of `send`, `stop`; between turns nothing of it runs."""

    name: str

    @abstractmethod
    def start(self) -> None:
        """Start its processes and wait until they are ready."""

    @abstractmethod
    def send(self, load: Load) -> None:
        """Send everything, and return when all that the contestant keeps of it is kept.

        RuntimeError where not every recipient was sent to.
        """

    @abstractmethod
    def stop(self) -> None:
        """End its processes. Harmless to repeat."""

    def groups(self) -> dict[str, list[int]]:
        """Give the root processes that are the contestant's own, by what they do; none of its work is in another."""
        return {}

    def note(self) -> str:
        """Say in a line what else is to be known of what was sent last."""
        return ""

    def worker_ids(self) -> list[int]:
        """Give the processes whose memory counts."""
        return []
