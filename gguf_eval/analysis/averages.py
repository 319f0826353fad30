"""Averages over tasks and over groups of tasks: every task counts once, however many items it has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gguf_eval.analysis.basis import Bases, Basis
from gguf_eval.analysis.comparison import Pairs
from gguf_eval.analysis.intervals import ClusterCounts, cluster_counts, item_count, macro_average, macro_difference
from gguf_eval.analysis.models import grouped
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.store.outcomes import item_metrics, scored
from gguf_eval.store.records import Outcome, PointRecord, TaskRecord

ALL = "all"


@dataclass(frozen=True)
class Average:
    """One point over several tasks."""

    tasks: tuple[str, ...]
    """Names of the tasks, all of which the point holds (`gguf_eval.analysis.basis`)."""
    estimate: Estimate
    """Mean of the tasks' headline scores."""
    difference: Estimate | None
    """Mean of the tasks' differences from the reference on common items; None for the reference itself."""


def averages(
    point: PointRecord, tasks: Sequence[TaskRecord], basis: Basis, pairs: Mapping[str, Mapping[int, Pairs]] | None
) -> dict[str, Average]:
    """The point's averages over all tasks of the basis (``all``), and over each group that has two of them or more.

    There is none where the point does not hold one of the tasks. pairs: with the reference, by task hash and
    point id; None for the reference itself.
    """
    based = [task for task in tasks if task.hash in basis.tasks]
    groups = grouped((task.group, task) for task in based)
    several = {name: members for name, members in groups.items() if name and len(members) > 1}
    counts = {task.hash: _counts(point, task, basis) for task in based}
    found = {}
    for name, members in {ALL: based, **several}.items():
        hashes = [task.hash for task in members]
        estimate = macro_average([counts[hash_] for hash_ in hashes])
        if estimate is not None and basis.lacks(point.id).keys().isdisjoint(hashes):
            paired = [pairs[hash_][point.id].cluster_counts for hash_ in hashes] if pairs is not None else []
            found[name] = Average(tuple(task.name for task in members), estimate, macro_difference(paired))
    return found


def joint_score(point: PointRecord, tasks: Sequence[TaskRecord], bases: Bases) -> Estimate | None:
    """The mean over the tasks that all models share; None where the point does not hold them."""
    joint = bases.joint_tasks(point)
    return macro_average([_counts(point, task, bases.models[point.model]) for task in tasks if task.hash in joint])


def _counts(point: PointRecord, task: TaskRecord, basis: Basis) -> ClusterCounts:
    """Of the scored items that means are over."""
    return cluster_counts(scored(point.answers_to(task), basis.common(task.hash)), task.clusters)


def metric_estimates(
    task: TaskRecord, outcomes: Mapping[str, Outcome], only: Collection[str] | None = None
) -> dict[str, Estimate]:
    """Mean of each metric of the task over the scored items (of ``only``), by cluster; none without such items."""
    values = item_metrics(outcomes, only)
    estimates = {}
    for metric in task.metrics:
        counts = cluster_counts({key: found.get(metric, 0.0) for key, found in values.items()}, task.clusters)
        estimate = macro_average([counts], unscored=len(outcomes) - item_count(counts))
        if estimate is not None:
            estimates[metric] = estimate
    return estimates
