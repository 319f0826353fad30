"""Turns dataset rows into items: renders the task's templates and checks what comes out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gguf_eval.errors import TaskError
from gguf_eval.tasks.spec import Task


@dataclass(frozen=True)
class Item:
    """One question, rendered."""

    id: str
    contexts: tuple[str, ...]
    """One context, or one for each choice."""
    choices: tuple[str, ...]
    gold: int
    delimiter: str
    """Stands between context and choice, and is no part of the choice's length."""
    hash: str

    def pair(self, index: int) -> tuple[str, str]:
        """Context and continuation of one choice."""
        context = self.contexts[index if len(self.contexts) > 1 else 0]
        return context, self.delimiter + self.choices[index]


def make_item(item_id: str, contexts: tuple[str, ...], choices: tuple[str, ...], gold: int, delimiter: str) -> Item:
    """Build an item; its hash covers its id and everything the model and the scoring see."""
    content = json.dumps([item_id, contexts, choices, gold, delimiter], ensure_ascii=False)
    return Item(item_id, contexts, choices, gold, delimiter, hashlib.sha256(content.encode()).hexdigest())


def _regex_replace(text: str, pattern: str, replacement: str) -> str:
    return re.sub(pattern, replacement, text)


def item_renderer(task: Task) -> Callable[[int, Mapping[str, Any]], Item]:
    """Compile the task's templates once; the result renders (row number, row) and raises `TaskError`."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["regex_replace"] = _regex_replace
    prompt = task.prompt

    # Rows are passed by place, not as keywords: a column may be named "self".
    def expression(source: str) -> Callable[[Mapping[str, Any]], Any]:
        compiled = environment.compile_expression(source, undefined_to_none=False)

        def evaluate(row: Mapping[str, Any]) -> Any:
            value = compiled(row)
            if isinstance(value, jinja2.Undefined):
                str(value)  # raises, and names what is missing
            return value

        return evaluate

    def template(source: str) -> Callable[[Mapping[str, Any]], str]:
        return environment.from_string(source).render

    try:
        contexts = [template(source) for source in prompt.context]
        gold = expression(prompt.gold)
        name = template(prompt.id) if prompt.id else None
        choices: Callable[[Mapping[str, Any]], list[Any]]
        if isinstance(prompt.choices, str):
            choices = expression(prompt.choices)
        else:
            parts = [template(source) for source in prompt.choices]
            choices = lambda row: [part(row) for part in parts]  # noqa: E731
    except jinja2.TemplateSyntaxError as error:
        raise TaskError(f"{task.path}: template error: {error.message} in {error.source or '?'!r}") from None

    def render(number: int, row: Mapping[str, Any]) -> Item:
        where = f"{task.path}: row {number}"
        try:
            item_id = name(row) if name else str(number)
            answers = choices(row)
            right = gold(row)
            texts = tuple(context(row) for context in contexts)
        except jinja2.UndefinedError as error:
            found = ", ".join(sorted(row))
            raise TaskError(f"{where}: {error.message}; the dataset's columns are: {found}") from None
        except Exception as error:  # a template runs what its author wrote
            raise TaskError(f"{where}: the template failed: {type(error).__name__}: {error}") from None
        return _checked(f"{where} (item '{item_id}')", item_id, texts, answers, right, prompt.delimiter)

    return render


def _checked(where: str, item_id: str, contexts: tuple[str, ...], answers: Any, gold: Any, delimiter: str) -> Item:
    if not isinstance(answers, list | tuple) or len(answers) < 2 or not all(isinstance(a, str) for a in answers):
        raise TaskError(f"{where}: two choices or more are needed, as strings; found {answers!r}")
    if isinstance(gold, bool) or not isinstance(gold, int):
        raise TaskError(f"{where}: gold must be the right choice's index; found {gold!r}")
    if not 0 <= gold < len(answers):
        raise TaskError(f"{where}: gold index {gold} is out of range; 0 to {len(answers) - 1} is needed")
    if len(contexts) > 1 and len(contexts) != len(answers):
        raise TaskError(f"{where}: {len(contexts)} contexts for {len(answers)} choices; one or as many are needed")
    return make_item(item_id, contexts, tuple(answers), gold, delimiter)
