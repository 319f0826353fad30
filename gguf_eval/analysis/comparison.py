"""Compares two points on the items both answered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gguf_eval.analysis.intervals import ClusterCounts, cluster_counts, interval_unit, macro_difference
from gguf_eval.analysis.models import Key
from gguf_eval.analysis.sign_flips import sign_flip_test
from gguf_eval.analysis.statistics import CONFIDENCE, Estimate, holm, mcnemar_exact, normal_quantile
from gguf_eval.store.outcomes import scores
from gguf_eval.store.records import PointRecord, TaskRecord

Verdict = Literal["better", "worse", "same", "undecided"]
ALPHA = 0.05
MARGIN = 0.01
"""Differences inside this (one point) are called the same, when the whole interval is inside."""
_RIGHT_OR_WRONG = {(1.0, 1), (0.0, 1), (-1.0, 1)}
"""The differences of items that are right or wrong, each standing for itself."""


@dataclass(frozen=True)
class Pairs:
    """Items that both points answered."""

    n: int
    gained: int
    """Wrong at the reference, right here (or a higher score)."""
    lost: int
    """Right at the reference, wrong here (or a lower score)."""
    left_out: int
    """Items that only one of the two has a scored answer to."""
    clusters: ClusterCounts | None = field(default=None, compare=False)
    """How many clusters there are of each (sum of the differences, items); None: every item stands for itself, and
    every difference is 1, 0 or -1."""

    @property
    def cluster_counts(self) -> ClusterCounts:
        """The clusters, where need be made from the counts."""
        if self.clusters is not None:
            return self.clusters
        counts = {(1.0, 1): self.gained, (-1.0, 1): self.lost, (0.0, 1): self.n - self.gained - self.lost}
        return {cluster: count for cluster, count in counts.items() if count}


@dataclass(frozen=True)
class Comparison:
    """A point against its reference."""

    reference: str
    difference: Estimate
    gained: int
    lost: int
    left_out: int
    p_value: float
    """Exact McNemar (by cluster: the exact sign-flip test), corrected by Holm for the points compared."""
    verdict: Verdict
    margin: float = MARGIN
    items_to_settle: int | None = None
    """Where undecided: items after which the verdict is expected, should the shares stay as they are."""
    clusters: int | None = None
    """Clusters of items that the interval rests on; None where every item stands for itself."""


def pairs_on(candidate: PointRecord, reference: PointRecord, task: TaskRecord) -> Pairs:
    """The items of a task that both points answered."""
    return count_pairs(scores(candidate.answers_to(task)), scores(reference.answers_to(task)), task.clusters)


def count_pairs(
    candidate: Mapping[str, float | None],
    reference: Mapping[str, float | None],
    clusters: Mapping[str, str] | None = None,
) -> Pairs:
    """Pair the items by their hash; values are scores (1 right, 0 wrong), None where unscored.

    clusters: the name of the cluster of each item that is in one.
    """
    own, other = (
        {key: value for key, value in values.items() if value is not None} for values in (candidate, reference)
    )
    differences = {key: value - other[key] for key, value in own.items() if key in other}
    changes = Counter(differences.values())
    counts = cluster_counts(differences, clusters or {})
    return Pairs(
        len(differences),
        sum(count for change, count in changes.items() if change > 0),
        sum(count for change, count in changes.items() if change < 0),
        len(own) + len(other) - 2 * len(differences),
        None if counts.keys() <= _RIGHT_OR_WRONG else counts,
    )


def add_pairs(parts: Iterable[Pairs]) -> Pairs:
    """The pairs of several tasks together."""
    found = list(parts)
    n, gained, lost, left_out = (
        sum(getattr(part, name) for part in found) for name in ("n", "gained", "lost", "left_out")
    )
    if all(part.clusters is None for part in found):
        return Pairs(n, gained, lost, left_out)
    return Pairs(n, gained, lost, left_out, sum((Counter(part.cluster_counts) for part in found), Counter()))


def compare(reference: str, pairs: Mapping[Key, Pairs], *, margin: float = MARGIN) -> dict[Key, Comparison]:
    """Compare several points with one reference; points without a common item are left out.

    Better or worse needs a corrected p below 0.05; the same needs the whole interval inside the margin; all else is
    undecided.
    """
    usable = {point: counted for point, counted in pairs.items() if counted.n}
    comparisons = {}
    for (point, counted), p_value in zip(usable.items(), holm(list(map(_p_value, usable.values()))), strict=True):
        difference = macro_difference([counted.cluster_counts])
        assert difference is not None
        by_cluster = interval_unit([counted.cluster_counts]) == "cluster"
        verdict = _verdict(difference, p_value, margin)
        comparisons[point] = Comparison(
            reference, difference, counted.gained, counted.lost, counted.left_out, p_value, verdict, margin,
            items_to_settle(difference, margin, len(usable)) if verdict == "undecided" else None,
            sum(counted.cluster_counts.values()) if by_cluster else None,
        )  # fmt: skip
    return comparisons


def _p_value(counted: Pairs) -> float:
    if counted.clusters is None:
        return mcnemar_exact(counted.gained, counted.lost)
    sums: Counter[float] = Counter()
    for (total, _), count in counted.clusters.items():
        sums[total] += count
    return sign_flip_test(sums)


def _verdict(difference: Estimate, p_value: float, margin: float) -> Verdict:
    if -margin <= difference.low and difference.high <= margin:
        return "same"
    if p_value < ALPHA:
        return "better" if difference.value > 0 else "worse"
    return "undecided"


def items_to_settle(difference: Estimate, margin: float, comparisons: int) -> int | None:
    """Items after which an undecided comparison is expected to be decided; None where none would do.

    Half an interval shrinks with the square root of the items. It must fall to |difference| for better or worse (with
    Bonferroni's level for the number of comparisons, which Holm's correction never exceeds), or to what is left of the
    margin beside |difference| for the same; the easier of the two counts.
    """
    half = (difference.high - difference.low) / 2
    size = abs(difference.value)
    stricter = normal_quantile(1 - ALPHA / max(1, comparisons)) / normal_quantile(CONFIDENCE)
    needed = [size / stricter, margin - size]
    widest = max(needed)
    if widest <= 0 or half <= 0:
        return None
    return max(difference.n + 1, math.ceil(difference.n * (half / widest) ** 2))
