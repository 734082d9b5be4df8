"""Flags and arguments that several commands share, worded once."""

from typing import Annotated

import typer

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object a line, and nothing else on standard output.")
]

ListLimit = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Show at most so many.")]
