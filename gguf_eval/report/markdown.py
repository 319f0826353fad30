"""The report as Markdown, for model cards and READMEs: a table, how it was measured, the command that repeats it."""

from __future__ import annotations

from collections.abc import Sequence

from gguf_eval.analysis.marks import Marks, find_marks, score
from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.sanity import warning_lines
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.report import words
from gguf_eval.report.columns import TextColumn, against, models_of, on_devices, text_columns
from gguf_eval.report.conclusion import conclusion
from gguf_eval.report.escape import markdown, plain
from gguf_eval.report.whole_task import whole_cell, whole_interval, whole_rows


def to_markdown(study: StudySummary) -> str:
    """The whole report; text from outside is escaped."""
    marks = find_marks(study)
    parts = []
    for model, points in models_of(study).items():
        parts += [f"### {markdown(model)} ({words.parameters(points)})", _table(study, points, marks)]
        parts += _beyond_scores(points)
        parts += [f"- {markdown(p.label)} failed: {markdown(p.error or '')}" for p in points if p.status == "failed"]
    parts += [f"> {markdown(caution)}" for caution in study.cautions]
    parts += [f"> {markdown(line)}" for line in warning_lines(study.warnings)]
    parts += [markdown(line) for found in conclude(study) for line in conclusion(found)]
    parts.append("#### How it was measured")
    parts.append("\n".join(f"- {markdown(line)}" for line in words.how_to_read(study, marks)))
    parts.append(f"Measured with gguf-eval, {markdown(words.moment(study.created_at))}:\n\n    {plain(study.command)}")
    return "\n\n".join(parts) + "\n"


def _table(study: StudySummary, points: Sequence[PointSummary], marks: Marks) -> str:
    tests = list(dict.fromkeys(test for point in points for test in point.speed))
    names = [name for name in study.task_names if any(name in point.tasks for point in points)]
    tasks = names if len(names) <= 8 else []
    texts, compared = text_columns(points), against(points)
    devices = any(map(on_devices, points))
    header = [
        "level",
        "bpw",
        "file",
        "peak RAM",
        *(["on devices"] if devices else []),
        *tests,
        *(["score"] if len(names) > 1 else []),
        *tasks,
        *(column.header for column in texts),
        *compared,
    ]
    rows = [[*map(markdown, header)], [":--", *["--:"] * (len(header) - 1 - len(compared)), *[":--"] * len(compared)]]
    for point in points:
        cells = [
            ("◆ " if point.id in marks.front else "") + markdown(point.label),
            words.bits(point),
            words.size(point.size_bytes) + _star(point, "file", marks),
            words.size(point.peak_rss_bytes) + _star(point, "memory", marks),
            *([words.size(on_devices(point))] if devices else []),
            *(_speed(point, test) + _star(point, f"speed {test}", marks) for test in tests),
        ]
        if len(names) > 1:
            cells.append(_estimate(score(point)) + _star(point, "score", marks))
        cells += [_task(point, name) + _star(point, f"task {name}", marks) for name in tasks]
        cells += [_over_text(point, column) for column in texts]
        rows.append([*cells, *[_difference(point)] * len(compared)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _beyond_scores(points: Sequence[PointSummary]) -> list[str]:
    """A table of aggregates, groups of subjects and divergences of right answers, where a task has any."""
    found = whole_rows(points)
    if not found:
        return []
    rows = [["over all items", *(markdown(point.label) for point in points)], [":--", *["--:"] * len(points)]]
    for row in found:
        cells = [(whole_cell(point, row), whole_interval(point, row)) for point in points]
        shown = [f"{value} ({interval})" if interval else value for value, interval in cells]
        rows.append([markdown(f"{row[0]}: {row[2]}"), *shown])
    return ["\n".join(f"| {' | '.join(row)} |" for row in rows)]


def _speed(point: PointSummary, test: str) -> str:
    speed = point.speed.get(test)
    return f"{words.rate(speed.tokens_per_second)} {words.deviation(speed)}" if speed else words.MISSING


def _task(point: PointSummary, name: str) -> str:
    task = point.tasks.get(name)
    return _estimate(task.estimate if task else None)


def _estimate(estimate: Estimate | None) -> str:
    return f"{words.percent(estimate.value)} ({words.interval(estimate)})" if estimate else words.MISSING


def _over_text(point: PointSummary, column: TextColumn) -> str:
    figure = column.figure(point)
    if figure is None:
        return words.MISSING
    value, interval = column.shown(figure)
    return f"{value} ({interval})" if interval else value


def _star(point: PointSummary, column: str, marks: Marks) -> str:
    """Marks the best of its model."""
    return "\\*" if point.id in marks.best.get(column, ()) else ""


def _difference(point: PointSummary) -> str:
    if point.is_reference:
        return "reference"
    if point.overall is None:
        return words.MISSING
    difference = point.overall.difference
    verdict = point.overall.verdict
    return f"{words.signed_points(difference.value)} ({words.difference_interval(difference)}) {verdict}"
