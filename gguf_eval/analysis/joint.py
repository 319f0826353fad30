"""What advice chooses among: points on the items that all of them answered, and resamples of those items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.basis import find_bases
from gguf_eval.analysis.intervals import ClusterCounts, macro_difference
from gguf_eval.analysis.models import by_model
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import choose_reference
from gguf_eval.store.outcomes import scored
from gguf_eval.store.records import PointRecord, StudyRecord, TaskRecord

Array = npt.NDArray[np.float64]
RESAMPLES = 4_000
_DRAWS_AT_ONCE = 4_000_000


def answered_points(study: StudyRecord) -> tuple[list[PointRecord], list[TaskRecord], list[str]]:
    """The points that hold every task that all models share, these tasks, and why others are left out."""
    alive = [point for point in study.points if point.status != "failed"]
    bases = find_bases(alive, study.tasks)
    names = {task.hash: task.name for task in study.tasks}
    answered, notes = [], []
    for point in study.points:
        if point not in alive:
            notes.append(f"{point.name} is left out: it failed")
        elif not point.is_answered:
            notes.append(f"{point.name} is left out: it has no answers")
        elif bases.joint_tasks(point):
            answered.append(point)
        else:
            lacking = bases.models[point.model].lacks(point.id)
            parts = [
                f"{min(lack.asked, lack.scored)} of {lack.of} items of {names[hash_]}"
                for hash_, lack in lacking.items()
                if hash_ in bases.joint
            ]
            has = f"it has {', '.join(parts)}" if parts else "its model was asked other tasks or items than the rest"
            notes.append(f"{point.name} is left out: {has}")
    shared = [task for task in study.tasks if task.hash in bases.joint]
    asked = [task for task in study.tasks if any(point.answers_to(task) for point in answered)]
    if apart := [task.name for task in asked if task not in shared]:
        notes.append(f"left out, as not every point has them whole: {', '.join(apart)}")
    return answered, shared, notes


def references_of(study: StudyRecord, answered: Sequence[PointRecord]) -> tuple[dict[int, int], list[str]]:
    """The reference of each point, by id; where a model's own is left out, the best of those that are not."""
    found: dict[int, int] = {}
    notes = []
    of_study = by_model(study.points)
    for model, members in by_model(answered).items():
        usual = choose_reference(of_study[model])
        reference = choose_reference(members)
        assert reference is not None
        found |= {point.id: reference.id for point in members}
        if len(members) == 1:
            notes.append(f"{reference.name} is the only point of its model: what it lost is not known")
        elif usual is not None and usual.id != reference.id:
            notes.append(f"losses of {model} are from {reference.name}, as {usual.name} is left out")
    return found, notes


@dataclass(frozen=True)
class JointTask:
    """One task: a row for each cluster of items, an item without one standing for itself."""

    name: str
    sums: Array
    """(clusters x points) sums of the scores."""
    sizes: Array
    """(clusters,) items."""


def common_items(points: Sequence[PointRecord], tasks: Sequence[TaskRecord]) -> list[JointTask]:
    """The tasks with an item that every point has a score of, those items only, by cluster."""
    found = []
    for task in tasks:
        values = [scored(point.answers_to(task)) for point in points]
        keys = [key for key in values[0] if all(key in column for column in values)] if values else []
        if not keys:
            continue
        table = np.array([[column[key] for column in values] for key in keys], np.float64)
        names = [task.clusters.get(key) for key in keys]
        places: dict[str, int] = {}
        own = [f"cluster {name}" if name else f"item {key}" for key, name in zip(keys, names, strict=True)]
        rows = [places.setdefault(name, len(places)) for name in own]
        sums = np.zeros((len(places), len(points)))
        np.add.at(sums, rows, table)
        found.append(JointTask(task.name, sums, np.bincount(rows).astype(np.float64)))
    return found


def item_notes(answered: Sequence[PointRecord], tasks: Sequence[TaskRecord], joint: Sequence[JointTask]) -> list[str]:
    """A line where scores are over fewer items than some point has."""
    common = {task.name: int(task.sizes.sum()) for task in joint}
    most = {task.name: max(len(scored(point.answers_to(task))) for point in answered) for task in tasks}
    fewer = [f"{name} {kept} of {n}" for name, n in most.items() if (kept := common.get(name, 0)) < n]
    return [f"items that not every point answered are left out; kept of {', '.join(fewer)}"] * bool(fewer)


def joint_means(tasks: Sequence[JointTask]) -> Array:
    """(points,) mean over the tasks of each point's mean score."""
    means: Array = np.mean([task.sums.sum(axis=0) / task.sizes.sum() for task in tasks], axis=0)
    return means


def resampled_joint_means(tasks: Sequence[JointTask], *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """(resamples x points) means over the tasks, each task's clusters drawn anew and the same ones for every point.

    Clusters on which all points did alike are drawn together, as multinomial counts. Deviations are stretched by
    sqrt(c / (c - 1)) for c clusters: a resample varies less than the sample it comes from.
    """
    random = np.random.default_rng(seed)
    means: Array = np.mean([_resampled(task, resamples, random) for task in tasks], axis=0)
    return means


def _resampled(task: JointTask, resamples: int, random: np.random.Generator) -> Array:
    rows, counts = np.unique(np.column_stack([task.sums, task.sizes]), axis=0, return_counts=True)
    total = int(counts.sum())
    centre = task.sums.sum(axis=0) / task.sizes.sum()
    if total < 2:
        return np.tile(centre, (resamples, 1))
    parts = []
    at_once = max(1, _DRAWS_AT_ONCE // len(rows))
    for start in range(0, resamples, at_once):
        drawn = random.multinomial(total, counts / total, min(at_once, resamples - start)) @ rows
        parts.append(drawn[:, :-1] / drawn[:, -1:])
    means: Array = centre + (np.concatenate(parts) - centre) * np.sqrt(total / (total - 1))
    return means


def joint_difference(tasks: Sequence[JointTask], point: int, reference: int) -> Estimate | None:
    """Mean over the tasks of one column's difference from another, with its interval."""
    return macro_difference([_difference_counts(task, point, reference) for task in tasks])


def _difference_counts(task: JointTask, point: int, reference: int) -> ClusterCounts:
    differences = task.sums[:, point] - task.sums[:, reference]
    return Counter(zip(differences.tolist(), task.sizes.astype(int).tolist(), strict=True))
