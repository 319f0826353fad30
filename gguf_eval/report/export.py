"""The report as one JSON document.

Schema 1:

    {"schema": 1, "study": PATH, "created_at": ..., "command": ..., "environment": {...}, "cautions": [...],
     "points": [{"name", "model", "level", "bits_per_weight", "size_bytes", "parameters", "sha256",
                 "status": "complete" | "partial" | "failed", "error", "log", "origin": {...}, "is_reference",
                 "memory": {"peak_rss_bytes"},
                 "speed": {TEST: {"tokens_per_second", "stdev", "repetitions"}},
                 "tasks": {NAME: {"metric", "value", "low", "high", "n", "unscored", "truncated", "chance",
                                  "method", "metrics": {METRIC: {"value", "low", "high"}}, "comparison"}},
                 "comparison": {"reference", "difference", "low", "high", "n", "gained", "lost", "left_out",
                                "p_value", "verdict", "method"} | null}]}

Shares are between 0 and 1, differences between -1 and 1. What was not measured is null.
"""

from __future__ import annotations

from typing import Any

from gguf_eval.analysis.comparison import Comparison
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary, StudySummary, TaskSummary

SCHEMA = 1


def to_document(study: StudySummary) -> dict[str, Any]:
    """The study's summary as JSON-ready values."""
    return {
        "schema": SCHEMA,
        "study": study.path,
        "created_at": study.created_at,
        "command": study.command,
        "environment": study.environment,
        "cautions": list(study.cautions),
        "points": [_point(point) for point in study.points],
    }


def _point(point: PointSummary) -> dict[str, Any]:
    return {
        "name": point.name,
        "model": point.model,
        "level": point.level,
        "bits_per_weight": point.bits_per_weight if point.parameters else None,
        "size_bytes": point.size_bytes or None,
        "parameters": point.parameters or None,
        "sha256": point.sha256,
        "status": point.status,
        "error": point.error,
        "log": point.log_path,
        "origin": point.origin,
        "is_reference": point.is_reference,
        "memory": {"peak_rss_bytes": point.peak_rss_bytes},
        "speed": {
            test: {
                "tokens_per_second": speed.tokens_per_second,
                "stdev": speed.stdev,
                "repetitions": speed.repetitions,
            }
            for test, speed in point.speed.items()
        },
        "tasks": {name: _task(task) for name, task in point.tasks.items()},
        "lm_eval": point.harness,
        "comparison": _comparison(point.overall),
    }


def _task(task: TaskSummary) -> dict[str, Any]:
    estimate = task.estimate
    return {
        "metric": task.metric,
        "value": estimate.value if estimate else None,
        "low": estimate.low if estimate else None,
        "high": estimate.high if estimate else None,
        "n": estimate.n if estimate else 0,
        "unscored": task.unscored,
        "truncated": task.truncated,
        "chance": task.chance,
        "method": estimate.method if estimate else None,
        "metrics": {
            name: {"value": metric.value, "low": metric.low, "high": metric.high}
            for name, metric in task.metrics.items()
        },
        "aggregates": task.whole.aggregates,
        "subjects": {name: _estimate(found) for name, found in task.whole.subjects.items()},
        "subject_groups": {name: _estimate(found) for name, found in task.whole.groups.items()},
        "comparison": _comparison(task.comparison),
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n, "unscored": found.unscored,
            "method": found.method}  # fmt: skip


def _comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "reference": comparison.reference,
        "difference": comparison.difference.value,
        "low": comparison.difference.low,
        "high": comparison.difference.high,
        "n": comparison.difference.n,
        "gained": comparison.gained,
        "lost": comparison.lost,
        "left_out": comparison.left_out,
        "p_value": comparison.p_value,
        "verdict": comparison.verdict,
        "method": comparison.difference.method,
    }
