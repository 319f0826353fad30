"""What changed between two dates, in a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gguf_eval.analysis.changes import Changes, PointChange
from gguf_eval.analysis.item_changes import Counts, ItemsChange
from gguf_eval.analysis.models import by_model
from gguf_eval.report import change_words, words
from gguf_eval.report.change_words import percent_change, ratio_interval, title
from gguf_eval.report.escape import printable
from gguf_eval.report.tables import VERDICT_STYLES, TableColumn, bare_table, packed, print_lines

SCHEMA = 1
_STYLES = {**VERDICT_STYLES, "identical": "green"}
_MOST_WITH_INTERVALS = 12
"""Tasks up to which each has its interval, on a line of its own."""


def changes_document(changes: Changes, command: str) -> dict[str, Any]:
    """Every figure with its n, method and interval (`Changes` names the keys); ``worse`` is what a check stops at."""
    worse = [asdict(finding) for finding in changes.worse]
    return {"schema": SCHEMA, "command": command, **asdict(changes), "worse": worse}


def print_changes(changes: Changes, console: Console) -> None:
    """Print everything at the console's width."""
    changes = printable(changes)
    for when, source in (("old", changes.old), ("new", changes.new)):
        heading = Text.assemble(
            (when, "bold"), f"  {source.path}", (f", begun {words.moment(source.created_at)}", "dim")
        )
        print_lines([heading], console)
    _print_circumstances(changes, console)
    for model, points in by_model(changes.points).items():
        console.print(Text(f"\n{model}", style="bold"), soft_wrap=True)
        for table in packed(_main_columns(points), console.width):
            console.print(table)
        for table in _task_tables(points, console.width):
            console.print(Text(f"\n{model} by task", style="bold"), soft_wrap=True)
            console.print(table)
    console.print()
    for line in change_words.notes(changes):
        console.print(Text(line, style="dim"))
    print_lines(change_words.warnings(changes), console)
    console.print()
    print_lines(change_words.conclusion(changes), console)


def _print_circumstances(changes: Changes, console: Console) -> None:
    rows = [(found.what, found.old, found.new, ", ".join(found.points)) for found in changes.circumstances]
    rows += [
        ("model file", _file(p.old_sha256, p.old_size_bytes), _file(p.new_sha256, p.new_size_bytes), p.name)
        for p in changes.points
        if p.old_sha256 != p.new_sha256
    ]
    if not rows:
        console.print(Text("Machine, build, packages, settings and model files are the same.", style="dim"))
        return
    table = bare_table()
    names = ("not the same", "old", "new", *(("of",) if any(row[-1] for row in rows) else ()))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row[: len(names)]))
    console.print()
    console.print(table)


def _file(sha256: str | None, size_bytes: int) -> str:
    return f"{sha256[:12]}, {words.size(size_bytes)}" if sha256 else words.MISSING


def _main_columns(points: Sequence[PointChange]) -> list[TableColumn]:
    columns = [
        TableColumn("  level", tuple(map(_level, points)), "left"),
        TableColumn("score", tuple(_difference(point.overall) for point in points), "left"),
        TableColumn("flips", tuple(_flips(point.overall) for point in points)),
        TableColumn("identical", tuple(_identical(point.overall.counts) for point in points)),
    ]
    several = len({text.text for point in points for text in point.texts}) > 1
    titles = {(ratio.unit, ratio.what): title(ratio, several) for point in points for ratio in point.ratios}
    return columns + [TableColumn(title, tuple(_ratio(p, key) for p in points)) for key, title in titles.items()]


def _level(point: PointChange) -> Text:
    return Text({"failed": "✗ ", "partial": "… ", "complete": "  "}[point.new_status] + point.label)


def _difference(change: ItemsChange) -> Text:
    if change.comparison is None:
        return Text(words.MISSING)
    difference, verdict = change.comparison.difference, change.verdict or "undecided"
    text = Text(f"{words.signed_points(difference.value)} ").append(verdict, style=_STYLES[verdict])
    return text.append(f"\n{words.difference_interval(difference)}", style="dim")


def _flips(change: ItemsChange) -> Text:
    found = change.comparison
    return Text(words.MISSING) if found is None else Text(words.flips(found))


def _identical(counts: Counts) -> Text:
    if not counts.common:
        return Text(words.MISSING)
    text = Text(_share(counts.identical, counts.common))
    return text.append(f"\n{_share(counts.same_answer, counts.common)} same", style="dim")


def _share(part: int, whole: int) -> str:
    """Never rounded up to all, nor down to none."""
    if part in (0, whole):
        return "all" if part else "none"
    return f"{min(99.9, max(0.1, 100 * part / whole)):.1f} %"


def _ratio(point: PointChange, key: tuple[str, str]) -> Text:
    found = next((ratio for ratio in point.ratios if (ratio.unit, ratio.what) == key), None)
    if found is None:
        return Text(f"{words.MISSING}  ")
    text = Text(f"{percent_change(found, found.ratio)} % ").append(
        words.VERDICT_MARKS[found.verdict], style=_STYLES[found.verdict]
    )
    return text.append(f"\n{ratio_interval(found)}  ", style="dim")


def _task_tables(points: Sequence[PointChange], width: int) -> list[Table]:
    """One row a task, one column a point; none where there is a single task, which the main table shows."""
    names = list(dict.fromkeys(task.name for point in points for task in point.tasks))
    if len(names) < 2:
        return []
    for intervals in (True, False) if len(names) <= _MOST_WITH_INTERVALS else (False,):
        columns = [TableColumn("task", tuple(map(Text, names)), "left")]
        columns += [
            TableColumn(point.label, tuple(_task_cell(point, name, intervals) for name in names)) for point in points
        ]
        tables = packed(columns, width)
        if len(tables) == 1:
            break
    return tables


def _task_cell(point: PointChange, name: str, intervals: bool) -> Text:
    task = next((task for task in point.tasks if task.name == name), None)
    if task is None or task.comparison is None:
        return Text(f"{words.MISSING}  ")
    verdict = task.verdict or "undecided"
    text = Text(f"{words.signed_points(task.comparison.difference.value)} ")
    text.append(words.VERDICT_MARKS[verdict], style=_STYLES[verdict])
    return (
        text.append(f"\n{words.difference_interval(task.comparison.difference)}  ", style="dim") if intervals else text
    )
