"""The report in a terminal: tables at its width, two scatters, and what it all comes to in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from gguf_eval.analysis.marks import find_marks, generation_rate, memory
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.sanity import warning_lines
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.errors import UsageError, nearest
from gguf_eval.report import words
from gguf_eval.report.by_task import LEGEND, by_task_tables
from gguf_eval.report.columns import LEVEL, STAYS, TASKS, Cell
from gguf_eval.report.conclusion import conclusion
from gguf_eval.report.escape import printable
from gguf_eval.report.main_table import Filled, MainTable, main_tables, table_notes
from gguf_eval.report.scatter import Dot, best_height, scatter
from gguf_eval.report.tables import VERDICT_STYLES, TableColumn, print_lines, print_warnings, whole_table, width_of

_MODEL_STYLES = ("cyan", "magenta", "green", "yellow", "blue", "red")
_MARKS = (("◆", "◇"), ("●", "○"), ("■", "□"), ("▲", "△"), ("★", "☆"), ("▼", "▽"))
"""Of each model in the scatters: on the Pareto front, and off it."""
_WIDE = 10_000
_PLOT_WIDTH, _PLOTS_WIDTH = 78, 160
_BESIDE_WIDTH = 100
"""From this width on the two scatters stand side by side."""


def print_report(
    study: StudySummary,
    console: Console,
    *,
    wide: bool = False,
    columns: Sequence[str] = (),
    sort: str | None = None,
    complete: bool = False,
) -> None:
    """Print the whole report at the console's width.

    ``wide`` prints every column, however long the lines get, and so does ``complete``, which leaves the tasks to their
    own table where they don't fit.
    """
    sentences = [[printable(line) for line in conclusion(found)] for found in conclude(study)]
    study = printable(study)
    tables = main_tables(study, sort)
    plot_width = min(console.width, _PLOTS_WIDTH)
    if wide:
        console.width = _WIDE
    by_task: dict[str, list[Table]] = {}
    no_room: dict[str, None] = {}
    for table in tables:
        by_task[table.points[0].model], left_out = _print_model(study, table, console, columns, complete)
        no_room |= dict.fromkeys(left_out)
    for model, parts in by_task.items():
        if parts:
            console.print(Text(f"\n{model} by task", style="bold"))
        for part in parts:
            console.print(part)
    if any(by_task.values()):
        console.print(Text(LEGEND, style="dim"))
    for plot in _scatters(study, plot_width):
        console.print(plot)
    console.print()
    _print_notes(study, table_notes(study, tables), list(no_room), console)
    for paragraph in sentences:
        console.print()
        print_lines(paragraph, console)


def _print_notes(study: StudySummary, notes: Sequence[str], no_room: Sequence[str], console: Console) -> None:
    """Columns that found no room, what the figures are, and what they must be read with."""
    if no_room:
        missed = f"No room for {', '.join(no_room)}: see --wide, or choose with --columns."
        console.print(Text(missed, style="dim"))
    for line in notes:
        console.print(Text(line, style="dim"))
    print_lines((f"! {caution}" for caution in study.cautions), console, "bold red")
    print_warnings(warning_lines(study.warnings), console)


def _print_model(
    study: StudySummary, table: MainTable, console: Console, columns: Sequence[str], complete: bool
) -> tuple[list[Table], list[str]]:
    """Print one model's main table; return the tables of tasks and groups, and the columns that found no room."""
    points = table.points
    shown = _chosen(table, columns) if columns else _fitting(table, console.width, complete=complete)
    looks = _printed(table, shown)
    if complete:
        console.width = max(console.width, width_of(looks))
    console.print()
    console.print(Text.assemble((points[0].model, "bold"), " ", (words.parameters(points), "dim")), soft_wrap=True)
    console.print(whole_table(looks))
    print_lines(_harness_lines(points) + _failures(points), console)
    if columns:
        return [], []
    left_out = [filled.column.header for filled in table.columns if filled not in shown and filled.column.kind != TASKS]
    with_tasks = len(study.task_names) > 1 and not any(filled.column.kind == TASKS for filled in shown)
    return by_task_tables(study, points, console.width, with_tasks=with_tasks), left_out


def _chosen(table: MainTable, keys: Sequence[str]) -> list[Filled]:
    """The columns the user names, in that order; ``tasks`` means every task."""
    picked: list[Filled] = []
    for key in keys:
        found = [filled for filled in table.columns if key in (filled.column.key, filled.column.kind)]
        if not found:
            known = [filled.column.key for filled in table.columns]
            raise UsageError(f"--columns: no column '{key}'{nearest(key, known)}; there are: {', '.join(known)}, tasks")
        picked += [filled for filled in found if filled not in picked]
    return picked


def _fitting(table: MainTable, width: int, *, complete: bool) -> list[Filled]:
    """The columns left when the least telling ones have gone until the table fits; with ``complete`` only tasks go."""
    left = list(table.columns)
    for leaves in sorted({filled.column.leaves for filled in left} - {STAYS}):
        if width_of(_printed(table, left)) <= width:
            break
        left = [f for f in left if f.column.leaves != leaves or (complete and f.column.kind != TASKS)]
    return left


def _printed(table: MainTable, columns: Sequence[Filled]) -> list[TableColumn]:
    """These of its columns as the terminal shows them."""
    return [_levels(table) if filled.column is LEVEL else _figures(filled) for filled in columns]


def _figures(filled: Filled) -> TableColumn:
    """The star of the best has a place of its own, which stays empty elsewhere."""
    place = "" if filled.column.best is None else " "
    cells = [_cell(cell, place) for cell in filled.cells]
    return TableColumn(filled.column.header + place, cells, "left" if filled.column.to_left else "right")


def _cell(cell: Cell, place: str) -> Text:
    text = Text(f"{cell.text}*", style="bold") if cell.best else Text(cell.text + place)
    if cell.verdict:
        text.append(f"{' ' * bool(cell.text)}{cell.verdict}", style=VERDICT_STYLES.get(cell.verdict, "dim"))
    return text.append(f"\n{cell.small}{place}", style="not bold dim") if cell.small else text


def _levels(table: MainTable) -> TableColumn:
    cells = []
    for point in table.rows:
        on_front = point.id in table.front
        style = "dim" if point.status == "failed" else "bold" if on_front else ""
        cells.append(Text(("◆ " if on_front else words.STATUS_MARKS[point.status]) + point.label, style=style))
    return TableColumn(f"  {LEVEL.header}", cells, "left")


def _harness_lines(points: Sequence[PointSummary]) -> list[Text]:
    """lm-evaluation-harness's figures of tasks that have no score of their own in the table: perplexities."""
    lines = []
    for point in points:
        for task, figures in point.harness.items():
            if task not in point.tasks:
                shown = ", ".join(f"{metric.removesuffix(',none')} {value:.4g}" for metric, value in figures.items())
                lines.append(Text(f"{point.label} {task}: {shown}"))
    return lines


def _failures(points: Sequence[PointSummary]) -> list[Text]:
    again = "run the same command again to finish it"
    lines = [Text(f"✗ {p.label} failed: {p.error}", style="red") for p in points if p.status == "failed"]
    partial = [p.label for p in points if p.status == "partial"]
    return lines + [Text(f"… {label} is incomplete: {again}", style="yellow") for label in partial]


def _scatters(study: StudySummary, width: int) -> list[RenderableType]:
    """Score and speed against memory, side by side where there is room; none for fewer than three points.

    Each model has its mark and colour: full on the Pareto front, hollow off it.
    """
    models = {model: (_MARKS[i % len(_MARKS)], _MODEL_STYLES[i % len(_MODEL_STYLES)])
              for i, model in enumerate(by_model(study.points))}  # fmt: skip
    marks = find_marks(study)
    quality, speed = [], []
    for point in sorted(study.points, key=lambda point: point.id in marks.front):  # the front is drawn over the others
        taken, estimate, rate = memory(study, point), point.joint_score, generation_rate(point)
        (full, hollow), style = models[point.model]
        mark = full if point.id in marks.front or not marks.front else hollow
        if taken and estimate is not None:
            quality.append(Dot(taken / 1e9, estimate.value * 100, point.label, style, mark))
        if taken and rate is not None:
            speed.append(Dot(taken / 1e9, rate, point.label, style, mark))
    wanted = [(quality, "score, %"), (speed, "generation, tokens/s")]
    plots = [(dots, f"{title}, against memory") for dots, title in wanted if len(dots) > 2]
    if not plots:
        return []
    beside = len(plots) > 1 and width >= _BESIDE_WIDTH
    each = (width - 4) // 2 if beside else min(width, _PLOT_WIDTH)
    height = best_height([dots for dots, _ in plots], each)
    drawn: list[RenderableType] = [
        scatter(dots, title=title, x_title="memory, GB", width=each, height=height) for dots, title in plots
    ]
    grid = Table.grid(padding=(0, 4, 0, 0))
    if beside:
        grid.add_row(*drawn)
    body = [grid] if beside else [part for plot in drawn for part in (plot, Text())][:-1]
    return [Text(), *body, *_legend(models, {dot.mark for dots, _ in plots for dot in dots})]


def _legend(models: Mapping[str, tuple[tuple[str, str], str]], seen: Collection[str]) -> list[RenderableType]:
    """Which mark is whose, where there are several; what a hollow one means, where there is one."""
    parts = [(f"{full} {model}   ", style) for model, ((full, _), style) in models.items()] if len(models) > 1 else []
    hollow = [marks[1] for marks in _MARKS if marks[1] in seen]
    if hollow:
        parts.append((f"hollow ({' '.join(hollow)}): not on the Pareto front", "dim"))
    return [Text.assemble(*parts)] if parts else []
