"""The sign-flip test for paired values, by item or by cluster."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gguf_eval.analysis.statistics import fair_tosses

DRAWS = 4_000
"""Of signs, where the values are no whole numbers."""


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
    totals = np.zeros(DRAWS)
    for value, count in sorted(counts.items()):
        totals += value * (2 * random.binomial(count, 0.5, DRAWS) - count)
    return float((1 + (np.abs(totals) >= observed * (1 - 1e-12)).sum()) / (1 + DRAWS))


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
