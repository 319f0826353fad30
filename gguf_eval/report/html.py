"""The report as one self-contained web page: tables that sort, charts, and every item's answers."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from gguf_eval.analysis.items import TaskAnswers, answers_by_task
from gguf_eval.analysis.marks import Marks, find_marks, generation_rate, score
from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.sanity import warning_lines
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.report import words
from gguf_eval.report.by_task import group_rows, only_task
from gguf_eval.report.charts import MISSING_EXTRA, Chart, charts
from gguf_eval.report.columns import TextColumn, against, models_of, on_devices, text_columns
from gguf_eval.report.conclusion import conclusion
from gguf_eval.report.escape import json_for_script, printable
from gguf_eval.report.whole_task import WholeRow, whole_cell, whole_interval, whole_rows
from gguf_eval.store.records import StudyRecord
from gguf_eval.tasks.prompts import ItemRecord

_LONGEST_TEXT = 800
"""Characters of a question that the page shows: its end, where the question stands."""
_LONGEST_CHOICE = 300
_MOST_BYTES = 9_000_000
"""Of packed items; above it the texts of items that no level answers otherwise are left out, and the page says so."""


def to_html(record: StudyRecord, study: StudySummary) -> str:
    """The page; raises `UsageError` where the packages of the ``report`` extra are not installed."""
    import jinja2

    with ThreadPoolExecutor(1) as side:
        bundled = side.submit(_bundle)  # as long as all the rest of the page takes
        drawn = charts(study)
        packed, left_out = _pack(study, answers_by_task(record, study))
        bundle = bundled.result() if drawn else ""
    sentences = [list(conclusion(found)) for found in conclude(study)]
    study = printable(study)
    marks = find_marks(study)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_page("page.html.j2"))
    specs = json.dumps({f"chart{i}": chart.spec for i, chart in enumerate(drawn)}, ensure_ascii=False)
    return template.render(
        study=study,
        sentences=printable(sentences),
        notes=words.how_to_read(study, marks),
        warnings=warning_lines(study.warnings),
        models=[_model(model, points, study, marks) for model, points in models_of(study).items()],
        charts=[_chart(chart) for chart in drawn],
        begun=words.moment(study.created_at),
        failures=[point for point in study.points if point.status == "failed"],
        left_out=left_out,
        style=_page("style.css"),
        script=_page("script.js"),
        specs=json_for_script(specs),
        bundle=bundle,
        packed=packed,
    )


def _page(name: str) -> str:
    return (files("gguf_eval.report") / "page" / name).read_text(encoding="utf-8")


def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, for every chart of the page."""
    from gguf_eval.errors import UsageError

    try:
        import vl_convert
    except ImportError:
        raise UsageError(MISSING_EXTRA) from None
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub lacks the default
    return bundle.replace("</script", "<\\/script")


def _chart(chart: Chart) -> dict[str, Any]:
    header = list(chart.rows[0])
    return {
        "title": chart.title,
        "alt": chart.alt,
        "header": [name.replace("_", " ") for name in header],
        "rows": [[_cell(row[name]) for name in header] for row in chart.rows],
    }


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: words.MISSING, True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4g}"
    return str(value)


def _model(model: str, points: Sequence[PointSummary], study: StudySummary, marks: Marks) -> dict[str, Any]:
    tests = list(dict.fromkeys(test for point in points for test in point.speed))
    shown = [point for point in points if point.tasks]
    texts = text_columns(points)
    names = [name for name in study.task_names if any(name in point.tasks for point in points)]
    devices = ["on devices"] if any(map(on_devices, points)) else []
    scored = ["score"] if len(names) > 1 else names
    header = ["level", "bpw", "file", "peak RAM", *devices, *tests, *scored, *(t.header for t in texts)]
    return {
        "name": model,
        "parameters": words.parameters(points),
        "header": [*header, *against(points)],
        "compared": bool(against(points)),
        "rows": [_main_row(point, bool(devices), tests, scored, texts, marks) for point in points],
        "labels": [point.label for point in points],
        "by_task": [
            *(
                _group_row(study, name, key, points) if is_group else _task_row(name, key, points)
                for name, key, is_group in group_rows(study, shown, with_tasks=True)
            ),
            *(_whole_row(row, points) for row in whole_rows(points)),
        ],
    }


def _whole_row(row: WholeRow, points: Sequence[PointSummary]) -> dict[str, Any]:
    shown = [(whole_cell(point, row), whole_interval(point, row)) for point in points]
    cells = [{"text": text, "order": None if text == words.MISSING else float(text), "small": small, "verdict": ""}
             for text, small in shown]  # fmt: skip
    return {"name": f"{row[0]}: {row[2]}", "group": False, "cells": cells}


def _main_row(
    point: PointSummary,
    devices: bool,
    tests: Sequence[str],
    scored: Sequence[str],
    texts: Sequence[TextColumn],
    marks: Marks,
) -> dict[str, Any]:
    cells = [
        _figure(words.bits(point), point.bits_per_weight if point.parameters else None),
        _figure(words.size(point.size_bytes), point.size_bytes or None, best=point.id in marks.best.get("file", ())),
        _figure(words.size(point.peak_rss_bytes), point.peak_rss_bytes, best=point.id in marks.best.get("memory", ())),
    ]
    if devices:
        cells.append(_figure(words.size(on_devices(point)), on_devices(point) or None))
    for test in tests:
        speed = point.speed.get(test)
        best = point.id in marks.best.get(f"speed {test}", ())
        if speed is None:
            cells.append(_figure(words.MISSING, None))
        else:
            rate = speed.tokens_per_second
            cells.append(_figure(words.rate(rate), rate, words.deviation(speed), best))
    if scored:
        cells.append(_estimate(score(point), point.id in marks.best.get("score", ())))
    for column in texts:
        figure = column.figure(point)
        cells.append(_figure(words.MISSING, None) if figure is None else _figure(
            column.shown(figure)[0], figure.value, column.shown(figure)[1]
        ))  # fmt: skip
    return {
        "label": point.label,
        "front": point.id in marks.front,
        "status": point.status,
        "cells": cells,
        "difference": _difference(point),
        "rate": generation_rate(point),
    }


def _figure(text: str, order: float | None, small: str = "", best: bool = False) -> dict[str, Any]:
    return {"text": text, "order": order, "small": small, "best": best}


def _estimate(estimate: Estimate | None, best: bool = False) -> dict[str, Any]:
    if estimate is None:
        return _figure(words.MISSING, None)
    return _figure(words.percent(estimate.value), estimate.value, words.interval(estimate), best)


def _difference(point: PointSummary) -> dict[str, Any]:
    if point.is_reference:
        return {"text": "reference", "order": 0.0, "small": "", "verdict": ""}
    if point.overall is None:
        return {"text": words.MISSING, "order": None, "small": "", "verdict": ""}
    difference = point.overall.difference
    return {
        "text": words.signed_points(difference.value),
        "order": difference.value,
        "small": words.difference_interval(difference),
        "verdict": point.overall.verdict,
    }


def _group_row(study: StudySummary, shown: str, group: str, points: Sequence[PointSummary]) -> dict[str, Any]:
    cells = []
    for point in points:
        average, name = point.averages.get(group), only_task(study, point, group)
        cell = {**_estimate(average.estimate if average else None), "verdict": ""}
        cells.append(_task_cell(point, name) if name else cell)
    return {"name": shown, "group": True, "cells": cells}


def _task_row(shown: str, name: str, points: Sequence[PointSummary]) -> dict[str, Any]:
    return {"name": shown, "group": False, "cells": [_task_cell(point, name) for point in points]}


def _task_cell(point: PointSummary, name: str) -> dict[str, Any]:
    task = point.tasks.get(name)
    verdict = task.comparison.verdict if task and task.comparison else ""
    return {**_estimate(task.estimate if task else None), "verdict": verdict}


def _pack(study: StudySummary, tasks: Sequence[TaskAnswers]) -> tuple[str, bool]:
    """The items as base64 of gzipped JSON, and whether texts had to be left out."""
    document = _items_document(study, tasks, every_text=True)
    packed = gzip.compress(json.dumps(document, ensure_ascii=False).encode(), 6, mtime=0)
    left_out = len(packed) > _MOST_BYTES
    if left_out:
        document = _items_document(study, tasks, every_text=False)
        packed = gzip.compress(json.dumps(document, ensure_ascii=False).encode(), 6, mtime=0)
    return base64.b64encode(packed).decode(), left_out


def _items_document(study: StudySummary, tasks: Sequence[TaskAnswers], *, every_text: bool) -> dict[str, Any]:
    points = [point for point in study.points if point.tasks]
    return {
        "points": [{"model": p.model, "label": p.label, "reference": p.is_reference} for p in points],
        "tasks": [
            {
                "name": task.task,
                "items": [
                    _item(item, flips, with_text=every_text or flips > 0)
                    for item, flips in zip(task.items, task.flips, strict=True)
                ],
                "marks": [task.marks.get(point.id, "") for point in points],
                "picks": [task.picks.get(point.id, "") for point in points],
                "texts": [[text[:_LONGEST_TEXT] for text in task.texts.get(p.id, ())] for p in points],
            }
            for task in tasks
        ],
    }


def _item(item: ItemRecord, flips: int, *, with_text: bool) -> list[Any]:
    """[id, question (empty where the choices are all there is, null where left out), choices, right ones, flips]."""
    if not with_text:
        return [item.id, None, [], [], flips]
    question = " / ".join(dict.fromkeys(item.contexts))
    if len(question) > _LONGEST_TEXT:
        question = "… " + question[-_LONGEST_TEXT:]
    choices = [choice[:_LONGEST_CHOICE] for choice in item.choices] or [
        str(r)[:_LONGEST_CHOICE] for r in item.references
    ]
    return [item.id, question, choices, list(item.golds or (item.gold,)), flips]
