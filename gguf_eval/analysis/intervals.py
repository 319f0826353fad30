"""Intervals of means over items, clusters and tasks in closed form: nothing is drawn, and order means nothing.

A task's mean is a ratio of sums over its clusters (an item that is in no cluster is one of its own), and a mean over
tasks counts every task once. Its variance is the sum of the tasks' unbiased variances: many small tasks together tell
as much as a few large ones, and what is added for changes not yet seen is shared among them. On it rest:

- a mean of scores between 0 and 1: Wilson's with the effective sample size (`macro_average`);
- a difference of scores: Hall's correction for skewness, with one change more up and one down (`macro_difference`);
- a mean of values that are not negative and have no upper end: Hall's alone (`mean_interval`).

benchmarks/coverage.py measures how often they hold the truth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.statistics import CONFIDENCE, Estimate, paired_difference, t_quantile, wilson, wilson_bounds

ClusterSum = tuple[float, int]
"""(sum of the values, number of items) of a cluster; an item that is in no cluster is a cluster of its own."""
ClusterCounts = Mapping[ClusterSum, int]
"""How many clusters there are of each sum and size."""
Values = npt.NDArray[np.float64]

FEW = 30
"""Clusters of skewed values, such as divergences, from which they have an interval: of 20 right answers' divergences it
holds the truth in 91 to 95 % for most tasks, and in 86 % where few answers carry the mean (benchmarks/coverage.py)."""
_ROUNDING = 1e-14
"""Of the largest value's square: a variance of less is rounding."""
_CHANGES = 2
"""Changes that are added to those seen, as many up as down: without them no change seen would be none possible. In one
task of right-or-wrong items it is what Bonett and Price (2012) add in their closed form."""


@dataclass(frozen=True)
class Spread:
    """What the clusters of all tasks tell of the mean over the tasks."""

    value: float
    variance: float
    """Unbiased, of the value; 0 where nothing varies, and where there is one cluster in all."""
    freedom: float
    """Degrees of freedom of the variance; infinite where it is 0."""
    cubes: float
    """Third central moment of the value."""
    clusters: float
    """Harmonic mean of the tasks' clusters times their number: clusters of one task that would tell as much."""
    change: float
    """Mean square of what a cluster whose sum is not 0 adds to the value."""


@dataclass(frozen=True)
class _Part:
    """Moments of one task: sums over its clusters of powers of what each adds to the mean over the tasks."""

    mean: float
    clusters: int
    squares: float
    cubes: float
    fourths: float
    changed: int
    """Clusters whose sum is not 0."""
    changes: float
    """The squares of what they add, not centred."""

    @property
    def variance(self) -> float:
        """Cochran 1977, eq. 11.29, for a ratio of sums over clusters."""
        return self.squares * self.clusters / (self.clusters - 1)


def cluster_counts(values: Mapping[str, float], clusters: Mapping[str, str]) -> ClusterCounts:
    """How many clusters there are of each (sum of the values, items)."""
    if not clusters:
        return {(value, 1): count for value, count in Counter(values.values()).items()}
    members: dict[str, list[float]] = {}
    alone: Counter[ClusterSum] = Counter()
    for key, value in values.items():
        name = clusters.get(key)
        if name:
            members.setdefault(name, []).append(value)
        else:
            alone[(value, 1)] += 1
    return dict(alone + Counter((math.fsum(part), len(part)) for part in members.values()))


def mean_of(counts: ClusterCounts) -> float:
    """Mean value of an item."""
    return math.fsum(total * count for (total, _), count in counts.items()) / item_count(counts)


def item_count(counts: ClusterCounts) -> int:
    """Items in all clusters together."""
    return sum(size * count for (_, size), count in counts.items())


def macro_average(
    parts: Sequence[ClusterCounts], *, unscored: int = 0, confidence: float = CONFIDENCE
) -> Estimate | None:
    """Mean over tasks of a point's mean score, values being between 0 and 1; None where no task has an item.

    Wilson's interval for as many items as a share with this variance has: mean * (1 - mean) / variance, with the
    t-distribution's quantile (Korn and Graubard 1998, Survey Methodology 24:193; Dean and Pagano 2015, J. Surv. Stat.
    Methodol. 3:484). Graded scores vary less than shares of the same mean, and count for more items. One task of
    right-or-wrong items has Wilson's own.
    """
    tasks = [counts for counts in parts if counts]
    if not tasks:
        return None
    items = sum(item_count(counts) for counts in tasks)
    if len(tasks) == 1 and all(size == 1 and value in (0.0, 1.0) for value, size in tasks[0]):
        return wilson(tasks[0].get((1.0, 1), 0), items, unscored=unscored, confidence=confidence)
    found = spread_of(tasks)
    low, high = wilson_bounds(found.value, effective_items(found), t_quantile(found.freedom, confidence))
    return Estimate(found.value, low, high, items, unscored, f"wilson-by-{interval_unit(tasks)}")


def effective_items(found: Spread) -> float:
    """Items of which a share with the same mean, between 0 and 1, would have this variance."""
    return found.value * (1 - found.value) / found.variance if found.variance else found.clusters


def macro_difference(parts: Sequence[ClusterCounts], *, confidence: float = CONFIDENCE) -> Estimate | None:
    """Mean over tasks of their mean differences, each between -1 and 1; None where no task has an item.

    Right-or-wrong items of one task have the closed form of Bonett and Price. All else has Hall's interval with two
    changes added, of the size that changes here have, to the variance and not to the centre. Swapping the two points
    negates value and interval exactly.
    """
    tasks = [counts for counts in parts if counts]
    if not tasks:
        return None
    items = sum(item_count(counts) for counts in tasks)
    if len(tasks) == 1 and all(cluster in ((1.0, 1), (0.0, 1), (-1.0, 1)) for cluster in tasks[0]):
        gained, lost = (tasks[0].get((sign, 1), 0) for sign in (1.0, -1.0))
        return paired_difference(gained, lost, items, confidence=confidence)
    found = spread_of(tasks)
    share = found.clusters / (found.clusters + _CHANGES)
    change = found.change if found.variance else max(found.change, found.clusters**-2)
    low, high = hall(
        found.value, (found.variance + _CHANGES * change) * share, found.cubes, t_quantile(found.freedom, confidence)
    )
    return Estimate(found.value, max(-1.0, low), min(1.0, high), items, 0, f"hall-by-{interval_unit(tasks)}")


def mean_interval(sums: Values, sizes: Values, *, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """The mean of an item, low and high, from the sums and sizes of two clusters or more: Hall's interval."""
    found = _spread([(sums, sizes, np.ones(len(sums)))])
    return found.value, *hall(found.value, found.variance, found.cubes, t_quantile(found.freedom, confidence))


def hall(value: float, variance: float, cubes: float, quantile: float) -> tuple[float, float]:
    """Hall's (1992, J. R. Statist. Soc. B 54:221) interval: the t-statistic made symmetric by a cubic, and back.

    cubes: third central moment of the value. With x its skewness over 3, the cubic is T + xT^2 + x^2T^3/3 + x/2. The
    bounds hold the value.
    """
    if not variance:
        return value, value
    error = math.sqrt(variance)
    third = cubes / error**3 / 3 if error**3 else 0.0  # of values so small that their cubes are none

    def back(quantile: float) -> float:
        if abs(third) < 1e-6:
            return quantile
        return float(np.cbrt(1 + 3 * third * (quantile - third / 2)) - 1) / third

    return min(value, value - error * back(quantile)), max(value, value - error * back(-quantile))


def spread_of(tasks: Sequence[ClusterCounts]) -> Spread:
    """Value and moments of a mean over tasks, each of which has a cluster."""
    columns = []
    for counts in tasks:
        sums, sizes = np.array(list(counts), np.float64).T
        columns.append((sums, sizes, np.fromiter(counts.values(), np.float64, len(counts))))
    return _spread(columns)


def _spread(tasks: Sequence[tuple[Values, Values, Values]]) -> Spread:
    """From each task's sums, sizes and counts of clusters.

    Degrees of freedom are Satterthwaite's (1946) of the tasks' clusters - 1. Where the fourth moment shows that few
    clusters carry the spread, they are fewer: twice the squared variance over the variance of the variance.
    """
    parts = [_part(*columns, tasks=len(tasks)) for columns in tasks]
    value = math.fsum(part.mean for part in parts) / len(parts)
    variance, freedom = _variance(parts)
    if variance <= _ROUNDING * max(value**2, math.fsum(part.changes for part in parts)):
        variance, freedom = 0.0, math.inf
    else:
        squares = math.fsum(part.squares for part in parts)
        tails = math.fsum(part.fourths - part.squares**2 / part.clusters for part in parts)
        if tails > 0:
            freedom = max(1.0, min(freedom, 2 * squares**2 / tails))
    changed = sum(part.changed for part in parts)
    return Spread(
        value=value,
        variance=variance,
        freedom=freedom,
        cubes=math.fsum(part.cubes for part in parts),
        clusters=len(parts) ** 2 / math.fsum(1 / part.clusters for part in parts),
        change=math.fsum(part.changes for part in parts) / changed if changed else 0.0,
    )


def _part(sums: Values, sizes: Values, counts: Values, *, tasks: int) -> _Part:
    items = math.fsum((sizes * counts).tolist())
    mean = math.fsum((sums * counts).tolist()) / items
    added = (sums - mean * sizes) / (items * tasks)
    squares = added**2
    whole = sums / (items * tasks)
    return _Part(
        mean=mean,
        clusters=int(counts.sum()),
        squares=_sum(squares * counts),
        cubes=_sum(squares * added * counts),
        fourths=_sum(squares**2 * counts),
        changed=int(counts[sums != 0].sum()),
        changes=_sum(whole**2 * counts),
    )


def _sum(values: Values) -> float:
    """Exact, so that neither order nor sign has a say in the rounding."""
    return math.fsum(values.tolist())


def _variance(parts: Sequence[_Part]) -> tuple[float, float]:
    """The variance of the mean over the tasks, and its degrees of freedom.

    A task of one cluster takes the mean variance of a cluster in the others. Where all have one, their means are one
    sample (collapsed strata: Cochran 1977, section 5A.12).
    """
    known = [part for part in parts if part.clusters > 1]
    if not known:
        if len(parts) == 1:
            return 0.0, math.inf
        centre = math.fsum(part.mean for part in parts) / len(parts)
        squares = math.fsum((part.mean - centre) ** 2 for part in parts)
        return squares / len(parts) / (len(parts) - 1), len(parts) - 1
    alone = len(parts) - len(known)
    weights = [1 + alone * part.clusters / len(known) for part in known]
    variances = [part.variance * weight for part, weight in zip(known, weights, strict=True)]
    variance = math.fsum(variances)
    own = math.fsum(one**2 / (part.clusters - 1) for one, part in zip(variances, known, strict=True))
    return variance, variance**2 / own if own else math.inf


def interval_unit(tasks: Iterable[ClusterCounts]) -> str:
    """What an interval rests on: clusters, or items that each stand for themselves."""
    return "cluster" if any(size > 1 for counts in tasks for _, size in counts) else "item"
