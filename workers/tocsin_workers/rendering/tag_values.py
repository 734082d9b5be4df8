"""What a template sees of `data` and `recipient`: values that it can read and cannot change.

minijinja looks up attributes of Python objects. A plain dict would let `{{ data.clear() }}` empty what the
next recipient needs, and `{{ data.items }}` print a method where the key is missing. These classes show no
attributes but four ways of reading.

minijinja asks for `items` at every look-up, to learn whether an object is a mapping. So what is hidden is hidden by
descriptors, and what answers is C throughout: a `__getattribute__` would cost more than the rest of a message.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn, cast

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

METHOD_MARK = "\0"
"""Printing a method instead of calling it leaves this in the output, where NUL is refused."""


class _Reader(Struct, frozen=True, eq=False):
    """A reading method of an object. Called, it reads; printed, it spoils the output (see METHOD_MARK)."""

    read: Callable[..., object]
    of: object

    def __call__(self, *arguments: object) -> object:
        return self.read(self.of, *arguments)

    def __repr__(self) -> str:
        return METHOD_MARK


class TagObject(dict[str, object]):
    """A JSON object as a template sees it."""

    __slots__ = ()


class TagList(list[object]):
    """A JSON array as a template sees it."""

    __slots__ = ()


_READERS = frozenset({"items", "keys", "values", "get"})


def _hide_attributes(shown: type, base: type) -> None:
    """Hide every attribute that `shown` has from `base`, whatever this release of Python gives it; show readers."""
    for name in dir(base):
        if not name.startswith("__"):
            is_reader = base is dict and name in _READERS
            setattr(
                shown, name, property(partial(_Reader, getattr(dict, name)) if is_reader else partial(_hidden, name))
            )


def _hidden(name: str, _of: object) -> NoReturn:
    raise AttributeError(f"{name} cannot be called in a template")


_hide_attributes(TagObject, dict)
_hide_attributes(TagList, list)


def tag_object(data: Mapping[str, object]) -> TagObject:
    """Return `data` for templates. A null becomes empty text: its sender said that there is nothing to show.

    Do this once a job for `data`; doing it again to the result costs nothing.
    """
    return data if type(data) is TagObject else TagObject(_tag_values(data))


def recipient_tags(address: str, name: str | None, data: Mapping[str, object]) -> TagObject:
    """Return what `recipient.…` means, for templates; see `recipient_values`."""
    return TagObject(recipient_values(address, name, data))


def recipient_values(address: str, name: str | None, data: Mapping[str, object]) -> dict[str, object]:
    """Return a recipient's data, their address and, where one was given, their name, with values for templates.

    A column called `address` or `name` does not hide the real one.
    """
    values = _tag_values(data)
    values["address"] = address
    if name is not None:
        values["name"] = name
    elif "name" in values:
        del values["name"]
    return values


def _tag_values(data: Mapping[str, object]) -> dict[str, object]:
    values = dict(data)
    for key, value in data.items():
        if type(value) is not str:
            values[key] = _tag_value(value)
    return values


def _tag_value(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, dict):
        return tag_object(cast("dict[str, object]", value))
    if isinstance(value, list | tuple):
        return TagList([_tag_value(inner) for inner in cast("list[object]", value)])
    return value
