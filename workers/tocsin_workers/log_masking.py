"""Mail addresses in log lines: only their first letter and their domain are shown, and of a URL's password nothing.

Every text of a line is looked through, also what servers and libraries have said, whatever it is: each character a few
times at most, so that no text takes long; and what is too long or too deep is cut, so that no line is huge.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structlog.typing import EventDict, WrappedLogger

MOST_CHARACTERS: Final = 16_384
"""Of one text; the middle of a longer one is left out, as both the beginning and the end of a traceback tell most."""
#: Of one text, that are looked through: what is masked makes it shorter.
_MOST_MASKED: Final = 4 * MOST_CHARACTERS
MOST_VALUES: Final = 2_000
"""Of one line, those within others counted."""
DEEPEST: Final = 12

#: What a URL has between its scheme and its host (RFC 3986 section 3.2.1). A user alone may be a token.
_USERINFO = r"""://(?:(?P<user>[^\s/?#"<>\\:]*):)?[^\s/?#"<>\\]*@"""
_IN_URL = re.compile(_USERINFO)
#: Where an address has its @: also in URLs, JSON and quoted-printable (where no number goes on: `limit=4096`), and as
#: East Asian keyboards write it.
_AT = re.compile(_USERINFO + r"|@|%40|=40(?=[\d.-]*[^\W\d_])|\\{1,8}u0040|＠|﹫")
#: What ends a local part that is not quoted (RFC 5322 section 3.2.3: atext and dots; RFC 6531 adds all beyond ASCII).
_ENDS_WORD = frozenset(' \t\r\n"<>[\\]@＠﹫\u00a0\u3000')
_ENDS_LOCAL_PART = _ENDS_WORD | frozenset("(),:;")
#: A server's reply must not move a terminal's cursor. Line breaks and tabs stay: tracebacks have them.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CUT = " … "
_LARGEST = 2**64


def mask_passwords(text: str) -> str:
    """Give the text with each URL as `scheme://user:***@host`. In linear time, whatever the text is."""
    return _IN_URL.sub(lambda found: f"://{_user(found)}***@", text)


def mask_addresses(text: str) -> str:
    """Give the text with each mail address as `r***@example.org`, and each `user:password@host` as `user:***@host`.

    In linear time, whatever the text is.
    """
    pieces: list[str] = []
    done = lowest = 0
    for at in _AT.finditer(text):
        if at[0].startswith("://"):
            pieces += (text[done : at.start()], "://", mask_addresses(_user(at)), "***@")
            done = lowest = at.end()
            continue
        begin, may_show = _local_part(text, lowest, at.start())
        # Nothing is looked at again, also where it was no address: so the time is linear.
        lowest = at.end()
        if begin == at.start() or not _begins_domain(text, at.end()):
            continue
        first = text[begin] if may_show else ""
        pieces += (text[done:begin], first, "***", at.group())
        done = at.end()
    return text if not pieces else "".join((*pieces, text[done:]))


def _user(found: re.Match[str]) -> str:
    return "" if found["user"] is None else f"{found['user']}:"


def _local_part(text: str, lowest: int, end: int) -> tuple[int, bool]:
    """Find where the local part begins that ends at `end`, not before `lowest`, and whether to show its first letter.

    What may be a password is none: behind a colon in the same word (`user:password@host`), or another @.
    """
    if end > lowest and text[end - 1] == '"':
        opening = text.rfind('"', lowest, end - 1)
        return (end if opening < 0 else opening), False
    begin = word = end
    password = -1
    while word > lowest and text[word - 1] not in _ENDS_WORD:
        word -= 1
        if text[word] == ":":
            password = word + 1
        if begin == word + 1 and text[word] not in _ENDS_LOCAL_PART:
            begin = word
    if password >= 0:
        return password, False
    return begin, begin > lowest or not lowest


def _begins_domain(text: str, start: int) -> bool:
    # A letter or digit of any script, or an address literal (RFC 5321 section 4.1.3).
    return start < len(text) and (text[start].isalnum() or text[start] in "[_")


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """Leave out the middle of a text that is too long."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}{_CUT}{text[-half:]}"


class Bounded:
    """A structlog processor: bounds every text of a line, and masks passwords and, unless `shows_addresses`, addresses.

    Values that are neither texts, numbers nor made of such are turned into texts first. Put it behind whatever adds to
    the line, before what renders it.
    """

    def __init__(self, *, shows_addresses: bool) -> None:
        self._shows_addresses = shows_addresses

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:  # noqa: ARG002 - structlog's protocol
        """Give the line as it may be shown."""
        left = _Left(MOST_VALUES)
        return {self._text(key): self._shown(value, left, DEEPEST) for key, value in event.items()}

    def _text(self, text: str) -> str:
        # Masked before it is cut to its length: of a password that the cut goes through, half would be shown.
        cut = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", shortened(text, _MOST_MASKED))
        return shortened(mask_passwords(cut) if self._shows_addresses else mask_addresses(cut))

    def _shown(self, value: object, left: _Left, depth: int) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            # JSON has no infinity, and Python no text for very large numbers.
            return value if abs(value) < _LARGEST else "a number beyond all bounds"
        if isinstance(value, str):
            return self._text(value)
        if depth and left.values > 0:
            if isinstance(value, dict):
                return self._mapping(cast("Mapping[object, object]", value), left, depth - 1)
            if isinstance(value, list | tuple | set | frozenset):
                return self._sequence(list(cast("Sequence[object]", value)), left, depth - 1)
        return self._text(_as_text(value))

    def _mapping(self, values: Mapping[object, object], left: _Left, depth: int) -> dict[str, object]:
        shown: dict[str, object] = {}
        for key, value in values.items():
            if not left.take():
                break
            shown[self._text(_as_text(key))] = self._shown(value, left, depth)
        return shown

    def _sequence(self, values: Sequence[object], left: _Left, depth: int) -> list[object]:
        shown: list[object] = []
        for value in values:
            if not left.take():
                break
            shown.append(self._shown(value, left, depth))
        return shown


class _Left:
    """How many more values a line may have."""

    def __init__(self, values: int) -> None:
        self.values = values

    def take(self) -> bool:
        """Take one, if there is one left."""
        self.values -= 1
        return self.values >= 0


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - whatever a stranger's object does when it is asked
        return f"<{type(value).__name__}>"
