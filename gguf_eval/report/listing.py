"""A plain list: the tasks that ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from gguf_eval.report.tables import GAP, TableColumn, bare_table, width_of
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
