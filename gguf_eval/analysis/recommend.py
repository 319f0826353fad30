"""Says which point to run, and why: the smallest that can't be told from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.analysis.summary import PointSummary, StudySummary


@dataclass(frozen=True)
class Conclusion:
    """What one model's points add up to."""

    model: str
    reference: PointSummary
    choice: PointSummary
    """Least memory among the points that are not worse than the reference; the reference itself when all are."""
    worse: tuple[PointSummary, ...]
    memory_ratio: float | None
    """The choice's peak memory over the reference's."""
    generation_ratio: float | None
    """The choice's generation speed over the reference's."""
    undecided: tuple[PointSummary, ...] = ()


def conclude(study: StudySummary) -> list[Conclusion]:
    """One conclusion for each model that has a reference and another complete point."""
    conclusions = []
    for model in dict.fromkeys(point.model for point in study.points):
        points = [point for point in study.points if point.model == model]
        reference = next((point for point in points if point.is_reference), None)
        if reference is not None and len(points) > 1:
            conclusions.append(_conclude(model, reference, points))
    return conclusions


def _conclude(model: str, reference: PointSummary, points: Sequence[PointSummary]) -> Conclusion:
    compared = [point for point in points if point.status == "complete" and point.overall is not None]
    worse = tuple(point for point in compared if point.overall and point.overall.verdict == "worse")
    good = [reference, *(point for point in compared if point not in worse)]
    measured = all(point.peak_rss_bytes for point in good)
    choice = min(good, key=lambda point: (point.peak_rss_bytes or 0) if measured else point.size_bytes)
    return Conclusion(
        model=model,
        reference=reference,
        choice=choice,
        worse=worse,
        memory_ratio=_ratio(choice.peak_rss_bytes, reference.peak_rss_bytes),
        generation_ratio=_ratio(_generation(choice), _generation(reference)),
        undecided=tuple(point for point in compared if point.overall and point.overall.verdict == "undecided"),
    )


def _generation(point: PointSummary) -> float | None:
    rates = [speed.tokens_per_second for test, speed in point.speed.items() if test.startswith("tg")]
    return rates[0] if rates else None


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value and base else None
