"""The Jinja templates of a task file: sandboxed, strict about names, with errors that say where."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf_eval.errors import TaskError


class Templates:
    """Compiles the templates and expressions of one task file."""

    def __init__(self, path: Path) -> None:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._path = path
        self._jinja = jinja2
        self._environment = ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_printed
        )
        self._environment.filters["regex_replace"] = _regex_replace
        self._environment.filters["indices_of"] = _indices_of

    # Rows are passed by place, not as keywords: a column may be named "self".
    def text(self, source: str) -> Callable[[Mapping[str, Any]], str]:
        """A template that gives a text; an empty source gives an empty text."""
        with self._compiling(source):
            return self._environment.from_string(source).render

    def expression(self, source: str) -> Callable[[Mapping[str, Any]], Any]:
        """An expression that gives a value."""
        with self._compiling(source):
            compiled = self._environment.compile_expression(source, undefined_to_none=False)

        def evaluate(row: Mapping[str, Any]) -> Any:
            value = compiled(row)
            for part in (value, *value) if isinstance(value, list | tuple) else (value,):
                if isinstance(part, self._jinja.Undefined):
                    str(part)  # raises, and names what is missing
            return value

        return evaluate

    @contextlib.contextmanager
    def _compiling(self, source: str) -> Iterator[None]:
        try:
            yield
        except self._jinja.TemplateSyntaxError as error:
            raise TaskError(f"{self._path}: template error: {error.message} in {error.source or source!r}") from None

    @contextlib.contextmanager
    def rendering(self, where: str, row: Mapping[str, Any]) -> Iterator[None]:
        """Turn what a template raises on ``row`` into one line that names the place."""
        try:
            yield
        except self._jinja.UndefinedError as error:
            found = ", ".join(sorted(column for column in row if column != "dataset_config"))
            raise TaskError(f"{where}: {error.message}; the dataset's columns are: {found}") from None
        except (TaskError, MemoryError):
            raise
        except Exception as error:  # a template runs what its author wrote
            raise TaskError(f"{where}: the template failed: {type(error).__name__}: {error}") from None


def _printed(value: Any) -> Any:
    """What a template prints: texts and numbers; a null or a table would stand there as Python spells it."""
    if value is None or isinstance(value, Mapping | list | tuple):
        import jinja2

        found = "null" if value is None else "a table" if isinstance(value, Mapping) else "a list"
        raise jinja2.UndefinedError(f"a value that the text needs is {found}")
    return value


def _regex_replace(text: str, pattern: str, replacement: str) -> str:
    return re.sub(pattern, replacement, text)


def _indices_of(values: Sequence[Any], wanted: Any) -> list[int]:
    """Where ``wanted`` stands in ``values``."""
    return [place for place, value in enumerate(values) if value == wanted]
