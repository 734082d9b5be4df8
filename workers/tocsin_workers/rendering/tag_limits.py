"""How long a tag may be, checked before the template engine sees it.

minijinja's parser recurses on chains such as `not not not …` and `1 + 1 + …`, and on `elif`. Tens of thousands of
them overflow the stack, which no exception handler survives: one job would kill every worker that takes it in. This
scanner therefore finds the ends of tags by the engine's own rules: strings and brackets hide a closer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from tocsin_schema.errors import RenderingError, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TAG_CHARACTERS = 1_000
MAX_ELIFS = 200
"""`elif` tags in one template."""

_OPENER = re.compile(r"\{[{%#]")
_RAW = re.compile(r"\{%[-+]?\s*raw\b")
_ELIF = re.compile(r"\{%[-+]?\s*elif\b")
_CLOSERS = {"{{": "}}", "{%": "%}"}
_STRING_OR_BRACKET = re.compile(r"""(["'])(?:\\.|(?!\1)[^\\])*(?:\1|\Z)|[\[({})\]]|%\}""", re.DOTALL)


def check_tags(field: str, source: str) -> None:
    """Raise RenderingError for a tag that is too long, too many `elif`, or a `raw` block."""
    if _RAW.search(source):
        raise _refused(field, "uses raw, which is not available", 'Write {{ "{{" }} for two braces.')
    if len(_ELIF.findall(source)) > MAX_ELIFS:
        raise _refused(field, f"has more than {MAX_ELIFS} elif tags", "Look the value up in data instead.")
    for tag in find_tags(source):
        if not tag.is_comment and tag.end - tag.start > MAX_TAG_CHARACTERS:
            raise _refused(
                field, f"has a tag of more than {MAX_TAG_CHARACTERS} characters", "Close it, or cut it into several."
            )


class Tag(Struct, frozen=True):
    """A tag or comment with its braces: `source[start:end]`."""

    start: int
    end: int
    is_comment: bool


def find_tags(source: str) -> Iterator[Tag]:
    """Find the tags of a template without `raw` blocks. One that is not closed ends with the source."""
    at = 0
    while (opener := _OPENER.search(source, at)) is not None:
        if opener.group() == "{#":
            end = source.find("#}", opener.end())
            at = len(source) if end < 0 else end + 2
        else:
            at = _end_of_tag(source, opener.end(), _CLOSERS[opener.group()])
        yield Tag(opener.start(), at, opener.group() == "{#")


def _end_of_tag(source: str, start: int, closer: str) -> int:
    """Return where the tag ends that opens just before `start`: after its closer, or with the source."""
    open_brackets, at = 0, start
    while (found := _STRING_OR_BRACKET.search(source, at)) is not None:
        if open_brackets == 0 and source.startswith(closer, found.start()):
            return found.start() + len(closer)
        at = found.end()
        if found.group() in "([{":
            open_brackets += 1
        elif found.group() in ")]}":
            open_brackets -= 1
    return len(source)


def _refused(field: str, what: str, fix: str) -> RenderingError:
    return RenderingError(f"{field} {what}.", fix=fix, scope=Scope.TEMPLATE)
