"""Tasks in a terminal: those that ship, and items as the model gets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from gguf_eval.report.escape import plain
from gguf_eval.report.tables import GAP, bare_table, columns_of, width_of
from gguf_eval.report.words import several
from gguf_eval.study.stages.show import AskedItem
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Task

_LEAST_DESCRIPTION = 36
"""Cells that descriptions must have; where there is no room for it, the source goes, then the metric."""


def print_tasks(tasks: Sequence[Task], suites: Mapping[str, Sequence[str]], console: Console) -> None:
    """One row a task, then the suites."""
    rows = [(Text(task.name), Text(task.metric), Text(_source(task))) for task in tasks]
    columns = columns_of(("task", "metric", "source"), rows)
    while len(columns) > 1 and width_of(columns) + GAP + _LEAST_DESCRIPTION > console.width:
        columns.pop()
    table = bare_table()
    for column in columns:
        table.add_column(column.header, no_wrap=True)
    table.add_column("what it asks")
    for task, row in zip(tasks, rows, strict=True):
        table.add_row(*row[: len(columns)], Text(task.description))
    console.print(table)
    for name, members in suites.items():
        console.print(Text(f"\nsuite {name}: {', '.join(members)}"), end="")
    console.print()


def _source(task: Task) -> str:
    return task.dataset.repo or ("made by rule" if task.dataset.generator else "ships with gguf-eval")


def item_text(item: Item, asked: AskedItem | None = None) -> str:
    """One item: what stands before the answer between bars, then its choices (the right ones marked) or references.

    ``asked``: as one model gets it, its control tokens marked, its tokens counted.
    """
    if asked is None:
        prompts = [("", item.context(index)) for index in range(len(item.contexts))]
        answers = [repr(item.delimiter + choice) for choice in item.choices]
    else:
        prompts = [(f", {prompt.tokens} tokens", prompt.text) for prompt in asked.prompts]
        answers = [f"{answer.text!r} ({several(answer.tokens, 'token')})" for answer in asked.answers]
    lines = [plain(f"item {item.id}" + (f" ({item.subject})" if item.subject else ""))]
    for index, (counted, text) in enumerate(prompts):
        of_choice = f" of choice {index}" if len(prompts) > 1 else ""
        lines += [f"┌─ prompt{of_choice}{counted}", *(f"│{plain(line)}" for line in text.split("\n")), "└─"]
    for index, answer in enumerate(answers):
        lines.append(f" {'*' if index in item.golds else ' '} {index}: {answer}")
    if asked and asked.unscored_reason:
        lines.append(f"unscored: {plain(asked.unscored_reason)}")
    if item.references:
        lines.append(f"references: {'; '.join(map(repr, item.references))}")
    return "\n".join(lines)
