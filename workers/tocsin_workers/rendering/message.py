"""A message before and after its tags are filled in."""

from __future__ import annotations

from msgspec import Struct


class MessageSources(Struct, frozen=True, kw_only=True):
    """The templates of one message: each may carry tags, each may be missing."""

    subject: str | None = None
    text: str | None = None
    html: str | None = None
    from_name: str | None = None
    reply_to: str | None = None
    visible_to: str | None = None
    """The contract's `to`: what shared mode shows as To."""
    headers: dict[str, str] = {}


class RenderedMessage(Struct, frozen=True, kw_only=True):
    """The same with its tags filled in: within bounds, without NUL, and without line breaks in headers."""

    subject: str | None = None
    text: str | None = None
    html: str | None = None
    from_name: str | None = None
    reply_to: str | None = None
    visible_to: str | None = None
    headers: dict[str, str] = {}
