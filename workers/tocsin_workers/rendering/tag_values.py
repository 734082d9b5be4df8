"""What a template sees of `data` and `recipient`: values that it can read and cannot change.

minijinja looks up attributes of Python objects. A plain dict would let `{{ data.clear() }}` empty what the
next recipient needs, and `{{ data.items }}` print a method where the key is missing. These classes have no
attributes but four ways of reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

METHOD_MARK = "\0"
"""Printing a method instead of calling it leaves this in the output, where NUL is refused."""


class _Reader:
    """A reading method of an object. Called, it reads; printed, it spoils the output (see METHOD_MARK)."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[..., object]) -> None:
        self._read = read

    def __call__(self, *arguments: object) -> object:
        return self._read(*arguments)

    def __repr__(self) -> str:
        return METHOD_MARK


class TagObject(dict[str, object]):
    """A JSON object as a template sees it."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        if name in _READERS:
            return _Reader(object.__getattribute__(self, name))
        raise _no_such(name)


class TagList(list[object]):
    """A JSON array as a template sees it."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise _no_such(name)


_READERS = frozenset({"items", "keys", "values", "get"})


def _no_such(name: str) -> AttributeError:
    return AttributeError(f"{name} cannot be called in a template")


def tag_object(data: Mapping[str, object]) -> TagObject:
    """Return `data` for templates. A null becomes empty text: its sender said that there is nothing to show.

    Do this once a job for `data`; doing it again to the result costs nothing.
    """
    if type(data) is TagObject:
        return data
    return TagObject([(key, value if type(value) is str else _tag_value(value)) for key, value in data.items()])


def recipient_tags(address: str, name: str | None, data: Mapping[str, object]) -> TagObject:
    """Return what `recipient.…` means: its data, its address and, where one was given, its name.

    A column called `address` or `name` does not hide the real one.
    """
    tags: dict[str, object] = {**data, "address": address}
    if name is None:
        tags.pop("name", None)
    else:
        tags["name"] = name
    return tag_object(tags)


def _tag_value(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, dict):
        return tag_object(cast("dict[str, object]", value))
    if isinstance(value, list | tuple):
        return TagList([_tag_value(inner) for inner in cast("list[object]", value)])
    return value
