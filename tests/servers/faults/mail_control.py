"""What the mail server's process is told over its standard input, a line a command, and how it answers."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import msgspec

from tests.servers.faults.mail_moods import Mood  # noqa: TC001  msgspec reads the annotations at run time


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    directory: str
    """Where certificates and events go."""
    client_id: str
    client_secret: str
    seed: int
    seconds_a_message: float
    token_seconds: int


class Whereabouts(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to it."""

    plain_port: int
    """SMTP without TLS and log-in."""
    token_port: int
    """SMTP under TLS from the first byte, with XOAUTH2."""
    token_endpoint: str
    """With `{tenantId}` in it."""
    ca_file: str
    events_file: str

    @property
    def events(self) -> Path:
        """The file for `MailEvents`."""
        return Path(self.events_file)


class Behave(msgspec.Struct, frozen=True, tag=True):
    """Be in this mood from now on, and count its strikes anew."""

    mood: Mood


class HangUp(msgspec.Struct, frozen=True, tag=True):
    """End every session that is open now before its next message."""


class Leave(msgspec.Struct, frozen=True, tag=True):
    """Stop listening, and break every connection off."""


class Return(msgspec.Struct, frozen=True, tag=True):
    """Listen again, where it was."""


class FailTokens(msgspec.Struct, frozen=True, tag=True):
    """Forget every token, and give no new one: answer 500, or nothing at all."""

    by_hanging: bool


class GiveTokens(msgspec.Struct, frozen=True, tag=True):
    """Give tokens again."""


class Count(msgspec.Struct, frozen=True, tag=True):
    """Tell how often the mood, or the failing token endpoint, has struck."""


Command: TypeAlias = Behave | HangUp | Leave | Return | FailTokens | GiveTokens | Count


class Done(msgspec.Struct, frozen=True):
    """The answer to a command, after it has been carried out."""

    strikes: int
    """Of the mood that was in force before the command."""
    token_failures: int
    """Since the last `FailTokens`."""
