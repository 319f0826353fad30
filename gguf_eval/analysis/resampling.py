"""Bootstrap and sign-flip test for paired values, by item or by cluster, in a few vectorised draws.

A resample of clusters depends only on how many clusters of each kind it holds, a kind being (sum of the values, number
of items). A study has few kinds, so that drawing their multinomial counts is drawing whole resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.statistics import CONFIDENCE, Estimate, fair_tosses, normal_quantile

Kind = tuple[float, int]
"""(sum of the values, number of items) of a cluster; an item that is in no cluster is a cluster of its own."""
Kinds = Mapping[Kind, int]
"""How many clusters there are of each kind."""
Means = npt.NDArray[np.float64]

RESAMPLES = 4_000
CHANGES: Sequence[Kind] = ((1.0, 1), (-1.0, 1))
"""One item of each kind of change, added to what is resampled: without it, no change seen would be none possible. It is
the adjustment that Bonett and Price (2012) make in their closed form."""
ANSWERS: Sequence[Kind] = ((1.0, 1), (0.0, 1))
"""One right and one wrong answer, added for the same reason to what a single point's average is drawn from."""
MANY = 2_000
"""Clusters from which the mean's interval is that of the normal distribution: the bootstrap of so many gives the same
within its own noise, and takes seconds for a large study."""
_FEW_KINDS = 256
_DRAWS_AT_ONCE = 4_000_000


def mean_of(kinds: Kinds) -> float:
    """Mean value of an item."""
    ordered = sorted(kinds.items())
    return sum(kind[0] * count for kind, count in ordered) / item_count(kinds)


def item_count(kinds: Kinds) -> int:
    """Items in all clusters together."""
    return sum(size * count for (_, size), count in kinds.items())


def resampled_means(
    kinds: Kinds, *, added: Sequence[Kind] = CHANGES, resamples: int = RESAMPLES, seed: int = 0
) -> Means:
    """Means of ``resamples`` bootstrap samples of the clusters, each as many clusters as there are.

    Deviations from their centre are stretched by sqrt(c / (c - 1)) for c clusters: a resample varies less than the
    sample it comes from.
    """
    counted = dict(kinds)
    for kind in added:
        counted[kind] = counted.get(kind, 0) + 1
    ordered = sorted(counted.items())
    sums = np.array([kind[0] for kind, _ in ordered])
    sizes = np.array([kind[1] for kind, _ in ordered], np.float64)
    counts = np.array([count for _, count in ordered])
    total = int(counts.sum())
    centre = float(counts @ sums / (counts @ sizes))
    if total < 2:
        return np.full(resamples, centre)
    random = np.random.default_rng(seed)
    if len(ordered) <= _FEW_KINDS:
        drawn = random.multinomial(total, counts / total, resamples)
        means = (drawn @ sums) / (drawn @ sizes)
    else:
        means = _drawn_one_by_one(random, np.repeat(sums, counts), np.repeat(sizes, counts), resamples)
    stretched: Means = centre + (means - centre) * np.sqrt(total / (total - 1))
    return stretched


def _drawn_one_by_one(random: np.random.Generator, sums: Means, sizes: Means, resamples: int) -> Means:
    parts = []
    at_once = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, at_once):
        drawn = random.integers(0, len(sums), (min(at_once, resamples - start), len(sums)))
        parts.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(parts)


def bootstrap_difference(kinds: Kinds, *, confidence: float = CONFIDENCE, seed: int = 0) -> Estimate | None:
    """Mean difference with its percentile bootstrap interval; None without items."""
    return macro_difference([kinds], confidence=confidence, seed=seed)


def macro_difference(parts: Sequence[Kinds], *, confidence: float = CONFIDENCE, seed: int = 0) -> Estimate | None:
    """Mean over tasks of their mean differences: each task counts once, and is resampled by itself.

    Swapping the two points negates value and interval exactly: the interval is the mean of those of both directions.
    None where no task has an item.
    """
    tasks = [kinds for kinds in parts if kinds]
    if not tasks:
        return None
    value = sum(mean_of(kinds) for kinds in tasks) / len(tasks)
    if sum(sum(kinds.values()) for kinds in tasks) >= MANY:
        return _normal(tasks, value, CHANGES, -1.0, confidence)
    forward = _averaged(tasks, CHANGES, seed)
    backward = _averaged([{(-total, size): n for (total, size), n in kinds.items()} for kinds in tasks], CHANGES, seed)
    low, high = _quantiles(forward, confidence)
    back_low, back_high = _quantiles(backward, confidence)
    low, high = (low - back_high) / 2, (high - back_low) / 2
    return Estimate(
        value, min(value, max(-1.0, low)), max(value, min(1.0, high)),
        sum(item_count(kinds) for kinds in tasks), 0, method_of(tasks),
    )  # fmt: skip


def macro_average(parts: Sequence[Kinds], *, confidence: float = CONFIDENCE, seed: int = 0) -> Estimate | None:
    """Mean over tasks of a point's mean score, each task resampled by itself; None where no task has an item."""
    tasks = [kinds for kinds in parts if kinds]
    if not tasks:
        return None
    value = sum(mean_of(kinds) for kinds in tasks) / len(tasks)
    if sum(sum(kinds.values()) for kinds in tasks) >= MANY:
        return _normal(tasks, value, ANSWERS, 0.0, confidence)
    low, high = _quantiles(_averaged(tasks, ANSWERS, seed), confidence)
    return Estimate(
        value, min(value, max(0.0, low)), max(value, min(1.0, high)),
        sum(item_count(kinds) for kinds in tasks), 0, method_of(tasks),
    )  # fmt: skip


def _normal(tasks: Sequence[Kinds], value: float, added: Sequence[Kind], least: float, confidence: float) -> Estimate:
    """What the bootstrap of many clusters converges to: each task's mean is a ratio of sums over its clusters, with the
    variance sum((total - mean * size)^2) / items^2 * c / (c - 1) for c clusters (Cochran 1977, eq. 11.29)."""
    centre = variance = 0.0
    for kinds in tasks:
        counted = dict(kinds)
        for kind in added:
            counted[kind] = counted.get(kind, 0) + 1
        mean, clusters = mean_of(counted), sum(counted.values())
        squares = sum(count * (total - mean * size) ** 2 for (total, size), count in counted.items())
        centre += mean / len(tasks)
        variance += squares / item_count(counted) ** 2 * clusters / (clusters - 1) / len(tasks) ** 2
    half = normal_quantile(confidence) * math.sqrt(variance)
    clustered = any(size > 1 for kinds in tasks for _, size in kinds)
    return Estimate(
        value, min(value, max(least, centre - half)), max(value, min(1.0, centre + half)),
        sum(item_count(kinds) for kinds in tasks), 0, "normal-by-cluster" if clustered else "normal-by-item",
    )  # fmt: skip


def method_of(parts: Sequence[Kinds]) -> str:
    """The name of the interval: by item, or by cluster where a cluster holds more than one item."""
    clustered = any(size > 1 for kinds in parts for _, size in kinds)
    return "bootstrap-by-cluster" if clustered else "bootstrap-by-item"


def _averaged(tasks: Sequence[Kinds], added: Sequence[Kind], seed: int) -> Means:
    means = np.zeros(RESAMPLES)
    for number, kinds in enumerate(tasks):
        means += resampled_means(kinds, added=added, seed=seed + number)
    return means / len(tasks)


def _quantiles(means: Means, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def sign_flip_test(sums: Mapping[float, int], *, seed: int = 0) -> float:
    """Two-sided p of the total, were the sign of every cluster's sum a fair coin's.

    sums: how often each sum occurs. Exact for whole numbers: with clusters of one item it is McNemar's exact test.
    Other sums are flipped 4,000 times at random; the observed total counts as one of them, so that p is never 0.
    """
    counts: dict[float, int] = {}
    for value, count in sums.items():
        if value:
            counts[abs(value)] = counts.get(abs(value), 0) + count
    observed = abs(sum(value * count for value, count in sums.items()))
    if not counts:
        return 1.0
    if all(value == int(value) for value in counts):
        return _exact_flips({int(value): count for value, count in counts.items()}, round(observed))
    random = np.random.default_rng(seed)
    totals = np.zeros(RESAMPLES)
    for value, count in sorted(counts.items()):
        totals += value * (2 * random.binomial(count, 0.5, RESAMPLES) - count)
    return float((1 + (np.abs(totals) >= observed * (1 - 1e-12)).sum()) / (1 + RESAMPLES))


def _exact_flips(counts: Mapping[int, int], observed: int) -> float:
    """The distribution of the flipped total, as a convolution of one binomial for each absolute sum."""
    reach = sum(value * count for value, count in counts.items())
    distribution = np.ones(1)
    for value, count in sorted(counts.items()):
        spread = np.zeros(2 * value * count + 1)
        spread[:: 2 * value] = fair_tosses(count)
        distribution = np.convolve(distribution, spread)
    extreme = np.abs(np.arange(-reach, reach + 1)) >= observed
    return min(1.0, float(distribution[extreme].sum()))
