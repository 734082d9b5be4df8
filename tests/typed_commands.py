"""The real command line, for tests of what containers call, and of what a text tells a person to type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from tocsin_console.main import app

if TYPE_CHECKING:
    from collections.abc import Sequence


def take_command(words: Sequence[str]) -> None:
    """Have the command line read what follows `tocsin`, without running it. Raises what it says to what it refuses."""
    command = typer.main.get_command(app)
    left = list(words)
    while isinstance(command, TyperGroup):
        _, found, left = command.resolve_command(typer.Context(command), left)
        assert found is not None
        command = found
    command.make_context(command.name, left)
