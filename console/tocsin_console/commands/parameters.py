"""Flags and arguments that several commands share, worded once."""

from typing import Annotated, overload

import typer

from tocsin_schema.errors import Scope, UsageError

LONGEST_REASON = 500
"""Characters of a reason that a person gives; as much as a server's reply may have."""

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object a line, and nothing else on standard output.")
]

ListLimit = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Show at most so many.")]


@overload
def read_reason(text: str, *, scope: Scope = ...) -> str: ...
@overload
def read_reason(text: str | None, *, scope: Scope = ...) -> str | None: ...
def read_reason(text: str | None, *, scope: Scope = Scope.INSTALLATION) -> str | None:
    """Give a person's reason on one line; None where there is none. Raises UsageError."""
    if text is None:
        return None
    reason = " ".join(text.split())
    if not reason:
        raise UsageError("--reason is empty.", fix="Say why, or leave it out.", scope=scope)
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise UsageError(
            "--reason is too long or holds a control character.",
            fix=f"Give one line of at most {LONGEST_REASON} characters.",
            scope=scope,
        )
    return reason
