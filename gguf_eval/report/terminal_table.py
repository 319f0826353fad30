"""The main table in a terminal: which columns go when it is narrow, and how cells look there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from gguf_eval.analysis.marks import generation_rate, score
from gguf_eval.analysis.summary import PointSummary
from gguf_eval.errors import UsageError, nearest
from gguf_eval.report import tables
from gguf_eval.report.columns import LEVEL, STAYS, TASKS, Cell, Filled
from gguf_eval.report.tables import VERDICT_STYLES, width_of

SORTS: dict[str, Callable[[PointSummary], float]] = {
    "bpw": lambda point: -point.bits_per_weight,
    "file": lambda point: point.size_bytes or float("inf"),
    "memory": lambda point: point.peak_rss_bytes or float("inf"),
    "speed": lambda point: -(generation_rate(point) or 0.0),
    "score": lambda point: -(estimate.value if (estimate := score(point)) else -1.0),
}
"""What ``--sort`` takes; the best value comes first."""


def ordered(points: Sequence[PointSummary], sort: str | None) -> list[PointSummary]:
    """The points by ``--sort``, or as they are: the reference first, then from most bits to fewest."""
    if sort is None:
        return list(points)
    if sort not in SORTS:
        raise UsageError(f"--sort: '{sort}' is unknown{nearest(sort, SORTS)}; there are: {', '.join(SORTS)}")
    return sorted(points, key=SORTS[sort])


def chosen(table: Sequence[Filled], keys: Sequence[str]) -> list[Filled]:
    """The columns the user names, in that order; ``tasks`` means every task."""
    picked: list[Filled] = []
    for key in keys:
        found = [filled for filled in table if key in (filled.column.key, filled.column.kind)]
        if not found:
            known = [filled.column.key for filled in table]
            raise UsageError(f"--columns: no column '{key}'{nearest(key, known)}; there are: {', '.join(known)}, tasks")
        picked += [filled for filled in found if filled not in picked]
    return picked


def fitting(
    table: Sequence[Filled], points: Sequence[PointSummary], front: frozenset[int], width: int, *, complete: bool
) -> list[Filled]:
    """The columns left when the least telling ones have gone until the table fits; with ``complete`` only tasks go."""
    left = list(table)
    for leaves in sorted({filled.column.leaves for filled in table} - {STAYS}):
        if width_of(printed(left, points, front)) <= width:
            break
        left = [f for f in left if f.column.leaves != leaves or (complete and f.column.kind != TASKS)]
    return left


def printed(table: Sequence[Filled], points: Sequence[PointSummary], front: frozenset[int]) -> list[tables.Column]:
    """The columns as the terminal shows them; ``points``: of the rows, ``front``: those on the Pareto front."""
    return [_levels(points, front) if filled.column is LEVEL else _figures(filled) for filled in table]


def _figures(filled: Filled) -> tables.Column:
    """The star of the best has a place of its own, which stays empty elsewhere."""
    place = "" if filled.column.best is None else " "
    cells = [_cell(cell, place) for cell in filled.cells]
    return tables.Column(filled.column.header + place, cells, "left" if filled.column.to_left else "right")


def _cell(cell: Cell, place: str) -> Text:
    text = Text(f"{cell.text}*", style="bold") if cell.best else Text(cell.text + place)
    if cell.verdict:
        text.append(f"{' ' * bool(cell.text)}{cell.verdict}", style=VERDICT_STYLES.get(cell.verdict, "dim"))
    return text.append(f"\n{cell.small}{place}", style="not bold dim") if cell.small else text


def _levels(points: Sequence[PointSummary], front: frozenset[int]) -> tables.Column:
    cells = []
    for point in points:
        mark = {"failed": "✗ ", "partial": "… ", "complete": "◆ " if point.id in front else "  "}[point.status]
        style = "dim" if point.status == "failed" else "bold" if point.id in front else ""
        cells.append(Text(mark + point.label, style=style))
    return tables.Column(f"  {LEVEL.header}", cells, "left")
