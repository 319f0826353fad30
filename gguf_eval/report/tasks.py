"""Tasks in a terminal: those that ship, and items as the model gets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from gguf_eval.report.escape import plain
from gguf_eval.report.tables import GAP, TableColumn, bare_table, width_of
from gguf_eval.study.stages.show import AskedItem
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Task

_LEAST_DESCRIPTION = 36
"""Cells that descriptions must have; where there is no room for it, the source goes, then the metric."""


def print_tasks(tasks: Sequence[Task], suites: Mapping[str, Sequence[str]], console: Console) -> None:
    """One row a task, then the suites."""
    columns = [
        TableColumn("task", [Text(task.name) for task in tasks], "left"),
        TableColumn("metric", [Text(task.metric) for task in tasks], "left"),
        TableColumn("source", [Text(_source(task)) for task in tasks], "left"),
    ]
    while len(columns) > 1 and width_of(columns) + GAP + _LEAST_DESCRIPTION > console.width:
        columns.pop()
    table = bare_table()
    for column in columns:
        table.add_column(column.header, no_wrap=True)
    table.add_column("what it asks")
    for number, task in enumerate(tasks):
        table.add_row(*(column.cells[number] for column in columns), Text(task.description))
    console.print(table)
    for name, members in suites.items():
        console.print(Text(f"\nsuite {name}: {', '.join(members)}"), end="")
    console.print()


def _source(task: Task) -> str:
    return task.dataset.repo or ("made by rule" if task.dataset.generator else "ships with gguf-eval")


def item_text(item: Item) -> str:
    """One item: what stands before the answer between bars, then its choices (the right ones marked) or references."""
    lines = [_heading(item)]
    for index in range(len(item.contexts)):
        lines += _framed("prompt" + (f" of choice {index}" if len(item.contexts) > 1 else ""), item.context(index))
    for index, choice in enumerate(item.choices):
        lines.append(f" {_mark(item, index)} {index}: {item.delimiter + choice!r}")
    return "\n".join(lines + _references(item))


def asked_item_text(item: Item, asked: AskedItem) -> str:
    """The same as one model gets it: its control tokens marked, its tokens counted."""
    lines = [_heading(item)]
    for index, prompt in enumerate(asked.prompts):
        of_choice = f" of choice {index}" if len(asked.prompts) > 1 else ""
        lines += _framed(f"prompt{of_choice}, {prompt.tokens} tokens", prompt.text)
    for index, answer in enumerate(asked.answers):
        tokens = f"{answer.tokens} token" + ("s" if answer.tokens != 1 else "")
        lines.append(f" {_mark(item, index)} {index}: {answer.text!r} ({tokens})")
    if asked.unscored_reason:
        lines.append(f"unscored: {plain(asked.unscored_reason)}")
    return "\n".join(lines + _references(item))


def items_text(texts: Sequence[str]) -> str:
    """Several items, a blank line between them."""
    return "\n\n".join(texts)


def _heading(item: Item) -> str:
    return plain(f"item {item.id}" + (f" ({item.subject})" if item.subject else ""))


def _framed(title: str, text: str) -> list[str]:
    return [f"┌─ {title}", *(f"│{plain(line)}" for line in text.split("\n")), "└─"]


def _mark(item: Item, index: int) -> str:
    return "*" if index in item.golds else " "


def _references(item: Item) -> list[str]:
    if not item.references:
        return []
    return ["references: " + "; ".join(repr(reference) for reference in item.references)]
