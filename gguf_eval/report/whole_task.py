"""The table of what tasks say beyond their headline: aggregates and groups of subjects, one column a level."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gguf_eval.analysis.summary import PointSummary
from gguf_eval.report import words

_CELL_WIDTH = 10
_NAME_WIDTH = 32


def whole_task_tables(points: Sequence[PointSummary], width: int) -> list[Table]:
    """As many tables as the levels need; none where no task has such figures."""
    shown = [point for point in points if point.tasks]
    rows = list(dict.fromkeys(row for point in shown for row in _rows(point)))
    each = max(1, (width - _NAME_WIDTH) // _CELL_WIDTH)
    return [_table(rows, shown[i : i + each]) for i in range(0, len(shown), each)] if rows else []


_Row = tuple[str, str, str]
"""Task, ``aggregate`` or ``group``, its name."""


def _rows(point: PointSummary) -> list[_Row]:
    return [
        (task.name, kind, name)
        for task in point.tasks.values()
        for kind, names in (("aggregate", task.whole.aggregates), ("group", task.whole.groups))
        for name in names
    ]


def _table(rows: Sequence[_Row], points: Sequence[PointSummary]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("over all items", no_wrap=True, max_width=_NAME_WIDTH)
    for point in points:
        table.add_column(Text(point.label), justify="right", no_wrap=True)
    for task, kind, name in rows:
        table.add_row(Text(f"{task}: {name}"), *(Text(_cell(point, task, kind, name)) for point in points))
    return table


def _cell(point: PointSummary, task: str, kind: str, name: str) -> str:
    found = point.tasks.get(task)
    if found is None:
        return words.MISSING
    if kind == "group":
        estimate = found.whole.groups.get(name)
        return words.MISSING if estimate is None else words.percent(estimate.value)
    value = found.whole.aggregates.get(name)
    return words.MISSING if value is None else words.aggregate(name, value)
