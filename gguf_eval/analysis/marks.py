"""What a report marks, the points on the Pareto front, and what it places and orders points by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gguf_eval.analysis.basis import ALL
from gguf_eval.analysis.costs import is_generation
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


def find_marks(study: StudySummary) -> Marks:
    """The marks of the points that are complete; the front is of those that have a score all models share."""
    points = [point for point in study.points if point.status == "complete"]
    tradeoffs = [entry for point in points if (entry := _tradeoff(study, point)) is not None]
    front, quality_front = (
        frozenset(place.tradeoff.point_id for place in pareto(entries) if not place.dominated_by)
        for entries in (tradeoffs, [replace(entry, tokens_per_second=None) for entry in tradeoffs])
    )
    return Marks(front, quality_front) if len(tradeoffs) > 1 else Marks(frozenset(), frozenset())


def score(point: PointSummary) -> Estimate | None:
    """The point's mean over the headline scores of the tasks that the points of its model share."""
    average = point.averages.get(ALL)
    return average.estimate if average else None


def generation_rate(point: PointSummary) -> float | None:
    """Tokens a second of the point's generation test."""
    return next((speed.tokens_per_second for test, speed in point.speed.items() if is_generation(test)), None)


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
