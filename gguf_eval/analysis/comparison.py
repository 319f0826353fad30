"""Compares two points on the items both answered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gguf_eval.analysis.intervals import ClusterCounts, macro_difference
from gguf_eval.analysis.sign_flips import sign_flip_test
from gguf_eval.analysis.statistics import CONFIDENCE, Estimate, holm, mcnemar_exact, normal_quantile, paired_difference

Verdict = Literal["better", "worse", "same", "undecided"]
ALPHA = 0.05
MARGIN = 0.01
"""Differences inside this (one point) are called the same, when the whole interval is inside."""


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


def count_pairs(
    candidate: Mapping[str, float | None],
    reference: Mapping[str, float | None],
    clusters: Mapping[str, str] | None = None,
) -> Pairs:
    """Pair the items by their hash; values are scores (1 right, 0 wrong), None where unscored.

    clusters: the name of the cluster of each item that is in one.
    """
    if not clusters and list(candidate) == list(reference):
        return _pairs_in_order(candidate, reference)
    differences = {
        key: value - other
        for key, value in candidate.items()
        if value is not None and (other := reference.get(key)) is not None
    }
    n = len(differences)
    scored = sum(value is not None for value in candidate.values())
    scored_reference = sum(value is not None for value in reference.values())
    named = {key: clusters[key] for key in differences if clusters and clusters.get(key)}
    graded = any(difference not in (-1.0, 0.0, 1.0) for difference in differences.values())
    return Pairs(
        n,
        sum(difference > 0 for difference in differences.values()),
        sum(difference < 0 for difference in differences.values()),
        scored + scored_reference - 2 * n,
        cluster_counts(differences, named) if named or graded else None,
    )


def _pairs_in_order(candidate: Mapping[str, float | None], reference: Mapping[str, float | None]) -> Pairs:
    """The same for the same items in the same order, each standing for itself: at once."""
    own, other = (np.array(list(values.values()), np.float64) for values in (candidate, reference))  # None is NaN
    scored, scored_reference = ~np.isnan(own), ~np.isnan(other)
    differences = (own - other)[scored & scored_reference]
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    grouped = None
    if not np.isin(differences, (-1.0, 0.0, 1.0)).all():
        values, counts = np.unique(differences, return_counts=True)
        grouped = {(value, 1): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
    n = len(differences)
    return Pairs(n, gained, lost, int(scored.sum() + scored_reference.sum()) - 2 * n, grouped)


def cluster_counts(values: Mapping[str, float], clusters: Mapping[str, str]) -> dict[tuple[float, int], int]:
    """How many clusters there are of each (sum of the values, items)."""
    if not clusters:
        return {(value, 1): count for value, count in Counter(values.values()).items()}
    members: dict[str, list[float]] = {}
    alone: Counter[tuple[float, int]] = Counter()
    for key, value in values.items():
        name = clusters.get(key)
        if name:
            members.setdefault(name, []).append(value)
        else:
            alone[(value, 1)] += 1
    return dict(alone + Counter((math.fsum(part), len(part)) for part in members.values()))


def add_pairs(parts: Iterable[Pairs]) -> Pairs:
    """The pairs of several tasks together."""
    total = Pairs(0, 0, 0, 0)
    for part in parts:
        clusters = None
        if total.clusters is not None or part.clusters is not None:
            clusters = dict(Counter(total.cluster_counts) + Counter(part.cluster_counts))
        total = Pairs(
            total.n + part.n,
            total.gained + part.gained,
            total.lost + part.lost,
            total.left_out + part.left_out,
            clusters,
        )
    return total


def compare(reference: str, pairs: Mapping[int, Pairs], *, margin: float = MARGIN) -> dict[int, Comparison]:
    """Compare several points with one reference; points without a common item are left out.

    Better or worse needs a corrected p below 0.05; the same needs the whole interval inside the margin; all else is
    undecided.
    """
    usable = {point: counted for point, counted in pairs.items() if counted.n}
    raw = [_p_value(counted) for counted in usable.values()]
    comparisons = {}
    for (point, counted), p_value in zip(usable.items(), holm(raw), strict=True):
        difference = _difference(counted)
        assert difference is not None
        verdict = _verdict(difference, p_value, margin)
        comparisons[point] = Comparison(
            reference, difference, counted.gained, counted.lost, counted.left_out, p_value, verdict, margin,
            items_to_settle(difference, margin, len(usable)) if verdict == "undecided" else None,
            _cluster_count(counted),
        )  # fmt: skip
    return comparisons


def _cluster_count(counted: Pairs) -> int | None:
    if counted.clusters is None or all(size == 1 for _, size in counted.clusters):
        return None
    return sum(counted.clusters.values())


def _difference(counted: Pairs) -> Estimate | None:
    if counted.clusters is None:
        return paired_difference(counted.gained, counted.lost, counted.n)
    return macro_difference([counted.clusters])


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
