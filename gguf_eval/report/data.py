"""The study's figures as flat rows: one a point and task, or one a point and item; for CSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.summary import PointSummary, StudySummary, choose_reference
from gguf_eval.analysis.task_divergence import TaskDivergence, stored_divergences
from gguf_eval.report.columns import all_columns
from gguf_eval.report.escape import csv_cell, safe_json
from gguf_eval.store.records import PointRecord, StudyRecord

_FIRST = (
    "model", "level", "bits_per_weight", "size_bytes", "peak_rss_bytes", "layers_on_devices", "device_bytes",
    "speed_context",
)  # fmt: skip
"""Where a row has had them since the first version."""


def summary_rows(study: StudySummary) -> Iterator[dict[str, Any]]:
    """One row for each point and task; a point without tasks has one row."""
    paths = {source.name: source.path for source in study.sources}
    commands = {source.name: source.command for source in study.sources}
    columns = all_columns(study, study.points)
    for point in study.points:
        common = dict.fromkeys(_FIRST) | {
            "model": point.model, "level": point.label, "sha256": point.sha256, "status": point.status,
            "error": point.error,
        }  # fmt: skip
        for column in columns:
            common |= column.row(point)
        origin = {
            "study": paths.get(point.study, study.path),
            "command": "; ".join(point.commands) or commands.get(point.study, study.command),
        }
        for row in _task_rows(point) or [{}]:
            yield {**common, **row, **origin}


def _task_rows(point: PointSummary) -> list[dict[str, Any]]:
    rows = []
    for name, task in point.tasks.items():
        estimate, compared = task.estimate, task.comparison
        rows.append({
            "task": name, "group": task.group, "metric": task.metric,
            **{name: getattr(estimate, name, None) for name in ("value", "low", "high")},
            "n": estimate.n if estimate else 0,
            "unscored": estimate.unscored if estimate else task.unscored, "cut_off": task.cut_off, "asked": task.asked,
            "asked_of": task.lack.of if task.lack else task.asked,
            "interval_method": estimate.method if estimate else None, "chance": task.chance, "majority": task.majority,
            "difference": compared.difference.value if compared else None,
            "difference_low": compared.difference.low if compared else None,
            "difference_high": compared.difference.high if compared else None,
            **{name: getattr(compared, name, None) for name in ("gained", "lost", "p_value", "verdict")},
            **_divergence_columns(task.divergence),
        })  # fmt: skip
    return rows


def _divergence_columns(found: TaskDivergence | None) -> dict[str, Any]:
    """On the tokens of right answers."""
    if found is None:
        return {}
    return {
        "answer_kld": found.mean.value, "answer_kld_low": found.mean.low, "answer_kld_high": found.mean.high,
        **{f"answer_kld_{name}": value for name, value in found.quantiles.items()},
        "answer_kld_estimator_error": found.estimator_error, "answer_kld_method": found.method,
        "answer_kld_items": found.items, "answer_kld_left_out": found.left_out, "answer_tokens": found.tokens,
        "answer_same_top": found.same_top, "answer_kld_reference": found.reference,
    }  # fmt: skip


def item_rows(study: StudyRecord) -> Iterator[dict[str, Any]]:
    """One row for each point and item that has an outcome; divergences are from the model's reference."""
    references = {model: choose_reference(points) for model, points in by_model(study.points).items()}
    for point in study.points:
        reference = references[point.model]
        for task in study.tasks:
            divergences = _item_divergences(point, reference, task.hash)
            for key, outcome in point.outcomes.get(task.hash, {}).items():
                item = task.items.get(key)
                yield {
                    "model": point.model, "level": point.label, **({"study": point.study} if point.study else {}),
                    "task": task.name, "item": item.id if item else None,
                    "item_hash": key, "value": outcome.value, "answer": outcome.answer,
                    "gold": item.gold if item else None, "text": outcome.text, "extracted": outcome.extracted,
                    "metrics": outcome.metrics, "logprobs": list(outcome.logprobs),
                    "token_counts": list(outcome.token_counts), "truncated_tokens": outcome.truncated_tokens,
                    "unscored_reason": outcome.unscored_reason, "subject": item.subject if item else None,
                    "finish_reason": outcome.finish_reason, "seconds": outcome.seconds, **divergences.get(key, {}),
                }  # fmt: skip


def _item_divergences(point: PointRecord, reference: PointRecord | None, task_hash: str) -> dict[str, dict[str, Any]]:
    """Columns of each item on whose right answer the point was compared with the reference."""
    found = stored_divergences(point, reference, task_hash) if reference is not None else None
    if reference is None or found is None:
        return {}
    columns = zip(found.items, found.tokens, found.kld, found.same_top, found.reasons, strict=True)
    return {
        item: {"answer_kld": kld, "answer_tokens": tokens, "answer_same_top": same,
               "answer_kld_reference": reference.label, "answer_kld_reason": reason}
        for item, tokens, kld, same, reason in columns
    }  # fmt: skip


def write_csv(rows: list[dict[str, Any]], out: TextIO) -> None:
    """Write rows as CSV; text that a spreadsheet would take for a formula is quoted."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    # Text in quotes: by itself the writer quotes no lone carriage return, which ends a row too.
    writer = csv.DictWriter(out, names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow({name: csv_cell(name) for name in names})
    for row in rows:
        writer.writerow({name: csv_cell(_flat(value)) for name, value in row.items()})


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def write_jsonl(rows: Iterator[dict[str, Any]], out: TextIO) -> None:
    """Write one JSON document a line."""
    for row in rows:
        out.write(safe_json(json.dumps(row, ensure_ascii=False, allow_nan=False)) + "\n")


def write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as a Parquet file; metrics are JSON text, since tasks differ in them."""
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_parquet_value(row.get(name)) for row in rows] for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _parquet_value(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
