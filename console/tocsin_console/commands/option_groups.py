"""Options that several commands take, said once: a dataclass whose annotated fields become part of a signature."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a Typer command take dataclasses: each field of one is an option of the command.

    A parameter whose annotation is a dataclass is replaced by that dataclass's fields, `Annotated` and with defaults.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)
    }
    shown: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        shown += _options_of(groups[name]) if name in groups else [parameter]

    @wraps(command)
    def call(**values: object) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    call.__signature__ = signature.replace(parameters=shown)  # pyright: ignore[reportAttributeAccessIssue]  # what inspect looks for
    return call


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    hints: Mapping[str, Any] = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]
