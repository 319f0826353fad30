"""The report as Markdown, for model cards and READMEs: a table, how it was measured, the command that repeats it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.sanity import warning_lines
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.report import words
from gguf_eval.report.by_task import whole_rows
from gguf_eval.report.columns import LEVEL, TASKS, Cell
from gguf_eval.report.conclusion import conclusion
from gguf_eval.report.escape import markdown, plain
from gguf_eval.report.main_table import MainTable, main_tables, table_notes

_MOST_TASKS = 8
"""That have columns."""


def to_markdown(study: StudySummary) -> str:
    """The whole report; text from outside is escaped."""
    tables = main_tables(study)
    parts = []
    for table in tables:
        points = table.points
        parts += [f"### {markdown(points[0].model)} ({words.parameters(points)})", _main_table(table)]
        parts += _beyond_scores(points)
        parts += [f"- {markdown(p.label)} failed: {markdown(p.error or '')}" for p in points if p.status == "failed"]
    parts += [f"> {markdown(caution)}" for caution in study.cautions]
    parts += [f"> {markdown(line)}" for line in warning_lines(study.warnings)]
    parts += [markdown(line) for found in conclude(study) for line in conclusion(found)]
    parts.append("#### How it was measured")
    parts.append("\n".join(f"- {markdown(line)}" for line in table_notes(study, tables)))
    parts.append(f"Measured with gguf-eval, {markdown(words.moment(study.created_at))}:\n\n    {plain(study.command)}")
    return "\n\n".join(parts) + "\n"


def _main_table(table: MainTable) -> str:
    many = sum(filled.column.kind == TASKS for filled in table.columns) > _MOST_TASKS
    shown = [filled for filled in table.columns if not (many and filled.column.kind == TASKS)]
    levels = [("◆ " if point.id in table.front else "") + markdown(point.label) for point in table.rows]
    columns = [
        levels if filled.column is LEVEL else [_cell(cell, filled.column.beside) for cell in filled.cells]
        for filled in shown
    ]
    header = [markdown(filled.column.header) for filled in shown]
    rule = [":--" if filled.column.to_left else "--:" for filled in shown]
    return _lines([header, rule, *zip(*columns, strict=True)])


def _cell(cell: Cell, beside: str = "({})") -> str:
    small = beside.format(cell.small) if cell.small else ""
    return " ".join(filter(None, (cell.text, small, cell.verdict))) + "\\*" * cell.best


def _lines(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _beyond_scores(points: Sequence[PointSummary]) -> list[str]:
    """A table of aggregates, groups of subjects and divergences of right answers, where a task has any."""
    found = whole_rows(points)
    if not found:
        return []
    rows = [["over all items", *(markdown(point.label) for point in points)], [":--", *["--:"] * len(points)]]
    rows += [[markdown(row.name), *map(_cell, row.cells)] for row in found]
    return [_lines(rows)]
