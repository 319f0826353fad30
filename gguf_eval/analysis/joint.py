"""Several points on the items that all of them answered, and resamples of those items that all points share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.intervals import ClusterCounts, macro_difference
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.store.outcomes import scored
from gguf_eval.store.records import PointRecord, TaskRecord

Array = npt.NDArray[np.float64]
RESAMPLES = 4_000
_DRAWS_AT_ONCE = 4_000_000


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
