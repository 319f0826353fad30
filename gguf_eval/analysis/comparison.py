"""Compares a point with its reference on the items both answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gguf_eval.analysis.statistics import Estimate, holm, mcnemar_exact, paired_difference

Verdict = Literal["better", "worse", "same", "undecided"]
ALPHA = 0.05
MARGIN = 0.01
"""Differences inside this (one point) are called the same, when the whole interval is inside."""


@dataclass(frozen=True)
class Pairs:
    """Items that both points answered."""

    n: int
    gained: int
    """Wrong at the reference, right here."""
    lost: int
    """Right at the reference, wrong here."""
    left_out: int
    """Items that only one of the two has a scored answer to."""


@dataclass(frozen=True)
class Comparison:
    """A point against its reference."""

    reference: str
    difference: Estimate
    gained: int
    lost: int
    left_out: int
    p_value: float
    """Exact McNemar, corrected by Holm for the points compared."""
    verdict: Verdict


def count_pairs(candidate: Mapping[str, float | None], reference: Mapping[str, float | None]) -> Pairs:
    """Pair the items by their hash; values are 1 right, 0 wrong, None unscored."""
    n = gained = lost = 0
    for key, value in candidate.items():
        other = reference.get(key)
        if value is not None and other is not None:
            n += 1
            gained += value > other
            lost += value < other
    scored = sum(value is not None for value in candidate.values())
    scored_reference = sum(value is not None for value in reference.values())
    return Pairs(n, gained, lost, scored + scored_reference - 2 * n)


def add_pairs(parts: Iterable[Pairs]) -> Pairs:
    """The pairs of several tasks together."""
    total = Pairs(0, 0, 0, 0)
    for part in parts:
        total = Pairs(
            total.n + part.n, total.gained + part.gained, total.lost + part.lost, total.left_out + part.left_out
        )
    return total


def compare(reference: str, pairs: Mapping[int, Pairs], *, margin: float = MARGIN) -> dict[int, Comparison]:
    """Compare several points with one reference; points without a common item are left out.

    Better or worse needs a corrected p below 0.05; the same needs the whole interval inside the margin; all else is
    undecided.
    """
    usable = {point: counted for point, counted in pairs.items() if counted.n}
    raw = [mcnemar_exact(counted.gained, counted.lost) for counted in usable.values()]
    comparisons = {}
    for (point, counted), p_value in zip(usable.items(), holm(raw), strict=True):
        difference = paired_difference(counted.gained, counted.lost, counted.n)
        assert difference is not None
        comparisons[point] = Comparison(
            reference, difference, counted.gained, counted.lost, counted.left_out, p_value,
            _verdict(difference, p_value, margin),
        )  # fmt: skip
    return comparisons


def _verdict(difference: Estimate, p_value: float, margin: float) -> Verdict:
    if -margin <= difference.low and difference.high <= margin:
        return "same"
    if p_value < ALPHA:
        return "better" if difference.value > 0 else "worse"
    return "undecided"
