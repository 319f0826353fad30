"""Averages over tasks and over groups of tasks: every task counts once, however many items it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gguf_eval.analysis.comparison import Pairs, cluster_kinds, count_pairs
from gguf_eval.analysis.intervals import Kind, Kinds, macro_average, macro_difference
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.study.outcomes import item_metrics, metric_values, scores
from gguf_eval.study.records import Outcome, PointRecord, TaskRecord

ALL = "all"


@dataclass(frozen=True)
class Average:
    """One point over several tasks."""

    tasks: tuple[str, ...]
    """Names of the tasks with a scored item."""
    estimate: Estimate
    """Mean of the tasks' headline scores."""
    difference: Estimate | None
    """Mean of the tasks' differences from the reference on common items; None for the reference itself."""


def averages(point: PointRecord, tasks: Sequence[TaskRecord], pairs: Mapping[str, Pairs] | None) -> dict[str, Average]:
    """The point's averages over all tasks (``all``) and over each group that has two tasks or more.

    pairs: the point's with its reference, by task hash; None for the reference itself.
    """
    scored = [task for task in tasks if any(value is not None for value in headline(point, task).values())]
    groups: dict[str, list[TaskRecord]] = {ALL: scored}
    for task in scored:
        if task.group:
            groups.setdefault(task.group, []).append(task)
    kinds = {task.hash: _kinds(point, task) for task in scored}
    found = {}
    for name, members in groups.items():
        if members and (name == ALL or len(members) > 1):
            average = _average(members, kinds, pairs)
            if average is not None:
                found[name] = average
    return found


def _kinds(point: PointRecord, task: TaskRecord) -> Kinds:
    if not task.clusters:
        counts = Counter(headline(point, task).values())
        return {(value, 1): count for value, count in counts.items() if value is not None}
    values = {key: value for key, value in headline(point, task).items() if value is not None}
    return cluster_kinds(values, task.clusters)


def metric_estimates(task: TaskRecord, outcomes: Mapping[str, Outcome]) -> dict[str, Estimate]:
    """Mean of each metric of the task over the scored items, by cluster where it has them; none without such items."""
    unscored = sum(value is None for value in scores(outcomes).values())
    kinds: dict[str, Counter[Kind]] = {metric: Counter() for metric in task.metrics}
    if task.clusters:
        values = item_metrics(outcomes)
        for metric, counted in kinds.items():
            of_metric = {key: found.get(metric, 0.0) for key, found in values.items()}
            counted.update(cluster_kinds(of_metric, task.clusters))
    else:
        for combination, count in metric_values(outcomes).items():
            found = dict(combination)
            for metric, counted in kinds.items():
                counted[found.get(metric, 0.0), 1] += count
    estimates = {metric: macro_average([counted], unscored=unscored) for metric, counted in kinds.items()}
    return {metric: estimate for metric, estimate in estimates.items() if estimate is not None}


def _average(
    tasks: Sequence[TaskRecord], kinds: Mapping[str, Kinds], pairs: Mapping[str, Pairs] | None
) -> Average | None:
    estimate = macro_average([kinds[task.hash] for task in tasks])
    if estimate is None:
        return None
    difference = macro_difference([pairs[task.hash].kinds for task in tasks]) if pairs is not None else None
    return Average(tuple(task.name for task in tasks), estimate, difference)


def pairs_on(candidate: PointRecord, reference: PointRecord, task: TaskRecord) -> Pairs:
    """The items of a task that both points answered."""
    return count_pairs(headline(candidate, task), headline(reference, task), task.clusters)


def headline(point: PointRecord, task: TaskRecord) -> Mapping[str, float | None]:
    """The point's headline score on each item of the task, by item hash; None where unscored."""
    return scores(point.outcomes.get(task.hash, {}))
