"""How probable a point finds right answers: the log score (Good 1952), proper, and finer than right or wrong.

An item's log score is the natural logarithm of the probability that the point gives its right choices, among its
choices, from their summed log-likelihoods; of a continuation, its log-likelihood. One that is less probable than
`LEAST` counts as that: sums over long choices reach tens of nats, and the mean would be that of a few items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gguf_eval.analysis.comparison import cluster_kinds
from gguf_eval.analysis.intervals import macro_difference
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.store.outcomes import read_whole
from gguf_eval.store.records import ItemRecord, Outcome, PointRecord, TaskRecord

LEAST = 0.001


def log_scores(point: PointRecord, task: TaskRecord) -> dict[str, float]:
    """Each item's log score in nats, by item hash; items that were written or could not be scored have none."""
    found = {}
    for key, outcome in read_whole(point.outcomes.get(task.hash, {})).items():
        item = task.items.get(key)
        value = _log_score(outcome, item) if item is not None else None
        if value is not None:
            found[key] = max(math.log(LEAST), value)
    return found


def _log_score(outcome: Outcome, item: ItemRecord) -> float | None:
    if outcome.value is None or outcome.text is not None or not outcome.logprobs:
        return None
    if len(outcome.logprobs) == 1:
        return outcome.logprobs[0]
    sums = np.array(outcome.logprobs)
    golds = list(item.golds or (item.gold,))
    if max(golds) >= len(sums) or not np.isfinite(sums).all():
        return None
    return float(np.logaddexp.reduce(sums[golds]) - np.logaddexp.reduce(sums))


def log_score_difference(
    scores: Mapping[str, Mapping[str, float]],
    reference_scores: Mapping[str, Mapping[str, float]],
    tasks: Sequence[TaskRecord],
) -> Estimate | None:
    """Mean over the tasks of a point's log score less its reference's, on common items, in nats; None without any.

    Both by task hash, then by item hash. The interval is of differences between -1 and 1: they are put in units of the
    largest.
    """
    differences = []
    for task in tasks:
        own, base = scores.get(task.hash, {}), reference_scores.get(task.hash, {})
        values = {key: value - base[key] for key, value in own.items() if key in base}
        if values:
            differences.append((task, values))
    unit = max((abs(value) for _, values in differences for value in values.values()), default=0.0) or 1.0
    parts = [
        cluster_kinds({key: value / unit for key, value in values.items()}, task.clusters)
        for task, values in differences
    ]
    found = macro_difference(parts)
    if found is None:
        return None
    return Estimate(found.value * unit, found.low * unit, found.high * unit, found.n, found.unscored, found.method)
