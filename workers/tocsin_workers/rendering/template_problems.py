"""A template engine's error in the words of the person who wrote the template."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from minijinja import TemplateError

from tocsin_schema.contract.addresses import shorten
from tocsin_schema.errors import RenderingError, Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAMES_SHOWN = 20

_UNDEFINED = re.compile(r"`(.+)` is undefined", re.DOTALL)
_TAG = re.compile(rb"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


def explain(error: Exception, *, field: str, source: str, tags: Mapping[str, Mapping[str, object]]) -> RenderingError:
    """Return a RenderingError that names the field, the tag and what to do. `tags` is what was defined."""
    if not isinstance(error, TemplateError):
        return RenderingError(f"{field} cannot be rendered: {shorten(str(error), 200)}.", fix="Correct the template.")
    tag = _tag(error, source)
    match error.kind:
        case "UndefinedError":
            return _undefined(error, field, tag, tags)
        case "OutOfFuel":
            return RenderingError(
                f"{field} does too much work{tag and f', at {tag}'}.",
                fix="Use fewer or shorter loops.",
                scope=Scope.TEMPLATE,
            )
        case _:
            place = "" if error.line is None else f" in line {error.line}"
            detail = shorten(error.detail or error.kind, 200)
            return RenderingError(
                f"{field} has an error{place}{tag and f', at {tag}'}: {detail}.",
                fix="Correct the template.",
                scope=Scope.TEMPLATE,
            )


def _undefined(error: TemplateError, field: str, tag: str, tags: Mapping[str, Mapping[str, object]]) -> RenderingError:
    wanted = _undefined_name(error)
    defined = sorted(f"{root}.{name}" for root, values in tags.items() for name in values)
    close = difflib.get_close_matches(wanted, defined, n=1)
    return RenderingError(
        f"{field} uses {tag or wanted}, but {wanted} is not defined; defined are: {_listed(defined)}.",
        fix=f"Did you mean {close[0]}?" if close else f'Give it in the data, or write {wanted}|default("…").',
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(shorten(name) for name in names[:MAX_NAMES_SHOWN])
    return (shown or "none") if len(names) <= MAX_NAMES_SHOWN else f"{shown}, …"


def _undefined_name(error: TemplateError) -> str:
    found = _UNDEFINED.search(error.detail or "")
    return "a variable" if found is None else shorten(found.group(1))


def _tag(error: TemplateError, source: str) -> str:
    """Return the whole tag around the place of the error, or nothing. minijinja counts octets of UTF-8."""
    if error.range is None:
        return ""
    start, _ = error.range
    for found in _TAG.finditer(source.encode()):
        if found.start() <= start < found.end():
            return shorten(found.group().decode(errors="replace"))
    return ""
