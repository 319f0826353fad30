"""The table of groups and tasks: one row each, one column a level."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.report import words
from gguf_eval.report.columns import Cell
from gguf_eval.report.tables import VERDICT_STYLES, bare_table

_CELL_WIDTH = 7
_CELL_WIDTH_WITH_INTERVAL = 13
_NAME_WIDTH = 24
LEGEND = "Against the reference: ▼ worse, ▲ better, = the same; no mark: undecided."


def by_task_tables(study: StudySummary, points: Sequence[PointSummary], width: int, *, with_tasks: bool) -> list[Table]:
    """Groups with their averages and, where asked for, the tasks of each; as many tables as the levels need.

    Intervals go first where there is no room for them.
    """
    shown = [point for point in points if point.tasks]
    rows = group_rows(study, shown, with_tasks=with_tasks)
    if not rows or not shown:
        return []
    name_width = min(_NAME_WIDTH, max(Text(name).cell_len for name, _, _ in rows))
    room = width - name_width
    label_width = max(Text(point.label).cell_len for point in shown) + 2
    intervals = len(shown) * max(label_width, _CELL_WIDTH_WITH_INTERVAL) <= room
    each = max(1, room // max(label_width, _CELL_WIDTH_WITH_INTERVAL if intervals else _CELL_WIDTH + 2))
    parts = [shown[i : i + each] for i in range(0, len(shown), each)]
    return [_table(study, rows, part, name_width, intervals=intervals) for part in parts]


GroupRow = tuple[str, str, bool]
"""Shown name, key, whether it is a group."""


def group_rows(study: StudySummary, points: Sequence[PointSummary], *, with_tasks: bool) -> list[GroupRow]:
    """Each group, where there are several, and its tasks after it."""
    groups: dict[str, list[str]] = {}
    score_tasks = study.score_tasks.get(points[0].model, ()) if points else ()
    for name in study.task_names:
        task = next((point.tasks[name] for point in points if name in point.tasks), None)
        if task is not None:
            groups.setdefault(task.group, []).append(name)
    named = [group for group in groups if group]
    rows: list[GroupRow] = []
    for group, names in groups.items():
        if len(named) > 1 and group:
            over = [name for name in names if name in score_tasks]
            noun = "task" if len(over or names) == 1 else "tasks"
            rows.append((f"{group} ({len(over or names)} {noun})", group, True))
        if with_tasks:
            indent = "  " if len(named) > 1 and group else ""
            rows += [(indent + name, name, False) for name in names]
    return rows


def _table(
    study: StudySummary,
    rows: Sequence[GroupRow],
    points: Sequence[PointSummary],
    name_width: int,
    *,
    intervals: bool,
) -> Table:
    table = bare_table()
    table.add_column("group" if rows[0][2] else "task", no_wrap=True, max_width=name_width)
    for point in points:
        table.add_column(Text(point.label), justify="right", no_wrap=True)
    for name, key, is_group in rows:
        cells = [_text(by_task_cell(study, point, key, is_group), intervals) for point in points]
        table.add_row(Text(name, style="bold" if is_group else ""), *cells)
    return table


def by_task_cell(study: StudySummary, point: PointSummary, key: str, is_group: bool) -> Cell:
    """A point's score in a task, or its average over the tasks of a group, which is that of a single one."""
    average = point.averages.get(key) if is_group else None
    task = point.tasks.get((only_task(study, point, key) or "") if is_group else key)
    found = average.estimate if average else task.estimate if task else None
    if found is None:
        return Cell()
    verdict = task.comparison.verdict if task and task.comparison and not average else ""
    return Cell(words.percent(found.value), words.interval(found), found.value, verdict)


def only_task(study: StudySummary, point: PointSummary, group: str) -> str | None:
    """The name of the group's one task that scores are over, which is no average then."""
    score_tasks = study.score_tasks.get(point.model, ())
    members = {
        task.name
        for other in study.points
        if other.model == point.model
        for task in other.tasks.values()
        if task.group == group and task.name in score_tasks
    }
    return members.pop() if len(members) == 1 else None


def _text(cell: Cell, intervals: bool) -> Text:
    text = Text(cell.text)
    if intervals and cell.small:
        text.append(f" {cell.small}", style="dim")
    return text.append(words.VERDICT_MARKS.get(cell.verdict, " "), style=VERDICT_STYLES.get(cell.verdict, ""))
