"""Records of options: what several commands take alike is declared once, as a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def unfolded(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the fields of a record of options in the place of each parameter that takes one.

    Every field is an ``Annotated`` ``typer.Option`` with a default. Typer reads the signature that is made here.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    records: dict[str, type[Any]] = {}
    for given in inspect.signature(function).parameters.values():
        kind = hints[given.name]
        if is_dataclass(kind) and isinstance(kind, type):
            records[given.name] = kind
            types = get_type_hints(kind, include_extras=True)
            parameters += [
                given.replace(name=field.name, default=field.default, annotation=types[field.name])
                for field in fields(kind)
            ]
        else:
            parameters.append(given.replace(annotation=kind))

    @wraps(function)
    def command(**options: Any) -> None:
        for name, kind in records.items():
            options[name] = kind(**{field.name: options.pop(field.name) for field in fields(kind)})
        function(**options)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command
