"""A plain list: the tasks that ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gguf_eval.tasks.spec import Task


def print_tasks(tasks: Sequence[Task], suites: Mapping[str, Sequence[str]], console: Console) -> None:
    """One line a task, then the suites."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("task", "metric", "source", "what it asks"):
        table.add_column(column, no_wrap=column != "what it asks")
    for task in tasks:
        source = task.dataset.repo or ("made by rule" if task.dataset.generator else "ships with gguf-eval")
        table.add_row(Text(task.name), Text(task.metric), Text(source), Text(task.description))
    console.print(table)
    for name, members in suites.items():
        console.print(Text(f"\nsuite {name}: {', '.join(members)}"), end="")
    console.print()
