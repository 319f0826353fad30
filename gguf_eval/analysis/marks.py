"""What a report marks: the best value of each column, and the points on the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gguf_eval.analysis.averages import ALL
from gguf_eval.analysis.pareto import Tradeoff, pareto
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import PointSummary, StudySummary


@dataclass(frozen=True)
class Marks:
    """Ids of points."""

    front: frozenset[int]
    """No other point of the study is as good in memory, generation speed and joint score, and better in one."""
    quality_front: frozenset[int]
    """No other point is as good in memory and joint score, and better in one, whatever their speeds."""
    best: Mapping[str, frozenset[int]]
    """By column, the best of each model; columns with one value only are left out."""


def find_marks(study: StudySummary) -> Marks:
    """The marks of the points that are complete; the front is of those that have a score all models share."""
    points = [point for point in study.points if point.status == "complete"]
    tradeoffs = [entry for point in points if (entry := _tradeoff(study, point)) is not None]
    front, quality_front = (
        frozenset(place.tradeoff.point_id for place in pareto(entries) if not place.dominated_by)
        for entries in (tradeoffs, [replace(entry, tokens_per_second=None) for entry in tradeoffs])
    )
    best: dict[str, frozenset[int]] = {}
    for model in dict.fromkeys(point.model for point in points):
        members = [point for point in points if point.model == model]
        for column, ids in _best(members).items():
            best[column] = best.get(column, frozenset()) | ids
    if len(tradeoffs) < 2:
        front = quality_front = frozenset()
    return Marks(front, quality_front, best)


def score(point: PointSummary) -> Estimate | None:
    """The point's mean over the headline scores of the tasks that the points of its model share."""
    average = point.averages.get(ALL)
    return average.estimate if average else None


def generation_rate(point: PointSummary) -> float | None:
    """Tokens a second of the point's generation test."""
    return next((speed.tokens_per_second for test, speed in point.speed.items() if test.startswith("tg")), None)


def memory_measured(study: StudySummary) -> bool:
    """Whether any point's peak of memory is known."""
    return any(point.peak_rss_bytes for point in study.points)


def memory(study: StudySummary, point: PointSummary) -> int | None:
    """Bytes of memory that a point is placed by: its peak, or its file's size where no point's peak was measured."""
    return point.peak_rss_bytes if memory_measured(study) else point.size_bytes or None


def _tradeoff(study: StudySummary, point: PointSummary) -> Tradeoff | None:
    estimate, taken = point.joint_score, memory(study, point)
    if estimate is None or not taken:
        return None
    return Tradeoff(point.id, point.name, taken, estimate.value, generation_rate(point))


def _best(points: Sequence[PointSummary]) -> dict[str, frozenset[int]]:
    columns: dict[str, dict[int, float]] = {}
    for point in points:
        estimate = score(point)
        values = {
            "file": -float(point.size_bytes) if point.size_bytes else None,
            "memory": -float(point.peak_rss_bytes) if point.peak_rss_bytes else None,
            "score": estimate.value if estimate else None,
            **{f"speed {test}": speed.tokens_per_second for test, speed in point.speed.items()},
            **{f"task {name}": task.estimate.value if task.estimate else None for name, task in point.tasks.items()},
        }
        for column, value in values.items():
            if value is not None:
                columns.setdefault(column, {})[point.id] = value
    return {
        column: frozenset(id_ for id_, value in values.items() if value == max(values.values()))
        for column, values in columns.items()
        if len(set(values.values())) > 1
    }
