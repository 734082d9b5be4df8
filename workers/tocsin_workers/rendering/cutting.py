"""Where a template can be cut, so that lines without tags are made once a job and not once a message.

A message of three kilobytes has two or three tags. Rendered, checked and encoded as a whole, it costs several times as
much as the few lines that the tags stand on. Lines are what it can be cut at: neither line ends nor transfer encodings
look beyond one.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from tocsin_workers.rendering.tag_limits import find_tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from tocsin_workers.rendering.tag_limits import Tag

MOST_CONSTANTS = 50
"""Cuts of one template; they pay for themselves where few tags stand in much text."""

LEAST_CONSTANT = 100
"""Characters without tags that are worth a cut."""

GAP = "\0"
"""Stands between what was cut apart. Neither a template that is cut nor what it renders to may hold it."""

_OPENERS = ("{{", "{%", "{#")
_STATEMENT = re.compile(r"\{%[-+]?\s*(\w+)")
_BLOCKS, _WITHIN, _ENDS = frozenset({"if", "for"}), frozenset({"elif", "else"}), frozenset({"endif", "endfor"})
_SET = "set"
_TRIMS_BEFORE = ("{{-", "{%-", "{#-")
_TRIMS_AFTER = ("-}}", "-%}", "-#}")


def cut(source: str, is_template: Callable[[str], bool], *, may_set: bool) -> list[str] | None:
    """Cut a sound template into pieces: constant, with tags, constant, …, with tags, constant.

    Joined, they are the source. Rendered one after the other and joined, the pieces with tags between the constants
    are what the source renders to. The first and the last constant may be empty. Each constant between begins after
    a line feed and ends with one, and so do the pieces with tags, but for the ends of the source.

    None where it cannot be cut and may not be rendered together with others either: a statement other than `if`, `for`
    and, if it `may_set` names, `set` may do away with text elsewhere. `is_template` says whether a text is a template
    for itself. That makes it certain: a lexer that reads from left to right and comes to the end of a piece outside
    of all tags has read it the same as part of the whole, if nothing trims white space across the cut.
    """
    tags = list(find_tags(source))
    depths = _depths(source, tags, may_set=may_set)
    if depths is None or GAP in source:
        return None
    pieces = _pieces(source, tags, depths)
    constants, with_tags = pieces[::2], pieces[1::2]
    if any(opener in constant for constant in constants for opener in _OPENERS):
        return None
    if any(_trims_beyond(piece) or not is_template(piece) for piece in with_tags):
        return None
    return pieces


def _depths(source: str, tags: list[Tag], *, may_set: bool) -> list[int] | None:
    """Say after each tag how many blocks are open; None where there is a statement that is not known here."""
    depths: list[int] = []
    depth = 0
    for tag in tags:
        statement = _STATEMENT.match(source, tag.start)
        word = None if statement is None else statement.group(1)
        if word in _BLOCKS:
            depth += 1
        elif word in _ENDS:
            depth -= 1
        elif word == _SET and may_set and "=" in source[tag.start : tag.end]:
            pass  # It has no end. If it has, it is a block that was cut within, and that is no template.
        elif word is not None and word not in _WITHIN:
            return None
        depths.append(depth)
    return depths


def _pieces(source: str, tags: list[Tag], depths: list[int]) -> list[str]:
    outside = [place for place in range(len(tags) + 1) if place == 0 or depths[place - 1] == 0]
    between = [_lines_between(source, tags, place) for place in outside]
    constants = [(start, end) for start, end in between if end - start >= LEAST_CONSTANT][:MOST_CONSTANTS]
    if not constants or constants[0][0] > 0:
        constants.insert(0, (0, 0))
    if constants[-1][1] < len(source):
        constants.append((len(source), len(source)))
    pieces = [source[slice(*constants[0])]]
    for (_, before), (start, end) in pairwise(constants):
        pieces += [source[before:start], source[start:end]]
    return pieces


def _lines_between(source: str, tags: list[Tag], place: int) -> tuple[int, int]:
    """Find the whole lines before the tag at `place`, after the tag before it; an empty range where there are none."""
    start, end = 0, len(source)
    if place > 0:
        closer = tags[place - 1].end
        start = source.find("\n", closer) + 1 or len(source)
        if source.startswith(_TRIMS_AFTER, closer - 3):
            return 0, 0
    if place < len(tags):
        opener = tags[place].start
        end = source.rfind("\n", 0, opener) + 1
        if source.startswith(_TRIMS_BEFORE, opener):
            return 0, 0
    return start, end


def _trims_beyond(piece: str) -> bool:
    return piece.lstrip().startswith(_TRIMS_BEFORE) or piece.rstrip().endswith(_TRIMS_AFTER)
