"""The study's figures as flat rows: one a point and task, or one a point and item; for CSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.summary import PointSummary, StudySummary, choose_reference
from gguf_eval.analysis.task_divergence import TaskDivergence, stored_divergences
from gguf_eval.report.columns import all_columns
from gguf_eval.report.escape import csv_cell, safe_json
from gguf_eval.store.outcomes import read_whole
from gguf_eval.store.records import PointRecord, StudyRecord

_FIRST = (
    "model", "level", "bits_per_weight", "size_bytes", "peak_rss_bytes", "layers_on_devices", "device_bytes",
    "speed_context",
)  # fmt: skip
"""Where a row has had them since the first version."""

_OUTCOME_TYPES = {
    "value": "double", "answer": "int64", "gold": "int64", "text": "string", "extracted": "string",
    "metrics": "string", "logprobs": "list<double>", "token_counts": "list<int64>", "truncated_tokens": "int64",
    "unscored_reason": "string", "subject": "string", "finish_reason": "string", "seconds": "double",
}  # fmt: skip
_DIVERGENCE_TYPES = {
    "answer_kld": "double", "answer_tokens": "int64", "answer_same_top": "int64", "answer_kld_reference": "string",
    "answer_kld_reason": "string",
}  # fmt: skip
_ROWS_TOGETHER = 20_000
"""Rows of a Parquet file that are encoded at once: what its memory is for."""


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
    """One row for each point and item that has an outcome; divergences are from the model's reference.

    The outcomes of one point on one task at a time are in memory.
    """
    references = {model: choose_reference(points) for model, points in by_model(study.points).items()}
    for point in study.points:
        reference = references[point.model]
        for task in study.tasks:
            divergences = _item_divergences(point, reference, task.hash)
            for key, outcome in read_whole(point.answers_to(task)).items():
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


def item_columns(study: StudyRecord) -> dict[str, str]:
    """The columns of `item_rows`, in order, and the type of each as Parquet has it: rows are not all there at once."""
    types = dict.fromkeys(("model", "level", "study", "task", "item", "item_hash"), "string") | _OUTCOME_TYPES
    if not any(point.study for point in study.points):
        del types["study"]
    return types | (_DIVERGENCE_TYPES if any(point.divergences for point in study.points) else {})


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


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that any of the rows has, in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def write_csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]], out: TextIO) -> None:
    """Write rows as CSV as they come; text that a spreadsheet would take for a formula is quoted."""
    names = list(columns)
    # Text in quotes: by itself the writer quotes no lone carriage return, which ends a row too.
    writer = csv.DictWriter(out, names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow({name: csv_cell(name) for name in names})
    for row in rows:
        writer.writerow({name: csv_cell(_flat(value)) for name, value in row.items()})


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def write_jsonl(rows: Iterable[Mapping[str, Any]], out: TextIO) -> None:
    """Write one JSON document a line."""
    for row in rows:
        out.write(safe_json(json.dumps(row, ensure_ascii=False, allow_nan=False)) + "\n")


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as a Parquet file, whose types are those of what the columns hold."""
    import pyarrow
    import pyarrow.parquet

    columns = {name: [_parquet_value(row.get(name)) for row in rows] for name in columns_of(rows)}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def write_items_parquet(study: StudyRecord, path: Path) -> None:
    """Write `item_rows` as a Parquet file, some at a time; metrics are JSON text, since tasks differ in them."""
    import pyarrow
    import pyarrow.parquet

    kinds = {
        "string": pyarrow.string(), "double": pyarrow.float64(), "int64": pyarrow.int64(),
        "list<double>": pyarrow.list_(pyarrow.float64()), "list<int64>": pyarrow.list_(pyarrow.int64()),
    }  # fmt: skip
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in item_columns(study).items()])
    rows = item_rows(study)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while some := list(islice(rows, _ROWS_TOGETHER)):
            columns = {name: [_parquet_value(row.get(name)) for row in some] for name in schema.names}
            writer.write_table(pyarrow.table(columns, schema))


def _parquet_value(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
