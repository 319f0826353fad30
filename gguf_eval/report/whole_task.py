"""The table of what tasks say beyond their headline: aggregates, groups of subjects, divergence of right answers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gguf_eval.analysis.summary import PointSummary
from gguf_eval.report import words
from gguf_eval.report.columns import Cell
from gguf_eval.report.tables import bare_table

_CELL_WIDTH = 10
_NAME_WIDTH = 36


def whole_task_tables(points: Sequence[PointSummary], width: int) -> list[Table]:
    """As many tables as the levels need; none where no task has such figures."""
    shown = [point for point in points if point.tasks]
    rows = whole_rows(points)
    label_width = max((Text(point.label).cell_len for point in shown), default=0) + 2
    each = max(1, (width - _NAME_WIDTH) // max(label_width, _CELL_WIDTH))
    return [_table(rows, shown[i : i + each]) for i in range(0, len(shown), each)] if rows else []


WholeRow = tuple[str, str, str]
"""Task, ``aggregate``, ``group`` or ``answers``, its name."""
_ANSWERS = "KLD of right answers"


def whole_rows(points: Sequence[PointSummary]) -> list[WholeRow]:
    """Every such figure that any of the points has."""
    found = [
        (task.name, kind, name)
        for point in points
        for task in point.tasks.values()
        for kind, names in (
            ("aggregate", task.whole.aggregates),
            ("group", task.whole.groups),
            ("answers", (_ANSWERS,) if task.divergence else ()),
        )
        for name in names
    ]
    return list(dict.fromkeys(found))


def _table(rows: Sequence[WholeRow], points: Sequence[PointSummary]) -> Table:
    table = bare_table()
    table.add_column("over all items", no_wrap=True, max_width=_NAME_WIDTH)
    for point in points:
        table.add_column(Text(point.label), justify="right", no_wrap=True)
    for task, kind, name in rows:
        table.add_row(Text(f"{task}: {name}"), *(Text(whole_cell(point, (task, kind, name)).text) for point in points))
    return table


def whole_cell(point: PointSummary, row: WholeRow) -> Cell:
    """The figure as it is shown."""
    task, kind, name = row
    found = point.tasks.get(task)
    shown, interval = "", ""
    if found is not None and kind == "answers" and found.divergence:
        shown, interval = words.divergence(found.divergence.mean)
    elif found is not None and kind == "group" and name in found.whole.groups:
        shown = words.percent(found.whole.groups[name].value)
    elif found is not None and kind == "aggregate" and name in found.whole.aggregates:
        shown = words.aggregate(name, found.whole.aggregates[name])
    return Cell(shown, interval, float(shown)) if shown else Cell()
