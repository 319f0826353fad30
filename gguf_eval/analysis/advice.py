"""Which point of a study to run under limits of memory, speed and loss, why, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.comparison import MARGIN
from gguf_eval.analysis.costs import point_cost
from gguf_eval.analysis.joint import (
    Array,
    JointTask,
    common_items,
    joint_difference,
    joint_means,
    resampled_joint_means,
)
from gguf_eval.analysis.memory_at import why_not_predicted
from gguf_eval.analysis.pareto import Tradeoff, pareto
from gguf_eval.analysis.sanity import find_warnings, warning_lines
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import choose_reference
from gguf_eval.errors import StudyError
from gguf_eval.study.outcomes import scores
from gguf_eval.study.records import PointRecord, StudyRecord, TaskRecord

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
class Advised:
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


@dataclass(frozen=True)
class Advice:
    """The choice among a study's points.

    Of the points under the limits whose score is within the margin of the best one's, the choice is the one of least
    memory; of equals the faster, then the better.
    """

    choice: Advised | None
    """None: no point keeps to the limits."""
    points: tuple[Advised, ...]
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
    measured and scored.
    """
    predicted = predicted_bytes or {}
    answered, notes = _answered(study)
    costs: dict[int, Tradeoff] = {}
    unpredicted: dict[str, list[str]] = {}
    for point in answered:
        memory = predicted.get(point.id) or point.memory.get("peak_rss")
        speed = next((test.mean for test in point_cost(point).tests if test.test.startswith("tg")), None)
        if not memory:
            notes.append(f"{point.name} is left out: its memory was not measured")
        elif speed is None and limits.tokens_per_second is not None:
            notes.append(f"{point.name} is left out: its generation speed was not measured")
        else:
            costs[point.id] = Tradeoff(point.id, point.name, memory, 0.0, speed)
            if context and point.id not in predicted:
                why = why_not_predicted(point) or "the header says too little"
                unpredicted.setdefault(why, []).append(point.name)
    for why, names in unpredicted.items():
        notes.append(f"memory as measured, not for a context of {context}, as {why}: {', '.join(names)}")
    if not costs:
        reasons = "; ".join(notes) or "it has no answers"
        raise StudyError(f"{study.path}: no point has scores and costs to choose by ({reasons}); run it with speed on")
    tasks = common_items(answered, study.tasks)
    if not tasks:
        raise StudyError(f"{study.path}: its points have no scored item in common; run all on the same tasks")
    notes += _item_notes(answered, study.tasks, tasks)
    references, unknown = _references(study, answered)
    notes += unknown
    if any(cost.tokens_per_second is None for cost in costs.values()):
        notes.append("speed does not count in the Pareto front: not every point has one")
    advice = _advice(answered, tasks, costs, references, limits, margin, context, frozenset(predicted), notes, seed)
    warnings = find_warnings(answered, study.tasks, set(references.values()))
    return replace(advice, warnings=tuple(warning_lines(warnings)))


def _advice(
    answered: Sequence[PointRecord],
    tasks: Sequence[JointTask],
    costs: Mapping[int, Tradeoff],
    references: Mapping[int, int],
    limits: Limits,
    margin: float,
    context: int | None,
    predicted: frozenset[int],
    notes: Sequence[str],
    seed: int,
) -> Advice:
    columns = {point.id: column for column, point in enumerate(answered)}
    names = {point.id: point.name for point in answered}
    means = joint_means(tasks)
    entries = [
        Tradeoff(
            cost.point_id, cost.name, cost.memory_bytes, float(means[columns[cost.point_id]]), cost.tokens_per_second
        )
        for cost in costs.values()
    ]
    entries.sort(key=lambda e: (e.memory_bytes, -(e.tokens_per_second or 0.0), -e.quality, e.point_id))
    own = np.array([columns[entry.point_id] for entry in entries])
    base = np.array([columns[references[entry.point_id]] for entry in entries])
    kept = np.array([not _missed_costs(entry, limits) for entry in entries])
    [first] = choices(means[None, own], means[None, base], kept, limits.loss, margin)
    drawn = resampled_joint_means(tasks, seed=seed)
    firsts = choices(drawn[:, own], drawn[:, base], kept, limits.loss, margin)
    shares = np.bincount(firsts + 1, minlength=len(entries) + 1) / len(firsts)
    points = []
    for number, (entry, place) in enumerate(zip(entries, pareto(entries), strict=True)):
        is_reference = own[number] == base[number]
        loss = None if is_reference else joint_difference(tasks, int(base[number]), int(own[number]))
        missed = _missed_costs(entry, limits)
        if loss is not None and limits.loss is not None and loss.value > limits.loss + _ROUNDING:
            missed = (*missed, "loss")
        points.append(Advised(
            entry,
            entry.point_id in predicted,
            names[references[entry.point_id]],
            loss,
            missed,
            loss is not None and limits.loss is not None and loss.low <= limits.loss < loss.high,
            tuple(better.name for better in place.dominated_by),
            float(shares[number + 1]),
        ))  # fmt: skip
    return Advice(
        choice=points[first] if first >= 0 else None,
        points=tuple(points),
        limits=limits,
        margin=margin,
        context=context,
        items=int(sum(task.sizes.sum() for task in tasks)),
        tasks=tuple(task.name for task in tasks),
        none_share=float(shares[0]),
        notes=tuple(notes),
    )


def choices(
    scores: Array, reference_scores: Array, kept: npt.NDArray[np.bool_], loss: float | None, margin: float
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


def _missed_costs(entry: Tradeoff, limits: Limits) -> tuple[Limit, ...]:
    missed: list[Limit] = []
    if limits.memory_bytes is not None and entry.memory_bytes > limits.memory_bytes:
        missed.append("memory")
    if limits.tokens_per_second is not None and (entry.tokens_per_second or 0.0) < limits.tokens_per_second:
        missed.append("speed")
    return tuple(missed)


def _answered(study: StudyRecord) -> tuple[list[PointRecord], list[str]]:
    """The points with a score in every task that any point has one in, and why the others are left out."""
    scored = {point.id: _scored_tasks(point, study.tasks) for point in study.points if point.status != "failed"}
    wanted = [task.name for task in study.tasks if any(task.name in names for names in scored.values())]
    answered, notes = [], []
    for point in study.points:
        missing = [name for name in wanted if name not in scored.get(point.id, ())]
        if point.id not in scored:
            notes.append(f"{point.name} is left out: it failed")
        elif missing or not wanted:
            notes.append(f"{point.name} is left out: no scored answer in {', '.join(missing) or 'any task'}")
        else:
            answered.append(point)
    return answered, notes


def _scored_tasks(point: PointRecord, tasks: Sequence[TaskRecord]) -> set[str]:
    return {
        task.name
        for task in tasks
        if any(value is not None for value in scores(point.outcomes.get(task.hash, {})).values())
    }


def _references(study: StudyRecord, answered: Sequence[PointRecord]) -> tuple[dict[int, int], list[str]]:
    """The reference of each point, by id; where a model's own is left out, the best of those that are not."""
    found: dict[int, int] = {}
    notes = []
    for model in dict.fromkeys(point.model for point in answered):
        members = [point for point in answered if point.model == model]
        usual = choose_reference([point for point in study.points if point.model == model])
        reference = choose_reference(members)
        assert reference is not None
        found |= {point.id: reference.id for point in members}
        if len(members) == 1:
            notes.append(f"{reference.name} is the only point of its model: what it lost is not known")
        elif usual is not None and usual.id != reference.id:
            notes.append(f"losses of {model} are from {reference.name}, as {usual.name} is left out")
    return found, notes


def _item_notes(answered: Sequence[PointRecord], tasks: Sequence[TaskRecord], joint: Sequence[JointTask]) -> list[str]:
    common = {task.name: int(task.sizes.sum()) for task in joint}
    fewer = []
    for task in tasks:
        most = max(sum(v is not None for v in scores(point.outcomes.get(task.hash, {})).values()) for point in answered)
        kept = common.get(task.name, 0)
        if kept < most:
            fewer.append(f"{task.name} {kept} of {most}")
    return [f"items that not every point answered are left out; kept of {', '.join(fewer)}"] * bool(fewer)
