"""What a score has to be compared with: guessing, and one answer to everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.store.outcomes import scored
from gguf_eval.store.records import PointRecord, TaskRecord

_PICKING = ("acc", "acc_norm", "acc_token_norm")
"""Metrics that are 1 where the choice picked is a right one: a constant answer has a score in them."""


@dataclass(frozen=True)
class Majority:
    """The best that one answer to everything gets."""

    label: str
    share: float


def majority(task: TaskRecord) -> Majority | None:
    """The most frequent right label and its share of the items.

    None where items don't all have the same choices, or where one of them alone is ever right: nothing is told apart
    there. Choices may stand in another order at each item; an item with several right ones counts for each of them.
    """
    items = list(task.items.values())
    if task.metric not in _PICKING or not items or len(items[0].choices) < 2:
        return None
    labels, count = frozenset(items[0].choices), len(items[0].choices)
    if any(len(item.choices) != count or not labels.issuperset(item.choices) for item in items) or len(labels) < count:
        return None
    right = Counter(item.choices[place] for item in items for place in set(item.golds))
    label, most = right.most_common(1)[0]
    return Majority(label.strip(), most / len(items)) if len(right) > 1 else None


def floored_tasks(points: Sequence[PointRecord], tasks: Sequence[TaskRecord], margin: float) -> tuple[str, ...]:
    """Hashes of the tasks that no point scores more than the margin in: nothing can be lost there."""
    found = []
    for task in tasks:
        values = [scored(point.answers_to(task)).values() for point in points]
        means = [sum(one) / len(one) for one in values if one]
        if means and max(means) <= margin:
            found.append(task.hash)
    return tuple(found)
