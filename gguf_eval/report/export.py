"""The report as one JSON document.

Schema 1:

    {"schema": 1, "study": PATH, "created_at": ..., "command": ..., "environment": {...}, "cautions": [...],
     "warnings": [gguf_eval.analysis.sanity.ScoreWarning, ...], "score_tasks": {MODEL: [TASK, ...]},
     "joint_tasks": [TASK, ...], "floored": {MODEL: [TASK, ...]},
     "points": [{"name", "model", "level", "bits_per_weight", "size_bytes", "parameters", "sha256",
                 "status": "complete" | "partial" | "failed", "error", "log", "origin": {...}, "is_reference",
                 "commands": [...], "memory": {"peak_rss_bytes", "method"},
                 "placing": {"layers", "layer_count", "context", "reduced", "device_bytes": {DEVICE: BYTES},
                             "predicted_device_bytes": {DEVICE: BYTES}, "reasons": [...]} | null,
                 "speed": {TEST: {"tokens_per_second", "stdev", "repetitions"}},
                 "tasks": {NAME: {"metric", ESTIMATE, "asked", "lack": LACK | null, "truncated", "cut_off", "chance",
                                  "majority", "metrics": {METRIC: {ESTIMATE}},
                                  "aggregates": {NAME: VALUE}, "aggregates_without_figure": {NAME: REASON},
                                  "subjects": {NAME: {ESTIMATE}}, "subject_groups",
                                  "unscored_reasons": {REASON: COUNT}, "comparison",
                                  "divergence": gguf_eval.analysis.task_divergence.TaskDivergence | null}},
                 "averages": {"all" | GROUP: {ESTIMATE, "tasks": [...], "difference": {ESTIMATE} | null}},
                 "joint_score": {ESTIMATE} | null, "lacking": {TASK: LACK},
                 "evidence": {"divergences": {"right answers" | TEXT: {"value", "low", "high"}},
                              "log_score": {ESTIMATE} | null, "against": [...]} | null,
                 "texts": [gguf_eval.analysis.divergence.TextSummary, ...], "lm_eval": {TASK: {METRIC: VALUE}},
                 "comparison": {"reference", "difference", "low", "high", "n", "gained", "lost", "left_out",
                                "p_value", "verdict", "margin", "items_to_settle", "clusters", "method"} | null}]}

A task's "unscored" items are in no mean, as this point or one beside it has no score of them; "unscored_reasons" are
the point's own. LACK, {"asked", "scored", "of"}, says what a point has of a task's items where others of its model have
more: its means there are null, and so are averages that the task is in, as none would be over the same items as theirs.
"score_tasks" are what a model's averages and comparisons are over, "joint_tasks" what all models share ("joint_score"),
"floored" those in which no point scores more than the margin: comparisons leave them out. "majority" is what the most
frequent right answer to all items gets. "evidence" is that of gguf_eval.analysis.evidence.

ESTIMATE stands for "value", "low", "high", "n", "unscored", "method": a figure, its 95 % interval, the items it rests
on and the name of the interval. "commands" are those that measured the point. Intervals of texts are over "windows".

A report of several studies also has "studies": [{"name", "path", "created_at", "command", "environment"}], and each of
its points "study": NAME; "command" then repeats all of them, and "environment" is the first's.

What else the main table shows of a point, like energy where it was counted, has the names of flat rows, for instance
"tg128_joules_per_token".

Shares are between 0 and 1, differences between -1 and 1. What was not measured is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.summary import PointSummary, StudySummary, TaskSummary
from gguf_eval.report.columns import Column, all_columns

SCHEMA = 1


def to_document(study: StudySummary) -> dict[str, Any]:
    """The study's summary as JSON-ready values."""
    columns = all_columns(study, study.points)
    several = [
        {"name": s.name, "path": s.path, "created_at": s.created_at, "command": s.command, "environment": s.environment}
        for s in study.sources
    ]
    return {
        "schema": SCHEMA,
        "study": study.path,
        **({"studies": several} if several else {}),
        "created_at": study.created_at,
        "command": study.command,
        "environment": study.environment,
        "cautions": list(study.cautions),
        "warnings": [asdict(warning) for warning in study.warnings],
        "score_tasks": {model: list(names) for model, names in study.score_tasks.items()},
        "joint_tasks": list(study.joint_tasks),
        "floored": {model: list(names) for model, names in study.floored.items()},
        "points": [_point(point, columns) for point in study.points],
    }


def _point(point: PointSummary, columns: Sequence[Column]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": point.name,
        **({"study": point.study} if point.study else {}),
        "model": point.model,
        "level": point.level,
        "parameters": point.parameters or None,
        "sha256": point.sha256,
        "status": point.status,
        "error": point.error,
        "log": point.log_path,
        "origin": point.origin,
        "is_reference": point.is_reference,
        "commands": list(point.commands),
        "speed": {},
        "tasks": {name: _task(task) for name, task in point.tasks.items()},
        "averages": {
            name: {
                **asdict(average.estimate),
                "tasks": list(average.tasks),
                "difference": _figures(average.difference),
            }
            for name, average in point.averages.items()
        },
        "joint_score": _figures(point.joint_score),
        "lacking": _each(point.lacking),
        "evidence": {**asdict(found), "against": list(found.against)} if (found := point.evidence) else None,
        "texts": [asdict(text) for text in point.texts],
        "lm_eval": point.harness,
        "comparison": _comparison(point.overall),
    }
    for column in columns:
        for key, value in (column.document or column.row)(point).items():
            entry[key] = {**entry.get(key, {}), **value} if isinstance(value, dict) else value
    return entry


def _task(task: TaskSummary) -> dict[str, Any]:
    unscored = {"value": None, "low": None, "high": None, "n": 0, "unscored": task.unscored, "method": None}
    return {
        "metric": task.metric,
        **(_figures(task.estimate) or unscored),
        "asked": task.asked,
        "lack": _figures(task.lack),
        "truncated": task.truncated,
        "cut_off": task.cut_off,
        "chance": task.chance,
        "majority": task.majority,
        "unscored_reasons": task.unscored_reasons,
        "metrics": _each(task.metrics),
        "aggregates": task.whole.aggregates,
        "aggregates_without_figure": task.whole.without_figure,
        "subjects": _each(task.whole.subjects),
        "subject_groups": _each(task.whole.groups),
        "comparison": _comparison(task.comparison),
        "divergence": _figures(task.divergence),
    }


def _figures(found: Any) -> dict[str, Any] | None:
    """A record of figures by name."""
    return asdict(found) if found else None


def _each(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(record) for name, record in found.items()}


def _comparison(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    difference = found.difference
    return {**asdict(found), "difference": difference.value, "low": difference.low, "high": difference.high,
            "n": difference.n, "method": difference.method}  # fmt: skip
