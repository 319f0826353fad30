"""Averages over tasks and over groups of tasks: every task counts once, however many items it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gguf_eval.analysis.basis import Bases, Basis
from gguf_eval.analysis.comparison import Pairs, cluster_counts, count_pairs
from gguf_eval.analysis.intervals import ClusterCounts, ClusterSum, item_count, macro_average, macro_difference
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.store.outcomes import item_metrics, metric_values, scores
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
    point: PointRecord, tasks: Sequence[TaskRecord], basis: Basis, pairs: Mapping[str, Pairs] | None
) -> dict[str, Average]:
    """The point's averages over all tasks of the basis (``all``), and over each group that has two of them or more.

    There is none where the point does not hold one of the tasks. pairs: the point's with its reference, by task hash;
    None for the reference itself.
    """
    based = [task for task in tasks if task.hash in basis.tasks]
    groups: dict[str, list[TaskRecord]] = {ALL: based}
    for task in based:
        if task.group:
            groups.setdefault(task.group, []).append(task)
    lacking = basis.lacks(point.id) if any(point.outcomes.values()) else dict.fromkeys(basis.tasks)
    held = [task for task in based if task.hash not in lacking]
    counts = {task.hash: _headline_counts(point, task, basis.common(task.hash)) for task in held}
    found = {}
    for name, members in groups.items():
        if (name == ALL or len(members) > 1) and all(task.hash in counts for task in members):
            average = _average(members, counts, pairs)
            if average is not None:
                found[name] = average
    return found


def joint_score(
    point: PointRecord, tasks: Sequence[TaskRecord], bases: Bases, average: Average | None
) -> Estimate | None:
    """The mean over the tasks that all models share; None where the point does not hold them.

    average: the point's over the tasks of its own model, which it is where these are the same.
    """
    joint, basis = bases.joint_tasks(point), bases.models[point.model]
    if joint == basis.tasks:
        return average.estimate if average else None
    return macro_average(
        [_headline_counts(point, task, basis.common(task.hash)) for task in tasks if task.hash in joint]
    )


def _headline_counts(point: PointRecord, task: TaskRecord, common: Collection[str] | None) -> ClusterCounts:
    """Of the scored items; of those in ``common`` where given."""
    values = headline(point, task)
    if common is not None:
        values = {key: value for key, value in values.items() if key in common}
    if not task.clusters:
        counts = Counter(values.values())
        return {(value, 1): count for value, count in counts.items() if value is not None}
    return cluster_counts({key: value for key, value in values.items() if value is not None}, task.clusters)


def metric_estimates(
    task: TaskRecord, outcomes: Mapping[str, Outcome], only: Collection[str] | None = None
) -> dict[str, Estimate]:
    """Mean of each metric of the task over the scored items (of ``only``), by cluster; none without such items."""
    counts: dict[str, Counter[ClusterSum]] = {metric: Counter() for metric in task.metrics}
    if task.clusters:
        values = item_metrics(outcomes, only)
        for metric, counted in counts.items():
            of_metric = {key: found.get(metric, 0.0) for key, found in values.items()}
            counted.update(cluster_counts(of_metric, task.clusters))
    else:
        for combination, count in metric_values(outcomes, only).items():
            found = dict(combination)
            for metric, counted in counts.items():
                counted[found.get(metric, 0.0), 1] += count
    estimates = {}
    for metric, counted in counts.items():
        estimate = macro_average([counted], unscored=len(outcomes) - item_count(counted))
        if estimate is not None:
            estimates[metric] = estimate
    return estimates


def _average(
    tasks: Sequence[TaskRecord], counts: Mapping[str, ClusterCounts], pairs: Mapping[str, Pairs] | None
) -> Average | None:
    estimate = macro_average([counts[task.hash] for task in tasks])
    if estimate is None:
        return None
    difference = macro_difference([pairs[task.hash].cluster_counts for task in tasks]) if pairs is not None else None
    return Average(tuple(task.name for task in tasks), estimate, difference)


def pairs_on(candidate: PointRecord, reference: PointRecord, task: TaskRecord) -> Pairs:
    """The items of a task that both points answered."""
    return count_pairs(headline(candidate, task), headline(reference, task), task.clusters)


def headline(point: PointRecord, task: TaskRecord) -> Mapping[str, float | None]:
    """The point's headline score on each item of the task, by item hash; None where unscored."""
    return scores(point.outcomes.get(task.hash, {}))
