"""The main table of each model: its columns filled in, the best of each marked, its rows sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from gguf_eval.analysis.marks import find_marks, generation_rate, score
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.errors import UsageError, nearest
from gguf_eval.report import notes
from gguf_eval.report.columns import Cell, Column, all_columns

SORTS: dict[str, Callable[[PointSummary], float]] = {
    "bpw": lambda point: -point.bits_per_weight,
    "file": lambda point: point.size_bytes or float("inf"),
    "memory": lambda point: point.peak_rss_bytes or float("inf"),
    "speed": lambda point: -(generation_rate(point) or 0.0),
    "score": lambda point: -(estimate.value if (estimate := score(point)) else -1.0),
}
"""What ``--sort`` takes; the best value comes first."""


@dataclass(frozen=True)
class Filled:
    """A column with the cell of every row."""

    column: Column
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class MainTable:
    """The columns that have something to say of a model's points."""

    points: Sequence[PointSummary]
    """The reference first, then from most bits to fewest."""
    rows: Sequence[PointSummary]
    """The same as they are sorted."""
    columns: Sequence[Filled]
    front: frozenset[int]
    """Ids of the points on the Pareto front."""


def main_tables(study: StudySummary, sort: str | None = None) -> list[MainTable]:
    """One table a model, sorted by one of `SORTS`; raises `UsageError` where there is no such order."""
    if sort is not None and sort not in SORTS:
        raise UsageError(f"--sort: '{sort}' is unknown{nearest(sort, SORTS)}; there are: {', '.join(SORTS)}")
    front = find_marks(study).front
    tables = []
    for points in by_model(study.points).values():
        rows = sorted(points, key=SORTS[sort]) if sort else points
        filled = [Filled(column, _cells(column, rows)) for column in all_columns(study, points) if not column.hidden]
        told = [f for f in filled if not f.column.optional or any(cell.number is not None for cell in f.cells)]
        tables.append(MainTable(points, rows, told, front))
    return tables


def _cells(column: Column, points: Sequence[PointSummary]) -> tuple[Cell, ...]:
    """The best one is among those of complete points, where these differ."""
    cells = [(column.find(point) or Cell(), point.status == "complete") for point in points]
    values = {cell.number for cell, complete in cells if complete and cell.number is not None}
    best = column.best(values) if column.best and len(values) > 1 else None
    return tuple(replace(cell, best=complete and best is not None and cell.number == best) for cell, complete in cells)


def table_notes(study: StudySummary, tables: Iterable[MainTable]) -> list[str]:
    """What the figures of these tables are, and where they were measured."""
    shown = [filled for table in tables for filled in table.columns]
    starred = any(cell.best for filled in shown for cell in filled.cells)
    own = dict.fromkeys(filled.column.note for filled in shown if filled.column.note)
    return notes.how_to_read(study, list(own), starred=starred, front=any(table.front for table in tables))
