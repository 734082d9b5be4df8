"""Every named query: a real server takes it, and some code uses it."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[2]
PACKAGES = ("schema", "producers", "workers", "console")
PARAMETER = re.compile(r"%\((\w+)\)s")
OPENED = re.compile(r'named_queries\("(\w+)"\)')
#: What PREPARE takes; everything else is run instead.
PREPARABLE = ("select", "insert", "update", "delete", "with", "merge", "values")

#: Where the server cannot tell a parameter's type, the one that psycopg sends with it.
TYPED = {"claimed_at": "timestamptz"}


def query_files() -> list[str]:
    folder = resources.files("tocsin_schema.ledger").joinpath("queries")
    return sorted(file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql"))


QUERIES = [
    pytest.param(file, name, id=f"{file}.{name}") for file in query_files() for name in sorted(named_queries(file))
]


def statement(query: bytes) -> str:
    """The query without its comment lines and closing semicolon."""
    lines = [line for line in query.decode().splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines).strip().removesuffix(";")


def prepare(text: str) -> str:
    """PREPARE with `$n` for `%(name)s`, the same number for the same name, as psycopg does it."""
    names = list(dict.fromkeys(PARAMETER.findall(text)))
    numbered = PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text).replace("%%", "%")
    types = ", ".join(TYPED.get(name, "unknown") for name in names)
    return f"PREPARE tried{f'({types})' if names else ''} AS {numbered}"


@pytest.fixture(scope="module")
def connection(ledger_url: str) -> Iterator[psycopg.Connection]:
    """Nothing that is tried here is kept."""
    with psycopg.connect(ledger_url) as one:
        yield one


@pytest.mark.parametrize(("file", "name"), QUERIES)
def test_the_server_takes_the_query(connection: psycopg.Connection, file: str, name: str) -> None:
    text = statement(named_queries(file)[name])
    with connection.transaction(force_rollback=True):
        if text.lower().startswith("copy"):
            with connection.cursor().copy(text.encode()):
                pass  # no rows: the columns are checked all the same
        elif text.lower().startswith(PREPARABLE):
            connection.execute(prepare(text).encode())
            connection.execute("DEALLOCATE tried")
        else:
            connection.execute(text.encode())


def test_a_query_that_names_a_column_wrong_is_not_taken(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedColumn), connection.transaction():
        connection.execute(prepare("SELECT nubmer FROM jobs WHERE id = %(id)s").encode())


@pytest.mark.parametrize(("file", "name"), QUERIES)
def test_some_code_uses_the_query(file: str, name: str) -> None:
    assert name in used_queries().get(file, frozenset()), f"{file}.sql: nothing uses {name}"


@pytest.mark.parametrize("file", sorted(query_files()))
def test_no_code_asks_for_a_query_that_is_not_there(file: str) -> None:
    assert looked_up()[file] <= named_queries(file).keys()


@pytest.mark.parametrize(("file", "name"), QUERIES)
def test_a_query_is_one_statement(file: str, name: str) -> None:
    # psycopg sends several statements only where there are no parameters; and one name means one thing.
    assert ";" not in re.sub(r"'[^']*'", "", statement(named_queries(file)[name]))


@cache
def used_queries() -> dict[str, frozenset[str]]:
    """Which names of each query file are spoken of in a module that opens it with `named_queries("file")`."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for file in OPENED.findall(text):
                found.setdefault(file, set()).update(_strings(ast.parse(text)))
    return {file: frozenset(names) for file, names in found.items()}


@cache
def looked_up() -> dict[str, frozenset[str]]:
    """Which names are looked up as they stand, as in `_QUERIES["name"]`."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for file in OPENED.findall(text):
                found.setdefault(file, set()).update(re.findall(r'_QUERIES\["(\w+)"\]', text))
    return {file: frozenset(names) for file, names in found.items()}


def _strings(module: ast.Module) -> set[str]:
    return {node.value for node in ast.walk(module) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
