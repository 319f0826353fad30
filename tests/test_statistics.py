"""Intervals, tests and summaries against slow definitions and published values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import point, record
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from gguf_eval.analysis.comparison import Comparison, Pairs, add_pairs, compare, count_pairs
from gguf_eval.analysis.recommend import conclude
from gguf_eval.analysis.statistics import (
    holm,
    mcnemar_exact,
    mean_and_deviation,
    normal_quantile,
    paired_difference,
    wilson,
)
from gguf_eval.analysis.summary import PointSummary, StudySummary, choose_reference, summarise
from gguf_eval.store.records import PointRecord, SpeedRecord

counts = st.integers(0, 400)

# Intervals


def test_normal_quantile() -> None:
    assert normal_quantile() == pytest.approx(1.959963984540054)
    assert normal_quantile(0.9) == pytest.approx(1.6448536269514722)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(successes: int, n: int, low: float, high: float) -> None:
    estimate = wilson(successes, n)
    assert estimate is not None
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)
    assert estimate.value == successes / n
    assert (estimate.n, estimate.unscored, estimate.method) == (n, 0, "wilson")


@given(successes=counts, failures=counts, confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(successes: int, failures: int, confidence: float) -> None:
    n = successes + failures
    estimate = wilson(successes, n, unscored=3, confidence=confidence)
    if n == 0:
        assert estimate is None
        return
    assert estimate is not None
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.unscored == 3


def bonett_price(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Bonett and Price (2012): Laplace-adjusted shares of the two kinds of change, and a Wald interval around them."""
    p12 = (gained + 1) / (n + 2)
    p21 = (lost + 1) / (n + 2)
    variance = (p12 + p21 - (p12 - p21) ** 2) / (n + 2)
    half = norm.ppf(0.975) * math.sqrt(variance)
    return (p12 - p21) - half, (p12 - p21) + half


@given(gained=counts, lost=counts, same=counts)
def test_paired_difference_is_bonett_and_prices(gained: int, lost: int, same: int) -> None:
    n = gained + lost + same
    estimate = paired_difference(gained, lost, n)
    if n == 0:
        assert estimate is None
        return
    assert estimate is not None
    low, high = bonett_price(gained, lost, n)
    assert estimate.value == pytest.approx((gained - lost) / n)
    assert (estimate.low, estimate.high) == pytest.approx((max(-1, low), min(1, high)), abs=1e-12)
    assert -1 <= estimate.low <= estimate.high <= 1
    swapped = paired_difference(lost, gained, n)
    assert swapped is not None
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((-estimate.value, -estimate.high, -estimate.low))


@pytest.mark.parametrize(
    ("up", "down", "n"), [(0.05, 0.05, 200), (0.1, 0.05, 50), (0.02, 0.08, 400), (0.15, 0.0, 100), (0.3, 0.1, 30)]
)
def test_paired_difference_covers_the_truth(up: float, down: float, n: int) -> None:
    draws = np.random.default_rng(11).multinomial(n, [up, down, 1 - up - down], 20_000)
    kinds, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    covered = 0
    for (gained, lost), count in zip(kinds.tolist(), times.tolist(), strict=True):
        estimate = paired_difference(gained, lost, n)
        assert estimate is not None
        covered += count * (estimate.low <= up - down <= estimate.high)
    assert covered / 20_000 >= 0.93
    if n >= 100:  # with few changed items the added one of each kind makes it conservative: 97.4 % at n = 50
        assert covered / 20_000 <= 0.97


# Tests


def slow_mcnemar(gained: int, lost: int) -> float:
    """Probability, with a fair coin for each changed item, of a split that is no more probable than this one."""
    n = gained + lost
    ways = [math.comb(n, k) for k in range(n + 1)]
    return float(sum(way for way in ways if way <= ways[gained]) / 2**n)


@given(gained=st.integers(0, 60), lost=st.integers(0, 60))
def test_mcnemar_is_its_definition(gained: int, lost: int) -> None:
    p_value = mcnemar_exact(gained, lost)
    assert p_value == pytest.approx(slow_mcnemar(gained, lost), rel=1e-9)
    assert p_value == pytest.approx(mcnemar_exact(lost, gained))
    assert 0 < p_value <= 1 + 1e-12


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(5, 5) == pytest.approx(1)
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_exact(0, 6) == pytest.approx(2 / 64)
    assert mcnemar_exact(1, 9) == pytest.approx(2 * (1 + 10) / 1024)


def test_holm_by_hand() -> None:
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04 raised to the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.01, 0.01, 0.01]) == pytest.approx([0.03, 0.03, 0.03])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    rejected = set()
    remaining = list(range(len(p_values)))
    while remaining:
        smallest = min(remaining, key=lambda i: p_values[i])
        if p_values[smallest] * len(remaining) > alpha:
            break
        rejected.add(smallest)
        remaining.remove(smallest)
    adjusted = holm(p_values)
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected
    assert all(old <= new <= 1 for old, new in zip(p_values, adjusted, strict=True))


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([3.0]) == (3.0, None)
    mean, deviation = mean_and_deviation([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert mean == 5.0
    assert deviation == pytest.approx(math.sqrt(32 / 7))


# Pairs and verdicts


def test_pairs_leave_unscored_items_out_and_count_them() -> None:
    reference = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0, "e": None, "f": 1.0, "g": None, "x": 1.0}
    candidate = {"a": 1.0, "b": 0.0, "c": 1.0, "d": 0.0, "e": 1.0, "f": None, "g": None, "y": 0.0}
    # pairs: a, b, c, d. One side only: e and y here, f and x there. g is scored on neither side.
    assert count_pairs(candidate, reference) == Pairs(n=4, gained=1, lost=1, left_out=4)
    assert count_pairs(reference, candidate) == Pairs(n=4, gained=1, lost=1, left_out=4)
    assert count_pairs({}, reference) == Pairs(0, 0, 0, 6)


def test_pairs_add_up() -> None:
    assert add_pairs([]) == Pairs(0, 0, 0, 0)
    assert add_pairs([Pairs(10, 1, 2, 3), Pairs(20, 4, 5, 6)]) == Pairs(30, 5, 7, 9)


def verdict(gained: int, lost: int, n: int, *, margin: float = 0.01) -> str:
    return compare("F16", {1: Pairs(n, gained, lost, 0)}, margin=margin)[1].verdict


@pytest.mark.parametrize(
    ("gained", "lost", "n", "expected"),
    [
        (0, 5, 200, "undecided"),  # p = 0.0625
        (0, 6, 200, "worse"),  # p = 0.03125
        (5, 0, 200, "undecided"),
        (6, 0, 200, "better"),
        (0, 0, 200, "undecided"),  # no difference seen, but too few items to say the same
        (0, 0, 273, "undecided"),  # half width z * sqrt(2) / (n + 2): 0.01 is reached between 275 and 276
        (0, 0, 275, "undecided"),
        (0, 0, 276, "same"),
        (10, 10, 200, "undecided"),
    ],
)
def test_verdicts_at_their_borders(gained: int, lost: int, n: int, expected: str) -> None:
    assert verdict(gained, lost, n) == expected


def test_a_significant_difference_inside_the_margin_is_the_same() -> None:
    assert mcnemar_exact(0, 8) < 0.05
    assert verdict(0, 8, 10_000) == "same"
    assert verdict(0, 8, 10_000, margin=0.0001) == "worse"


def test_verdicts_are_corrected_for_the_number_of_points() -> None:
    alone = compare("F16", {1: Pairs(200, 0, 6, 0)})
    among = compare("F16", {1: Pairs(200, 0, 6, 0), 2: Pairs(200, 3, 3, 0), 3: Pairs(0, 0, 0, 9)})
    assert alone[1].p_value == pytest.approx(1 / 32)
    assert alone[1].verdict == "worse"
    assert set(among) == {1, 2}  # no common item, no comparison; and no part in the correction
    assert among[1].p_value == pytest.approx(2 / 32)
    assert among[1].verdict == "undecided"
    assert (among[1].reference, among[1].gained, among[1].lost) == ("F16", 0, 6)


# Summaries of a study


def study(points: list[PointRecord], items: int = 6) -> StudySummary:
    return summarise(record(*points, items=items))


def by_level(summary: StudySummary) -> dict[str, PointSummary]:
    return {entry.level: entry for entry in summary.points}


def test_unscored_items_are_counted_and_in_no_mean() -> None:
    summary = by_level(study([point(1, "F16", 16, {"t1": "1!0?", "t2": "????"})]))["F16"]
    first, second = summary.tasks["t1"], summary.tasks["t2"]
    assert first.estimate == wilson(2, 3, unscored=1)
    assert first.metrics["acc_norm"] == wilson(3, 3, unscored=1)
    assert (first.unscored, first.truncated, first.chance) == (1, 1, 0.25)
    assert second.estimate is None
    assert second.metrics == {}
    assert (second.unscored, second.chance) == (4, 0.5)


def test_the_reference_is_the_point_of_most_bits_that_has_answers() -> None:
    failed = point(1, "F32", 32, {}, status="failed")
    full = point(2, "F16", 16, {"t1": "1111"})
    small = point(3, "Q4_0", 4.5, {"t1": "1110"})
    assert choose_reference([failed, small, full]) is full
    assert choose_reference([failed]) is None
    summary = study([small, failed, full])
    assert [entry.level for entry in summary.points] == ["F16", "F32", "Q4_0"]  # the reference first, then most bits
    assert [entry.is_reference for entry in summary.points] == [True, False, False]


def test_comparisons_are_over_common_items() -> None:
    levels = by_level(
        study(
            [
                point(1, "F16", 16, {"t1": "1111?0", "t2": "11"}),
                point(2, "Q8_0", 8.5, {"t1": "1110??", "t2": "01"}),
            ]
        )
    )
    reference, candidate = levels["F16"], levels["Q8_0"]
    assert reference.overall is None
    assert reference.tasks["t1"].comparison is None
    first = candidate.tasks["t1"].comparison
    assert first is not None
    assert (first.reference, first.gained, first.lost, first.difference.n, first.left_out) == ("F16", 0, 1, 4, 1)
    assert candidate.overall is not None
    assert (candidate.overall.lost, candidate.overall.difference.n) == (2, 6)
    assert candidate.overall.difference == paired_difference(0, 2, 6)


def test_a_failed_point_has_no_figures() -> None:
    levels = by_level(
        study([point(1, "F16", 16, {"t1": "11"}), point(2, "Q2_K", 2.6, {}, status="failed", error="killed")]),
    )
    failed = levels["Q2_K"]
    assert (failed.status, failed.error) == ("failed", "killed")
    assert (failed.tasks, failed.overall, failed.speed, failed.peak_rss_bytes) == ({}, None, {}, None)


def test_only_failed_points() -> None:
    summary = study(
        [point(1, "F16", 16, {}, status="failed"), point(2, "Q2_K", 2.6, {}, status="failed", error="killed")]
    )
    assert not any(entry.is_reference for entry in summary.points)
    assert conclude(summary) == []


def test_models_have_references_of_their_own() -> None:
    summary = study(
        [
            point(1, "F16", 16, {"t1": "1111"}, model="a"),
            point(2, "F16", 16, {"t1": "0000"}, model="b"),
            point(3, "Q4_0", 4.5, {"t1": "0000"}, model="a"),
            point(4, "Q4_0", 4.5, {"t1": "0000"}, model="b"),
        ]
    )
    lost = {(p.model, p.level): p.overall.lost for p in summary.points if p.overall}
    assert lost == {("a", "Q4_0"): 4, ("b", "Q4_0"): 0}
    assert [entry.model for entry in summary.points] == ["a", "a", "b", "b"]


def test_speed_is_the_mean_of_the_rates() -> None:
    speed = (SpeedRecord("pp512", 512, (1.0, 2.0)), SpeedRecord("tg128", 128, (4.0,)))
    summary = study([point(1, "F16", 16, {"t1": "1"}, speed=speed)]).points[0].speed
    assert summary["pp512"].tokens_per_second == 384  # the mean of 512 and 256, not 1024 tokens in 3 seconds
    assert summary["pp512"].stdev == pytest.approx(256 / math.sqrt(2))
    assert summary["pp512"].repetitions == 2
    assert (summary["tg128"].tokens_per_second, summary["tg128"].stdev) == (32, None)


# The recommendation


def ladder() -> list[PointRecord]:
    """F16, Q8_0 that answers alike, Q2_K that is plainly worse, on 40 items."""
    right = "1" * 30 + "0" * 10
    return [
        point(1, "F16", 16, {"t1": right}, peak_rss_bytes=1600, speed=(SpeedRecord("tg128", 128, (4.0,)),)),
        point(2, "Q8_0", 8.5, {"t1": right}, peak_rss_bytes=850, speed=(SpeedRecord("tg128", 128, (2.0,)),)),
        point(3, "Q2_K", 2.6, {"t1": "0" * 30 + "0" * 10}, peak_rss_bytes=260),
    ]


def test_the_smallest_point_that_is_not_worse_is_chosen() -> None:
    (conclusion,) = conclude(study(ladder(), items=40))
    assert conclusion.choice is not None
    assert conclusion.choice.level == "Q8_0"
    assert [entry.level for entry in conclusion.worse] == ["Q2_K"]
    assert conclusion.memory_ratio == 850 / 1600
    assert conclusion.generation_ratio == 2


def test_partial_points_are_not_chosen() -> None:
    first, second, third = ladder()
    (conclusion,) = conclude(study([first, replace(second, status="partial"), third], items=40))
    assert conclusion.choice is not None
    assert conclusion.choice.level == "F16"
    assert conclusion.memory_ratio == 1


def test_the_reference_is_chosen_when_all_others_are_worse() -> None:
    first, _, third = ladder()
    (conclusion,) = conclude(study([first, third], items=40))
    assert conclusion.choice is not None
    assert conclusion.choice.is_reference
    assert conclude(study([first], items=40)) == []


def test_comparison_records_are_plain() -> None:
    comparison = compare("F16", {7: Pairs(10, 1, 2, 3)})[7]
    assert isinstance(comparison, Comparison)
    assert comparison.left_out == 3
    assert comparison.verdict == "undecided"
