"""Sums up a point's KL divergence from its reference on the right answers of a task.

An item's value is the mean over its answer's tokens, and every item counts once. The values are skewed to the right, so
that the interval is a bootstrap-t (Efron 1979; Hall 1988): the percentile bootstrap of such values covers too little.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_eval.analysis.comparison import cluster_kinds
from gguf_eval.analysis.divergence import Figure
from gguf_eval.analysis.resampling import Kinds
from gguf_eval.analysis.statistics import CONFIDENCE, normal_quantile
from gguf_eval.study.outcomes import scores
from gguf_eval.study.records import AnswerDivergences, PointRecord, TaskRecord

Values = npt.NDArray[np.float64]
QUANTILES = {"median": 0.5, "90%": 0.9, "99%": 0.99}
RESAMPLES = 2_000
MANY = 2_000
"""Clusters from which the interval is the normal distribution's."""
_LEAST_ERROR = 1e-6
"""Of the sample's standard error: a resample of less is one cluster again and again, and what it has is rounding."""
FEW = 4
"""Clusters from which there is an interval: of two it has no width, of three it covers 80 % of skewed values."""


@dataclass(frozen=True)
class TaskDivergence:
    """A point beside its reference on the right answers of one task; divergences in nats."""

    reference: str
    mean: Figure
    """Mean over the items of each item's mean over its answer's tokens."""
    method: str | None
    """Of the interval; None where there are so few items that there is none."""
    quantiles: dict[str, float]
    """Over items."""
    estimator_error: float
    """Standard error of the mean that comes from the drawn entries."""
    same_top: float
    """Share of the answers' tokens at which both find the same token most probable."""
    items: int
    tokens: int
    left_out: int
    """Items that both have a score for and that have no divergence."""
    reasons: dict[str, int]
    """Why, as far as it is known: how many items there are of each reason."""


def task_divergence(point: PointRecord, reference: PointRecord, task: TaskRecord) -> TaskDivergence | None:
    """The divergence of ``point`` from ``reference`` on one task; None where nothing is stored of it.

    Divergences from any other reference, or from another file or setting of the same name, do not count.
    """
    one = stored_divergences(point, reference, task.hash)
    if one is None:
        return None
    rows = zip(one.items, one.tokens, one.kld, one.kld_variance, one.same_top, strict=True)
    known = {item: (tokens, kld, variance, same) for item, tokens, kld, variance, same in rows
             if kld is not None and item in task.items}  # fmt: skip
    if not known:
        return None
    klds = {item: kld for item, (_, kld, _, _) in known.items()}
    values = np.array(list(klds.values()))
    tokens = sum(count for count, _, _, _ in known.values())
    mean, method = mean_with_interval(cluster_kinds(klds, task.clusters))
    return TaskDivergence(
        reference=reference.label,
        mean=mean,
        method=method,
        quantiles={name: float(np.quantile(values, share)) for name, share in QUANTILES.items()},
        estimator_error=math.sqrt(sum(variance for _, _, variance, _ in known.values())) / len(known),
        same_top=sum(same for _, _, _, same in known.values()) / tokens,
        items=len(known),
        tokens=tokens,
        left_out=len(_both_scored(point, reference, task) - known.keys()),
        reasons=dict(Counter(filter(None, one.reasons))),
    )


def stored_divergences(point: PointRecord, reference: PointRecord, task_hash: str) -> AnswerDivergences | None:
    """What the study has of the point beside this very reference: the same model file with the same settings."""
    for one in point.divergences.get(task_hash, ()):
        if (one.reference_sha256, one.reference_settings) == (reference.sha256, reference.settings):
            return one
    return None


def _both_scored(point: PointRecord, reference: PointRecord, task: TaskRecord) -> set[str]:
    first, second = (_scored(p.outcomes.get(task.hash, {})) for p in (point, reference))
    return first & second


def _scored(outcomes: Mapping[str, Any]) -> set[str]:
    return {item for item, value in scores(outcomes).items() if value is not None}


def mean_with_interval(kinds: Kinds) -> tuple[Figure, str | None]:
    """The mean of an item, with its 95 % interval by cluster and the interval's name; fewer than `FEW` have none.

    kinds: how many clusters there are of each (sum of the values, items); values are not negative.
    """
    ordered = sorted(kinds.items())
    counts = [count for _, count in ordered]
    sums, sizes = (np.repeat([kind[column] for kind, _ in ordered], counts).astype(np.float64) for column in (0, 1))
    mean, error = (float(value[0]) for value in _mean_and_error(np.ones((1, len(sums))), sums, sizes))
    clusters = "cluster" if (sizes > 1).any() else "item"
    if len(sums) < FEW:
        return Figure(mean, None, None), None
    if len(sums) >= MANY:
        half = normal_quantile() * error
        return Figure(mean, max(0.0, mean - half), mean + half), f"normal-by-{clusters}"
    means, errors = _mean_and_error(_weights(len(sums)), sums, sizes)
    varied = errors > _LEAST_ERROR * error
    ratios = (means[varied] - mean) / errors[varied]
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) if len(ratios) else (0.0, 0.0)
    bounds = max(0.0, mean - float(high) * error), mean - float(low) * error
    return Figure(mean, min(mean, bounds[0]), max(mean, bounds[1])), f"bootstrap-t-by-{clusters}"


def _mean_and_error(weights: Values, sums: Values, sizes: Values) -> tuple[Values, Values]:
    """Of each resample an item's mean, a ratio of sums over clusters, and its standard error (Cochran 1977, 11.29).

    weights: (resamples, clusters), how often each cluster is in a resample.
    """
    totals = weights @ np.stack([sums, sizes, sums**2, sums * sizes, sizes**2], axis=1)
    total, items, squares, products, size_squares = totals.T
    means = total / items
    spread = np.maximum(0.0, squares - 2 * means * products + means**2 * size_squares)
    clusters = len(sums)
    errors: Values = np.sqrt(spread * clusters / max(1, clusters - 1)) / items
    return means, errors


@lru_cache(maxsize=4)
def _weights(clusters: int) -> Values:
    """Resamples of so many clusters: the same for every task and point with as many."""
    random = np.random.default_rng(0)
    drawn: Values = random.multinomial(clusters, np.full(clusters, 1 / clusters), RESAMPLES).astype(np.float64)
    return drawn
