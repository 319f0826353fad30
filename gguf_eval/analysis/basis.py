"""Which tasks and items means may stand beside each other over, and these means: every task counts once.

A point holds a task when it was asked every item of it that any point of its model was asked, and could score at least
half as many as the one that could score most. Where it does not, it has no mean there. A model's scores are over the
tasks that all its finished points hold: a point is finished when it holds every task planned for it, and half as many
as the point that holds most. An item that is unscored at one point that holds the task counts at none of them, nor at
those of other models that were asked the same items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gguf_eval.analysis.comparison import Pairs
from gguf_eval.analysis.intervals import ClusterCounts, cluster_counts, item_count, macro_average, macro_difference
from gguf_eval.analysis.models import by_model, grouped
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.store.outcomes import item_metrics, scored
from gguf_eval.store.records import Outcome, PointRecord, TaskRecord

ALL = "all"
_LEAST_SHARE = 0.5
"""Of what the best has, below which a point does not reduce what the others are judged by."""


@dataclass(frozen=True)
class Lack:
    """What a point has of a task that it does not hold."""

    asked: int
    scored: int
    of: int
    """Items that the points of its model were asked."""


@dataclass(frozen=True)
class Basis:
    """What the means of one model's points are over."""

    tasks: tuple[str, ...] = ()
    """Hashes of the tasks that a score is the mean over, in the study's order."""
    items: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By task hash, the items that every point holding the task has a score of; tasks at which nobody lacks any are
    not named."""
    lacking: Mapping[int, Mapping[str, Lack]] = field(default_factory=dict)
    """By point id, then by task hash: the tasks that other points of the model have and this one does not hold."""

    def common(self, task_hash: str) -> frozenset[str] | None:
        """The items that a mean is over; None: all that the point has a score of."""
        return self.items.get(task_hash)

    def lacks(self, point_id: int) -> Mapping[str, Lack]:
        """What the point does not hold, by task hash."""
        return self.lacking.get(point_id, {})


@dataclass(frozen=True)
class Bases:
    """What the means of a study are over."""

    models: Mapping[str, Basis]
    joint: tuple[str, ...]
    """Hashes of the tasks that points of different models are compared over."""
    sharing: frozenset[str]
    """The models that have these tasks, all with the same items."""

    def joint_tasks(self, point: PointRecord) -> tuple[str, ...]:
        """The tasks that the point is compared with other models' over; none where it does not hold them all."""
        lacking = self.models[point.model].lacks(point.id)
        fits = point.model in self.sharing and not any(hash_ in lacking for hash_ in self.joint)
        return self.joint if fits else ()


@dataclass(frozen=True)
class _Asked:
    """One task at the points of one model."""

    items: frozenset[str]
    """That any of them was asked."""
    holders: tuple[PointRecord, ...]
    lacking: dict[int, Lack]


def find_bases(points: Sequence[PointRecord], tasks: Sequence[TaskRecord]) -> Bases:
    """The basis of each model, and the tasks that they share.

    Models share those that the one with the most tasks has in common with every model that has half of them, each with
    the same items.
    """
    members = by_model(points)
    asked = {model: _asked_of(own, tasks) for model, own in members.items()}
    common = _common_items(asked.values())
    bases = {}
    for model, own in members.items():
        lacking = {point.id: {hash_: one.lacking[point.id] for hash_, one in asked[model].items()
                              if point.id in one.lacking} for point in own}  # fmt: skip
        held = _shared_tasks(own, asked[model], lacking)
        items = {hash_: common[key] for hash_, one in asked[model].items() if (key := (hash_, one.items)) in common}
        bases[model] = Basis(tuple(task.hash for task in tasks if task.hash in held), items, lacking)
    return _joint(bases, asked)


def _asked_of(points: Sequence[PointRecord], tasks: Sequence[TaskRecord]) -> dict[str, _Asked]:
    """By task hash; tasks that no point has a score in are left out."""
    answered = [point for point in points if point.is_answered]
    found = {}
    for task in tasks:
        keys = {point.id: list(point.answers_to(task)) for point in answered}
        items = _union(keys.values())
        counts = {point.id: len(scored(point.answers_to(task))) for point in answered}
        most = max(counts.values(), default=0)
        if not most:
            continue
        lacking = {id_: Lack(len(own), counts[id_], len(items)) for id_, own in keys.items()
                   if len(own) < len(items) or counts[id_] < most * _LEAST_SHARE}  # fmt: skip
        found[task.hash] = _Asked(items, tuple(point for point in answered if point.id not in lacking), lacking)
    return found


def _union(lists: Iterable[list[str]]) -> frozenset[str]:
    """Lists that are equal, as nearly all are, cost no sets."""
    distinct: list[list[str]] = []
    for one in lists:
        if one not in distinct:
            distinct.append(one)
    return frozenset().union(*distinct)


def _common_items(asked: Iterable[Mapping[str, _Asked]]) -> dict[tuple[str, frozenset[str]], frozenset[str]]:
    """By task hash and items asked, those scored at every holder; only where some holder has one unscored."""
    found: dict[tuple[str, frozenset[str]], frozenset[str]] = {}
    for model in asked:
        for hash_, one in model.items():
            for point in one.holders:
                if unscored := point.outcomes[hash_].keys() - scored(point.outcomes[hash_]).keys():
                    found[hash_, one.items] = found.get((hash_, one.items), one.items) - unscored
    return found


def _shared_tasks(
    points: Sequence[PointRecord], asked: Mapping[str, _Asked], lacking: Mapping[int, Mapping[str, Lack]]
) -> set[str]:
    """The tasks that all finished points hold; where none is finished, those of the point that holds most."""
    held = {point.id: asked.keys() - lacking[point.id].keys() for point in points if point.is_answered}
    most = max(map(len, held.values()), default=0)
    finished = [
        held[point.id]
        for point in points
        if len(held.get(point.id, ())) >= max(1, most * _LEAST_SHARE)
        and lacking[point.id].keys().isdisjoint(point.outcomes)
    ]
    if not finished:
        return max(held.values(), key=len, default=set())
    return set.intersection(*finished)


def _joint(bases: Mapping[str, Basis], asked: Mapping[str, Mapping[str, _Asked]]) -> Bases:
    parts = {model: {(hash_, asked[model][hash_].items) for hash_ in basis.tasks} for model, basis in bases.items()}
    richest = max(parts.values(), key=len, default=set())
    least = max(1, len(richest) * _LEAST_SHARE)
    sharing = frozenset(model for model, part in parts.items() if len(part & richest) >= least)
    shared = richest.intersection(*(parts[model] for model in sharing))
    hashes = {name for name, _ in shared}
    order = next((basis.tasks for model, basis in bases.items() if model in sharing), ())
    return Bases(bases, tuple(hash_ for hash_ in order if hash_ in hashes), sharing)


@dataclass(frozen=True)
class Average:
    """One point over several tasks."""

    tasks: tuple[str, ...]
    """Names of the tasks, all of which the point holds."""
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
