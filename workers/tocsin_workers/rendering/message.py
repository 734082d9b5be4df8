"""A message before and after its tags are filled in."""

from __future__ import annotations

from msgspec import Struct

from tocsin_workers.rendering.bodies import BodyForm


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


class FilledBody(Struct, frozen=True, gc=False):
    """A body as what the messages share, and what fills the gaps of this one."""

    form: BodyForm
    own: str = ""
    """With GAP between one and the next."""


class FilledMessage(Struct, frozen=True, gc=False):
    """A rendered message whose bodies still know what they share with others."""

    subject: str | None
    text: FilledBody | None
    html: FilledBody | None
    from_name: str | None
    reply_to: str | None
    visible_to: str | None
    headers: tuple[tuple[str, str], ...]


def filled(message: RenderedMessage) -> FilledMessage:
    """Return a message that has nothing of its own: the whole of it is what its messages share."""
    return FilledMessage(
        subject=message.subject,
        text=None if message.text is None else FilledBody(BodyForm([message.text])),
        html=None if message.html is None else FilledBody(BodyForm([message.html])),
        from_name=message.from_name,
        reply_to=message.reply_to,
        visible_to=message.visible_to,
        headers=tuple(message.headers.items()),
    )
