"""Averages over tasks and over groups of tasks: every task counts once, however many items it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gguf_eval.analysis.comparison import Pairs, cluster_kinds, count_pairs
from gguf_eval.analysis.resampling import macro_average, macro_difference
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.study.records import PointRecord, TaskRecord

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


def averages(point: PointRecord, reference: PointRecord | None, tasks: Sequence[TaskRecord]) -> dict[str, Average]:
    """The point's averages over all tasks (``all``) and over each group that has two tasks or more."""
    scored = [task for task in tasks if any(o.value is not None for o in point.outcomes.get(task.hash, {}).values())]
    groups: dict[str, list[TaskRecord]] = {ALL: scored}
    for task in scored:
        if task.group:
            groups.setdefault(task.group, []).append(task)
    found = {}
    for name, members in groups.items():
        if members and (name == ALL or len(members) > 1):
            average = _average(point, reference, members)
            if average is not None:
                found[name] = average
    return found


def _average(point: PointRecord, reference: PointRecord | None, tasks: Sequence[TaskRecord]) -> Average | None:
    parts = []
    for task in tasks:
        values = {key: value for key, value in headline(point, task).items() if value is not None}
        parts.append(cluster_kinds(values, clusters_of(task)))
    estimate = macro_average(parts)
    if estimate is None:
        return None
    difference = None
    if reference is not None and reference.id != point.id:
        difference = macro_difference([pairs_on(point, reference, task).kinds for task in tasks])
    return Average(tuple(task.name for task in tasks), estimate, difference)


def pairs_on(candidate: PointRecord, reference: PointRecord, task: TaskRecord) -> Pairs:
    """The items of a task that both points answered."""
    return count_pairs(headline(candidate, task), headline(reference, task), clusters_of(task))


def headline(point: PointRecord, task: TaskRecord) -> Mapping[str, float | None]:
    """The point's headline score on each item of the task, by item hash; None where unscored."""
    return {key: outcome.value for key, outcome in point.outcomes.get(task.hash, {}).items()}


def clusters_of(task: TaskRecord) -> dict[str, str]:
    """The cluster of each item that shares one with another item of the task, by item hash."""
    sizes = Counter(item.cluster for item in task.items.values())
    return {key: item.cluster for key, item in task.items.items() if item.cluster and sizes[item.cluster] > 1}
