"""Says which point to run, and why: the smallest that can't be told from the reference, nor is spoken against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.analysis.evidence import passed_over
from gguf_eval.analysis.marks import generation_rate
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.sanity import NOTHING_TO_LOSE
from gguf_eval.analysis.summary import PointSummary, StudySummary


@dataclass(frozen=True)
class Conclusion:
    """What one model's points add up to."""

    model: str
    reference: PointSummary
    choice: PointSummary | None
    """Least memory among the points that are not worse than the reference, and where that is undecided have no evidence
    of loss (`gguf_eval.analysis.evidence`); the reference itself where no other is left. None: there is nothing to
    choose by."""
    worse: tuple[PointSummary, ...]
    memory_ratio: float | None
    """The choice's peak memory over the reference's."""
    generation_ratio: float | None
    """The choice's generation speed over the reference's."""
    undecided: tuple[PointSummary, ...] = ()
    passed_over: tuple[PointSummary, ...] = ()
    """Undecided, and with evidence of loss."""
    not_compared: tuple[PointSummary, ...] = ()
    """Incomplete or failed, or without the tasks that the others are compared on."""
    nothing_to_lose: tuple[str, ...] = ()
    """Tasks in which the reference can't be told from an answer that knows nothing, or no point scores anything."""
    baseless: bool = False
    """Whether these are all tasks there are."""


def conclude(study: StudySummary) -> list[Conclusion]:
    """One conclusion for each model that has a reference and another point."""
    conclusions = []
    for points in by_model(study.points).values():
        reference = next((point for point in points if point.is_reference), None)
        if reference is not None and len(points) > 1:
            conclusions.append(_conclude(study, reference, points))
    return conclusions


def _conclude(study: StudySummary, reference: PointSummary, points: Sequence[PointSummary]) -> Conclusion:
    compared = [point for point in points if point.status == "complete" and point.overall is not None]
    worse = tuple(point for point in compared if point.overall and point.overall.verdict == "worse")
    undecided = tuple(point for point in compared if point.overall and point.overall.verdict == "undecided")
    passed = passed_over({reference.id: None, **{point.id: point.evidence for point in undecided if point.evidence}})
    good = [reference, *(point for point in compared if point not in worse and point.id not in passed)]
    measured = all(point.peak_rss_bytes for point in good)
    empty = nothing_to_lose(study, reference)
    telling = [name for name in study.score_tasks.get(reference.model, ()) if name not in empty]
    choice = None
    if compared and telling:
        choice = min(good, key=lambda point: (point.peak_rss_bytes or 0) if measured else point.size_bytes)
    return Conclusion(
        model=reference.model,
        reference=reference,
        choice=choice,
        worse=worse,
        memory_ratio=_ratio(choice.peak_rss_bytes, reference.peak_rss_bytes) if choice else None,
        generation_ratio=_ratio(generation_rate(choice), generation_rate(reference)) if choice else None,
        undecided=undecided,
        passed_over=tuple(point for point in undecided if point.id in passed),
        not_compared=tuple(point for point in points if point is not reference and point not in compared),
        nothing_to_lose=empty,
        baseless=not telling,
    )


def nothing_to_lose(study: StudySummary, reference: PointSummary) -> tuple[str, ...]:
    """The tasks in which a level can't be shown to lose anything from this reference."""
    suspected = {
        warning.task
        for warning in study.warnings
        if warning.point_id == reference.id and warning.suspicion in NOTHING_TO_LOSE
    }
    suspected.update(study.floored.get(reference.model, ()))
    return tuple(name for name in study.score_tasks.get(reference.model, ()) if name in suspected)


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value and base else None
