"""The tables below the main one: groups, tasks, and what tasks say beyond scores; a row each, a column a level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from gguf_eval.analysis.models import grouped
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.report import words
from gguf_eval.report.columns import Cell, estimate_cell
from gguf_eval.report.tables import VERDICT_STYLES, bare_table

_NAME_WIDTH, _CELL_WIDTH, _CELL_WIDTH_WITH_INTERVAL = 24, 9, 13
_WHOLE_NAME_WIDTH, _WHOLE_CELL_WIDTH = 36, 10
_ANSWERS = "KLD of right answers"
LEGEND = "Against the reference: ▼ worse, ▲ better, = the same; no mark: undecided."


@dataclass(frozen=True)
class TaskRow:
    """One row, with the cell of every point."""

    name: str
    cells: Sequence[Cell]
    is_group: bool = False


def by_task_tables(study: StudySummary, points: Sequence[PointSummary], width: int, *, with_tasks: bool) -> list[Table]:
    """Scores, then what tasks say beyond them; as many tables as the levels need.

    Intervals go first where there is no room for them.
    """
    shown = [point for point in points if point.tasks]
    scores, whole = score_rows(study, shown, with_tasks=with_tasks), whole_rows(shown)
    tables: list[Table] = []
    if scores:
        name_width = min(_NAME_WIDTH, max(cell_len(row.name) for row in scores))
        intervals = _fitting(shown, width - name_width, _CELL_WIDTH_WITH_INTERVAL) >= len(shown)
        cell_width = _CELL_WIDTH_WITH_INTERVAL if intervals else _CELL_WIDTH
        head, each = "group" if scores[0].is_group else "task", _fitting(shown, width - name_width, cell_width)
        tables += _tables(head, name_width, scores, shown, each, lambda cell: _marked(cell, intervals))
    if whole:
        each = _fitting(shown, width - _WHOLE_NAME_WIDTH, _WHOLE_CELL_WIDTH)
        tables += _tables("over all items", _WHOLE_NAME_WIDTH, whole, shown, each, lambda cell: Text(cell.text))
    return tables


def score_rows(study: StudySummary, points: Sequence[PointSummary], *, with_tasks: bool) -> list[TaskRow]:
    """A row for each group of a model's tasks, where there are several, and where asked for its tasks after it."""
    tasks = {name: task for point in reversed(points) for name, task in point.tasks.items()}
    groups = grouped((tasks[name].group, name) for name in study.task_names if name in tasks)
    score_tasks = study.score_tasks.get(points[0].model, ()) if points else ()
    several = sum(map(bool, groups)) > 1
    rows: list[TaskRow] = []
    for group, names in groups.items():
        is_group = several and bool(group)
        if is_group:
            over = [name for name in names if name in score_tasks] or names
            only = only_task(study, points[0], group)
            cells = [_group_cell(point, group, only) for point in points]
            rows.append(TaskRow(f"{group} ({words.several(len(over), 'task')})", cells, True))
        if with_tasks:
            rows += [TaskRow("  " * is_group + name, [_task_cell(p, name) for p in points]) for name in names]
    return rows


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


def whole_rows(points: Sequence[PointSummary]) -> list[TaskRow]:
    """Aggregates, groups of subjects and divergences of right answers, where any of the points has them."""
    figures = [_whole_cells(point) for point in points]
    keys = dict.fromkeys(key for found in figures for key in found)
    return [TaskRow(f"{key[0]}: {key[2]}", [found.get(key, Cell()) for found in figures]) for key in keys]


def _whole_cells(point: PointSummary) -> dict[tuple[str, str, str], Cell]:
    """By task, kind of figure and its name."""
    shown: dict[tuple[str, str, str], tuple[str, str]] = {}
    for task in point.tasks.values():
        for name, value in task.whole.aggregates.items():
            shown[task.name, "aggregate", name] = (words.aggregate(name, value), "")
        for name, estimate in task.whole.groups.items():
            shown[task.name, "group", name] = (words.percent(estimate.value), "")
        if task.divergence:
            shown[task.name, "answers", _ANSWERS] = words.divergence(task.divergence.mean)
    return {key: Cell(text, interval, float(text)) for key, (text, interval) in shown.items()}


def _group_cell(point: PointSummary, group: str, only: str | None) -> Cell:
    """A point's average over the tasks of a group, which is the score of a single one."""
    average = point.averages.get(group)
    return (estimate_cell(average.estimate) or Cell()) if average else _task_cell(point, only)


def _task_cell(point: PointSummary, name: str | None) -> Cell:
    task = point.tasks.get(name or "")
    if task is None:
        return Cell()
    return estimate_cell(task.estimate, task.comparison.verdict if task.comparison else "") or Cell()


def _fitting(points: Sequence[PointSummary], room: int, cell_width: int) -> int:
    """How many of the points' columns stand beside each other, one at least."""
    return max(1, room // max(cell_width, *(cell_len(point.label) + 2 for point in points)))


def _tables(
    head: str,
    name_width: int,
    rows: Sequence[TaskRow],
    points: Sequence[PointSummary],
    each: int,
    show: Callable[[Cell], Text],
) -> list[Table]:
    tables = []
    for first in range(0, len(points), each):
        table = bare_table()
        table.add_column(head, no_wrap=True, max_width=name_width)
        for point in points[first : first + each]:
            table.add_column(Text(point.label), justify="right", no_wrap=True)
        for row in rows:
            cells = map(show, row.cells[first : first + each])
            table.add_row(Text(row.name, style="bold" if row.is_group else ""), *cells)
        tables.append(table)
    return tables


def _marked(cell: Cell, intervals: bool) -> Text:
    text = Text(cell.text)
    if intervals and cell.small:
        text.append(f" {cell.small}", style="dim")
    return text.append(words.VERDICT_MARKS.get(cell.verdict, " "), style=VERDICT_STYLES.get(cell.verdict, ""))
