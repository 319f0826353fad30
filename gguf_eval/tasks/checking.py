"""Checks every item of a task, and says of each that is wrong where it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gguf_eval.errors import TaskError
from gguf_eval.tasks.datasets import Fetch, load_items, over_rows, sound, task_rows
from gguf_eval.tasks.metrics import overshadowed
from gguf_eval.tasks.prompts import Item, Row, item_renderer
from gguf_eval.tasks.spec import Task


@dataclass(frozen=True)
class Checked:
    """What was found."""

    items: int
    """Rows that were rendered, sound or not."""
    problems: tuple[str, ...]
    """One line for each row that gives no sound item."""
    overshadowed: tuple[tuple[str, str], ...] = ()
    """Of each item in which a choice can't win by the task's metric: one that it begins with, and the choice."""


def check_task(task: Task, *, fetch: Fetch) -> Checked:
    """Render every item. Raises `TaskError` for what concerns the whole task: no data, no few-shot examples."""
    if task.dataset.generator:
        items = load_items(task, fetch=fetch)
        return Checked(len(items), (), _overshadowed(task, items))
    rows = task_rows(task, fetch=fetch)
    found = over_rows(task, _rendering, (task,), rows)
    lines = _lines(task.dataset.file)
    problems: list[str] = []
    items = []
    seen: dict[str, Row] = {}
    for row, rendered in zip(rows, found, strict=True):
        try:
            item = sound(task, row, rendered)
        except TaskError as error:
            problems.append(_placed(str(error), task, row, lines))
            continue
        if item.id in seen:
            first = seen[item.id].number
            problems.append(_placed(f"prompt.id gives '{item.id}', as for row {first} before", task, row, lines))
        seen[item.id] = row
        items.append(item)
    if not problems:
        load_items(task, fetch=fetch)
    return Checked(len(rows), tuple(problems), _overshadowed(task, items))


def _rendering(task: Task) -> Callable[[Row], Item]:
    """Renders a row without examples."""
    render = item_renderer(replace(task, fewshot=None))
    return lambda row: render(row, ())


def _overshadowed(task: Task, items: Sequence[Item]) -> tuple[tuple[str, str], ...]:
    """Choices that follow contexts of their own are not compared with what follows another."""
    found = (overshadowed(task.metric, item.choices) for item in items if len(item.contexts) == 1)
    return tuple(pair for pair in found if pair is not None)


def _lines(path: Path | None) -> Sequence[int]:
    """The line each row of a JSON Lines file stands at; empty for other sources."""
    if path is None or path.suffix != ".jsonl":
        return ()
    with path.open(encoding="utf-8") as file:
        return [number for number, line in enumerate(file, 1) if line.strip()]


def _placed(message: str, task: Task, row: Row, lines: Sequence[int]) -> str:
    """The message after the place of the row: file and line, or data set and row."""
    text = message.removeprefix(f"{task.path}: ")
    place = f"{row.config} row {row.number}" if len(task.dataset.configs) > 1 else f"row {row.number}"
    text = text.removeprefix(place).removeprefix(": ").strip()
    if lines:
        return f"{task.dataset.file}:{lines[row.number]}: {text}"
    return f"{task.dataset.file or task.dataset.repo}: {place}: {text}"
