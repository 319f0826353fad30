"""Which point of a study to run under limits of memory, speed and loss, why, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis import joint
from gguf_eval.analysis.baselines import floored_tasks
from gguf_eval.analysis.comparison import MARGIN
from gguf_eval.analysis.costs import is_generation
from gguf_eval.analysis.evidence import Evidence, LogScores, passed_over, point_evidence
from gguf_eval.analysis.memory_at import why_not_predicted
from gguf_eval.analysis.models import grouped
from gguf_eval.analysis.pareto import Tradeoff, pareto
from gguf_eval.analysis.sanity import NOTHING_TO_LOSE, ScoreWarning, find_warnings, warning_lines
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.errors import StudyError
from gguf_eval.store.records import PointRecord, StudyRecord, TaskRecord

Limit = Literal["memory", "speed", "loss"]
_ROUNDING = 1e-9
"""A loss of exactly the limit is within it, and a score of exactly the margin less."""


@dataclass(frozen=True)
class Limits:
    """What a point must keep to; None: no limit."""

    memory_bytes: int | None = None
    tokens_per_second: float | None = None
    """Of generation, at least."""
    loss: float | None = None
    """Of the mean score, from the reference of the point's own model, as a share (0.01 is one point)."""


@dataclass(frozen=True)
class Candidate:
    """One point in the choice."""

    tradeoff: Tradeoff
    memory_predicted: bool
    """Predicted for the context asked for; else measured."""
    reference: str
    loss: Estimate | None
    """Reference's score less the point's; None for the reference itself."""
    missed: tuple[Limit, ...]
    """Limits it does not keep to."""
    undecided: bool
    """The interval of its loss reaches to both sides of the limit."""
    dominated_by: tuple[str, ...]
    """None: it is on the Pareto front."""
    first_share: float
    """Of the resamples, those in which it is the choice."""
    evidence: Evidence | None = None
    """What is finer than scores; None for the reference, and where scores have decided whether more than the margin is
    lost."""
    against: tuple[str, ...] = ()
    """What of it is evidence of loss (`gguf_eval.analysis.evidence`)."""
    passed_over: bool = False
    """Whether another point of its model that keeps to the limits has clearly less loss by this evidence."""


@dataclass(frozen=True)
class Advice:
    """The choice among a study's points.

    A point whose loss of score is undecided is passed over where another of its model keeps to the limits and has
    clearly less loss by other evidence (`gguf_eval.analysis.evidence`). Of the others under the limits whose score is
    within the margin of the best one's, the choice is the one of least memory; of equals the faster, then the better.
    """

    choice: Candidate | None
    """None: no point keeps to the limits."""
    points: tuple[Candidate, ...]
    """From least memory to most."""
    limits: Limits
    margin: float
    context: int | None
    items: int
    tasks: tuple[str, ...]
    none_share: float
    """Of the resamples, those in which no point keeps to the limits."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """Scores it rests on that must not be read as results without a second look."""


def advise(
    study: StudyRecord,
    limits: Limits,
    *,
    margin: float = MARGIN,
    context: int | None = None,
    predicted_bytes: Mapping[int, int] | None = None,
    seed: int = 0,
) -> Advice:
    """Choose a point, of any model and level.

    predicted_bytes: memory at ``context`` by point id (`predict_memory`). Raises `StudyError` where no point has been
    measured and scored, and where no task tells whether anything is lost.
    """
    predicted = predicted_bytes or {}
    answered, shared, notes = joint.answered_points(study)
    costs, more = _costs(answered, limits, context, predicted)
    notes += more
    if not costs:
        reasons = "; ".join(notes) or "it has no answers"
        raise StudyError(f"{study.path}: no point has scores and costs to choose by ({reasons}); run it with speed on")
    references, unknown = joint.references_of(study, answered)
    warnings = find_warnings(answered, study.tasks, set(references.values()))
    telling = [task for task in shared if task.hash not in floored_tasks(answered, shared, margin)]
    _check_telling(study, telling, set(references.values()), warnings)
    tasks = joint.common_items(answered, telling)
    if not tasks:
        raise StudyError(f"{study.path}: its points have no scored item in common; run all on the same tasks")
    if floored := [task.name for task in shared if task not in telling]:
        notes.append(f"left out, as no point scores anything there: {', '.join(floored)}")
    notes += [*joint.item_notes(answered, telling, tasks), *unknown]
    if any(cost.tokens_per_second is None for cost in costs):
        notes.append("speed does not count in the Pareto front: not every point has one")
    columns = {point.id: column for column, point in enumerate(answered)}
    means = joint.joint_means(tasks)
    entries = [replace(cost, quality=float(means[columns[cost.point_id]])) for cost in costs]
    entries.sort(key=lambda e: (e.memory_bytes, -(e.tokens_per_second or 0.0), -e.quality, e.point_id))
    own = np.array([columns[entry.point_id] for entry in entries])
    base = np.array([columns[references[entry.point_id]] for entry in entries])
    losses = [None if mine == theirs else joint.joint_difference(tasks, theirs, mine)
              for mine, theirs in zip(own.tolist(), base.tolist(), strict=True)]  # fmt: skip
    pairs = [(answered[mine], answered[theirs]) for mine, theirs in zip(own, base, strict=True)]
    points = _candidates(entries, losses, pairs, predicted, telling, limits, margin)
    passed = _passed_over(points, pairs, margin)
    kept = np.array([not {"memory", "speed"} & set(p.missed) and p.tradeoff.point_id not in passed for p in points])
    [first] = choices(means[None, own], means[None, base], kept, limits.loss, margin)
    drawn = joint.resampled_joint_means(tasks, seed=seed)
    firsts = choices(drawn[:, own], drawn[:, base], kept, limits.loss, margin)
    shares = (np.bincount(firsts + 1, minlength=len(entries) + 1) / len(firsts)).tolist()
    points = [
        replace(point, first_share=share, passed_over=point.tradeoff.point_id in passed)
        for point, share in zip(points, shares[1:], strict=True)
    ]
    return Advice(
        choice=points[first] if first >= 0 else None,
        points=tuple(points),
        limits=limits,
        margin=margin,
        context=context,
        items=int(sum(task.sizes.sum() for task in tasks)),
        tasks=tuple(task.name for task in tasks),
        none_share=shares[0],
        notes=tuple(notes),
        warnings=tuple(warning_lines(warnings)),
    )


def _costs(
    points: Sequence[PointRecord], limits: Limits, context: int | None, predicted: Mapping[int, int]
) -> tuple[list[Tradeoff], list[str]]:
    """What each point costs, its quality still unknown; and why points have no cost, or not that of the context."""
    costs, notes = [], []
    unpredicted: list[tuple[str, str]] = []
    for point in points:
        memory = predicted.get(point.id) or point.memory.get("peak_rss")
        speed = next((fmean(record.rates) for record in point.speed if is_generation(record.test)), None)
        if not memory:
            notes.append(f"{point.name} is left out: its memory was not measured")
        elif speed is None and limits.tokens_per_second is not None:
            notes.append(f"{point.name} is left out: its generation speed was not measured")
        else:
            costs.append(Tradeoff(point.id, point.name, memory, 0.0, speed))
            if context and point.id not in predicted:
                unpredicted.append((why_not_predicted(point) or "the header says too little", point.name))
    for why, names in grouped(unpredicted).items():
        notes.append(f"memory as measured, not for a context of {context}, as {why}: {', '.join(names)}")
    return costs, notes


def _check_telling(
    study: StudyRecord, tasks: Sequence[TaskRecord], references: set[int], warnings: Sequence[ScoreWarning]
) -> None:
    """Refuse advice from tasks in which nothing can be lost."""
    empty = {(w.point_id, w.task) for w in warnings if w.suspicion in NOTHING_TO_LOSE}
    if all((point_id, task.name) in empty for point_id in references for task in tasks):
        raise StudyError(
            f"{study.path}: no advice: in no task can a level be shown to lose anything, as no point scores there, or "
            "the reference can't be told from an answer that knows nothing; measure tasks that the models can do"
        )


def _candidates(
    entries: Sequence[Tradeoff],
    losses: Sequence[Estimate | None],
    pairs: Sequence[tuple[PointRecord, PointRecord]],
    predicted: Collection[int],
    tasks: Sequence[TaskRecord],
    limits: Limits,
    margin: float,
) -> list[Candidate]:
    """Each point with what speaks for and against it; what depends on the others' fit is still empty.

    pairs: each point with its reference.
    """
    log_scores = LogScores(tasks)
    points = []
    for entry, loss, (point, reference), place in zip(entries, losses, pairs, pareto(entries), strict=True):
        open_ = loss is not None and loss.low <= margin < loss.high
        evidence = point_evidence(point, reference, tasks, log_scores) if open_ else None
        points.append(Candidate(
            tradeoff=entry,
            memory_predicted=entry.point_id in predicted,
            reference=reference.name,
            loss=loss,
            missed=tuple(_missed(entry, loss, limits)),
            undecided=loss is not None and limits.loss is not None and loss.low <= limits.loss < loss.high,
            dominated_by=tuple(better.name for better in place.dominated_by),
            first_share=0.0,
            evidence=evidence,
            against=evidence.against if evidence else (),
        ))  # fmt: skip
    return points


def _missed(entry: Tradeoff, loss: Estimate | None, limits: Limits) -> Iterator[Limit]:
    if limits.memory_bytes is not None and entry.memory_bytes > limits.memory_bytes:
        yield "memory"
    if limits.tokens_per_second is not None and (entry.tokens_per_second or 0.0) < limits.tokens_per_second:
        yield "speed"
    if loss is not None and limits.loss is not None and loss.value > limits.loss + _ROUNDING:
        yield "loss"


def _passed_over(
    points: Sequence[Candidate], pairs: Sequence[tuple[PointRecord, PointRecord]], margin: float
) -> set[int]:
    """Of each model's points that keep to the limits, those that another has clearly less loss than."""
    fitting = grouped(
        (record.model, (record.id, point.evidence))
        for point, (record, _) in zip(points, pairs, strict=True)
        if not point.missed and (point.loss is None or point.loss.low <= margin)  # else scores show a loss
    )
    return set().union(*(passed_over(dict(found)) for found in fitting.values()))


def choices(
    scores: joint.Array, reference_scores: joint.Array, kept: npt.NDArray[np.bool_], loss: float | None, margin: float
) -> npt.NDArray[np.intp]:
    """(samples,) the column chosen in each sample, or -1 where none keeps to the limits.

    scores, reference_scores: (samples x points), the points in order of preference among equals; kept: (points,) which
    keep to the limits that do not depend on the sample.
    """
    allowed = np.broadcast_to(kept, scores.shape)
    if loss is not None:
        allowed = allowed & (reference_scores - scores <= loss + _ROUNDING)
    best = np.where(allowed, scores, -np.inf).max(axis=1, keepdims=True)
    near = allowed & (scores >= best - margin - _ROUNDING)
    return np.where(near.any(axis=1), near.argmax(axis=1), -1)
