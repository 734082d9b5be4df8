"""Named queries, read from the `.sql` files beside this module."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)$", re.MULTILINE)


@cache
def named_queries(file: str) -> Mapping[str, bytes]:
    """Give the queries of `queries/{file}.sql` by name.

    A query begins with a line `-- name: the_name`; the comment lines after it say what it does. Bytes, because
    psycopg takes those as a query without asking whether a text could have come from a user.
    """
    text = resources.files("tocsin_schema.ledger").joinpath("queries", f"{file}.sql").read_text(encoding="utf-8")
    return MappingProxyType(split_queries(text))


def split_queries(text: str) -> dict[str, bytes]:
    """Split the text of a query file at its `-- name:` lines.

    Raises ValueError where a name stands twice or text stands before the first name.
    """
    _, *rest = pieces = _NAME.split(text)
    if pieces[0].strip() and not all(line.startswith("--") for line in pieces[0].strip().splitlines()):
        raise ValueError("SQL before the first `-- name:` line")
    names, bodies = rest[::2], rest[1::2]
    if len(set(names)) != len(names):
        raise ValueError("a query name stands twice")
    return {name: body.strip().encode() for name, body in zip(names, bodies, strict=True)}
