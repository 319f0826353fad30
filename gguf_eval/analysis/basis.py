"""Which tasks and items means may stand beside each other over.

A point holds a task when it was asked every item of it that any point of its model was asked, and could score at least
half as many as the one that could score most. Where it does not, it has no mean there. A model's scores are over the
tasks that all its finished points hold: a point is finished when it holds every task planned for it, and half as many
as the point that holds most. An item that is unscored at one point that holds the task counts at none of them, nor at
those of other models that were asked the same items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gguf_eval.analysis.models import by_model
from gguf_eval.store.outcomes import scored
from gguf_eval.store.records import PointRecord, TaskRecord

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
    common = _common_items(asked.values(), tasks)
    bases = {}
    for model, own in members.items():
        lacking = {point.id: {hash_: one.lacking[point.id] for hash_, one in asked[model].items()
                              if point.id in one.lacking} for point in own}  # fmt: skip
        held = _shared_tasks(own, asked[model], lacking)
        items = {task.hash: common[task.hash, asked[model][task.hash].items] for task in tasks
                 if (task.hash, asked[model].get(task.hash, _NOTHING).items) in common}  # fmt: skip
        bases[model] = Basis(tuple(task.hash for task in tasks if task.hash in held), items, lacking)
    return _joint(bases, asked)


_NOTHING = _Asked(frozenset(), (), {})


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


def _common_items(
    asked: Iterable[Mapping[str, _Asked]], tasks: Sequence[TaskRecord]
) -> dict[tuple[str, frozenset[str]], frozenset[str]]:
    """By task hash and items asked, those scored at every holder; only where some holder has one unscored."""
    found: dict[tuple[str, frozenset[str]], frozenset[str]] = {}
    models = list(asked)
    for task in tasks:
        for model in models:
            one = model.get(task.hash, _NOTHING)
            for point in one.holders:
                if unscored := point.answers_to(task).keys() - scored(point.answers_to(task)).keys():
                    found[task.hash, one.items] = found.get((task.hash, one.items), one.items) - unscored
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
    order = [basis.tasks for model, basis in bases.items() if model in sharing][:1]
    return Bases(bases, tuple(hash_ for hash_ in order[0] if hash_ in hashes) if order else (), sharing)
