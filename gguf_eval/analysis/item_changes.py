"""The items of a task at two dates: how many are the same, and what the others' answers turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gguf_eval.analysis.comparison import Comparison, Pairs, add_pairs, compare, pairs_on
from gguf_eval.store.outcomes import read_whole
from gguf_eval.store.records import Outcome, PointRecord, TaskRecord

ItemsVerdict = Literal["better", "worse", "same", "undecided", "identical"]


@dataclass(frozen=True)
class Counts:
    """The items of a task (or of all) at two dates."""

    common: int = 0
    """Asked at both dates: what the comparison looks at, and those that could not be scored."""
    only_old: int = 0
    only_new: int = 0
    unscored_old: int = 0
    """Of the common items."""
    unscored_new: int = 0
    identical: int = 0
    """Common items with the same score, log-likelihoods (as stored, to a millionth of a nat) and text."""
    same_answer: int = 0
    """Common items with the same answer, however sure of it."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class ItemsChange:
    """A task at two dates, or the items of all tasks together."""

    name: str
    counts: Counts
    comparison: Comparison | None
    """New against old, positive where the new one is better; None without an item that both scored."""
    scoring: Comparison | None
    """Whether items could be scored at all, new against old; None where exactly the same ones could."""
    verdict: ItemsVerdict | None


class Counted:
    """One task of one point at two dates, read once."""

    def __init__(self, old: PointRecord, new: PointRecord, task: TaskRecord) -> None:
        self.pairs = pairs_on(new, old, task)
        before, after = (read_whole(point.outcomes[task.hash]) for point in (old, new))
        common = [(before[key], outcome) for key, outcome in after.items() if key in before]
        unscored = [[pair[i].value is None for pair in common] for i in (0, 1)]
        self.counts = Counts(
            common=len(common),
            only_old=len(before) - len(common),
            only_new=len(after) - len(common),
            unscored_old=sum(unscored[0]),
            unscored_new=sum(unscored[1]),
            identical=sum(_computed(a) == _computed(b) for a, b in common),
            same_answer=sum(_answer(a) == _answer(b) for a, b in common),
        )
        gained = sum(was and not now for was, now in zip(*unscored, strict=True))
        lost = sum(now and not was for was, now in zip(*unscored, strict=True))
        self.scoring = Pairs(len(common), gained, lost, 0)


def _computed(outcome: Outcome) -> tuple[Any, ...]:
    return outcome.value, outcome.logprobs, outcome.text


def _answer(outcome: Outcome) -> tuple[Any, ...]:
    if outcome.text is not None:
        return (outcome.extracted or outcome.text,)
    return (outcome.value,) if outcome.answer is None else (outcome.answer,)


Key = tuple[str, int, str]
"""items or scoring; the point's place; the task's hash, empty for all items."""


def compare_all(counted: Mapping[tuple[int, str], Counted], points: int, margin: float) -> dict[Key, Comparison]:
    """Every comparison of items, as one family. What can't be rejected, because nothing changed, is left out of the
    family where it is about scoring: most items of most studies can be scored at both dates."""
    pairs: dict[Key, Pairs] = {("items", i, hash_): found.pairs for (i, hash_), found in counted.items()}
    for i in range(points):
        parts = [found.pairs for (place, _), found in counted.items() if place == i]
        if len(parts) > 1:
            pairs["items", i, ""] = add_pairs(parts)
    for (i, hash_), found in counted.items():
        if found.scoring.gained or found.scoring.lost:
            pairs["scoring", i, hash_] = found.scoring
    return compare("old", pairs, margin=margin)


def items_change(name: str, counts: Counts, place: int, hash_: str, compared: Mapping[Key, Comparison]) -> ItemsChange:
    """A task's change, or that of all items, from what `compare_all` found."""
    comparison = compared.get(("items", place, hash_))
    verdict: ItemsVerdict | None = comparison.verdict if comparison else None
    if counts.common and counts.identical == counts.common:
        verdict = "identical"
    return ItemsChange(name, counts, comparison, compared.get(("scoring", place, hash_)), verdict)
