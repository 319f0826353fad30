"""The report as one self-contained web page: tables that sort, charts, and every item's answers."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from gguf_eval.analysis.items import TaskAnswers, answers_by_task
from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.sanity import warning_lines
from gguf_eval.analysis.summary import PointSummary, StudySummary
from gguf_eval.report import words
from gguf_eval.report.by_task import score_rows, whole_rows
from gguf_eval.report.charts import Chart, charts, of_the_extra
from gguf_eval.report.columns import LEVEL, TASKS
from gguf_eval.report.conclusion import conclusion
from gguf_eval.report.escape import json_for_script, printable
from gguf_eval.report.main_table import MainTable, main_tables, table_notes
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
        packed, left_out = _pack(record, study)
        bundle = bundled.result() if drawn else ""
    sentences = [list(conclusion(found)) for found in conclude(study)]
    study = printable(study)
    tables = main_tables(study)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_page("page.html.j2"))
    specs = json.dumps({f"chart{i}": chart.spec for i, chart in enumerate(drawn)}, ensure_ascii=False)
    return template.render(
        study=study,
        sentences=printable(sentences),
        notes=table_notes(study, tables),
        warnings=warning_lines(study.warnings),
        models=[_model(table, study) for table in tables],
        charts=[_chart(chart) for chart in drawn],
        begun=words.moment(study.created_at),
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
    bundle: str = of_the_extra("vl_convert").javascript_bundle()
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


def _model(table: MainTable, study: StudySummary) -> dict[str, Any]:
    """Single tasks, where there are several, stand in the table below the main one."""
    points = table.points
    filled = [filled for filled in table.columns if filled.column is not LEVEL and filled.column.kind != TASKS]
    return {
        "name": points[0].model,
        "parameters": words.parameters(points),
        "header": [LEVEL.header, *(found.column.header for found in filled)],
        "front": table.front,
        "rows": list(zip(table.rows, zip(*(found.cells for found in filled), strict=True), strict=True)),
        "points": points,
        "by_task": score_rows(study, points, with_tasks=True) + whole_rows(points),
    }


def _pack(record: StudyRecord, study: StudySummary) -> tuple[str, bool]:
    """The items as base64 of gzipped JSON, and whether texts had to be left out."""
    packed = _packed(record, study, every_text=True, most_bytes=_MOST_BYTES)
    if packed is not None:
        return packed, False
    return _packed(record, study, every_text=False) or "", True


def _packed(record: StudyRecord, study: StudySummary, *, every_text: bool, most_bytes: float = math.inf) -> str | None:
    """The items, a task at a time in memory; None as soon as they are more than ``most_bytes``."""
    points = [point for point in study.points if point.tasks]
    heads = [{"model": p.model, "label": p.label, "reference": p.is_reference} for p in points]
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as file:
        file.write(f'{{"points": {_json(heads)}, "tasks": ['.encode())
        for number, task in enumerate(answers_by_task(record, study)):
            file.write((", " if number else "").encode() + _json(_task(task, points, every_text=every_text)).encode())
            if out.tell() > most_bytes:
                return None
        file.write(b"]}")
    return base64.b64encode(out.getvalue()).decode() if out.tell() <= most_bytes else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _task(task: TaskAnswers, points: Sequence[PointSummary], *, every_text: bool) -> dict[str, Any]:
    return {
        "name": task.task,
        "items": [
            _item(item, flips, with_text=every_text or flips > 0)
            for item, flips in zip(task.items, task.flips, strict=True)
        ],
        "marks": [task.marks.get(point.id, "") for point in points],
        "picks": [task.picks.get(point.id, "") for point in points],
        "texts": [[text[:_LONGEST_TEXT] for text in task.texts.get(p.id, ())] for p in points],
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
