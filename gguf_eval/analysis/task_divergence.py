"""Sums up a point's KL divergence from its reference on the right answers of a task.

An item's value is the mean over its answer's tokens, and every item counts once. The values are skewed to the right, so
that the interval is Hall's (`gguf_eval.analysis.intervals`): a symmetric one would miss above.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from gguf_eval.analysis.divergence import Figure
from gguf_eval.analysis.intervals import FEW, ClusterCounts, cluster_counts, hall, interval_unit, mean_of, spread_of
from gguf_eval.analysis.statistics import t_quantile
from gguf_eval.store.outcomes import scored
from gguf_eval.store.records import AnswerDivergences, PointRecord, TaskRecord

QUANTILES = {"median": 0.5, "90%": 0.9, "99%": 0.99}


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
    rows = zip(one.items, one.kld, one.tokens, one.kld_variance, one.same_top, strict=True)
    known = [row for row in rows if row[1] is not None and row[0] in task.items]
    if not known:
        return None
    items, values, tokens, variances, same = zip(*known, strict=True)
    both = scored(point.answers_to(task)).keys() & scored(reference.answers_to(task)).keys()
    mean, method = mean_with_interval(cluster_counts(dict(zip(items, values, strict=True)), task.clusters))
    return TaskDivergence(
        reference=reference.label,
        mean=mean,
        method=method,
        quantiles={name: float(np.quantile(values, share)) for name, share in QUANTILES.items()},
        estimator_error=math.sqrt(sum(variances)) / len(known),
        same_top=sum(same) / sum(tokens),
        items=len(known),
        tokens=sum(tokens),
        left_out=len(both - set(items)),
        reasons=dict(Counter(filter(None, one.reasons))),
    )


def stored_divergences(point: PointRecord, reference: PointRecord, task_hash: str) -> AnswerDivergences | None:
    """What the study has of the point beside this very reference: the same model file with the same settings."""
    for one in point.divergences.get(task_hash, ()):
        if (one.reference_sha256, one.reference_settings) == (reference.sha256, reference.settings):
            return one
    return None


def mean_with_interval(counts: ClusterCounts) -> tuple[Figure, str | None]:
    """The mean of an item, with its 95 % interval by cluster and the interval's name; fewer than `FEW` have none.

    counts: how many clusters there are of each (sum of the values, items); values are not negative.
    """
    if sum(counts.values()) < FEW:
        return Figure(mean_of(counts), None, None), None
    found = spread_of([counts])
    low, high = hall(found.value, found.variance, found.cubes, t_quantile(found.freedom))
    return Figure(found.value, max(0.0, low), high), f"hall-by-{interval_unit([counts])}"
