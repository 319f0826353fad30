"""Bootstrap, sign-flip test, macro-averages and verdicts by cluster, against slow definitions and by simulation."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_eval.analysis.comparison import Pairs, add_pairs, compare, count_pairs, items_to_settle
from gguf_eval.analysis.resampling import (
    bootstrap_difference,
    item_count,
    macro_average,
    macro_difference,
    mean_of,
    resampled_means,
    sign_flip_test,
)
from gguf_eval.analysis.statistics import Estimate, mcnemar_exact, paired_difference

scores = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]), st.integers(0, 4)), max_size=40)


def kinds_of(values: list[float]) -> dict[tuple[float, int], int]:
    return dict(Counter((value, 1) for value in values))


def test_resamples_are_those_of_the_slow_definition() -> None:
    """Clusters drawn with replacement, one by one: the same centre, spread and quantiles."""
    random = np.random.default_rng(5)
    clusters = [random.integers(-1, 2, size) for size in random.integers(1, 6, 80)]
    kinds = dict(Counter((float(part.sum()), len(part)) for part in clusters))
    fast = resampled_means(kinds, added=())
    slow = []
    for _ in range(6_000):
        drawn = [clusters[i] for i in random.integers(0, len(clusters), len(clusters))]
        slow.append(np.concatenate(drawn).mean())
    stretch = math.sqrt(80 / 79)
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.004)
    assert fast.std() == pytest.approx(np.std(slow) * stretch, rel=0.05)
    assert np.quantile(fast, [0.025, 0.975]) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.012)
    assert mean_of(kinds) == pytest.approx(np.concatenate(clusters).mean())
    assert item_count(kinds) == sum(len(part) for part in clusters)


def test_many_kinds_are_drawn_alike() -> None:
    """Graded scores have as many kinds as items and take the other way of drawing."""
    values = np.random.default_rng(1).normal(0.05, 0.2, 400).clip(-1, 1)
    means = resampled_means(kinds_of(values.tolist()), added=())
    assert means.mean() == pytest.approx(values.mean(), abs=0.001)
    assert means.std() == pytest.approx(values.std(ddof=1) / 20, rel=0.05)


def test_single_items_give_the_closed_form() -> None:
    for gained, lost, n in ((20, 30, 400), (5, 40, 200), (100, 90, 1000)):
        closed = paired_difference(gained, lost, n)
        drawn = bootstrap_difference({(1.0, 1): gained, (-1.0, 1): lost, (0.0, 1): n - gained - lost})
        assert closed is not None
        assert drawn is not None
        assert drawn.value == pytest.approx(closed.value)
        assert (drawn.low, drawn.high) == pytest.approx((closed.low, closed.high), abs=0.3 / math.sqrt(n) * 0.1 + 0.001)


@pytest.mark.parametrize(("clusters", "size", "shared"), [(60, 4, 0.8), (120, 3, 0.5), (200, 1, 0.0)])
def test_intervals_by_cluster_cover_the_truth(clusters: int, size: int, shared: float) -> None:
    """Items of a cluster change together with probability ``shared``; the truth is in 93-97 % of the intervals."""
    random = np.random.default_rng(7)
    covered = 0
    rounds = 600
    for _ in range(rounds):
        own = random.choice([1.0, -1.0, 0.0], (clusters, size), p=[0.1, 0.2, 0.7])
        common = random.choice([1.0, -1.0, 0.0], (clusters, 1), p=[0.1, 0.2, 0.7])
        values = np.where(random.random((clusters, 1)) < shared, common, own)
        estimate = bootstrap_difference(dict(Counter((float(total), size) for total in values.sum(axis=1))))
        assert estimate is not None
        covered += estimate.low <= -0.1 <= estimate.high
    assert 0.93 <= covered / rounds <= 0.97


def test_ignoring_clusters_would_promise_too_much() -> None:
    together = {(4.0, 4): 10, (-4.0, 4): 10, (0.0, 4): 30}
    apart = {(1.0, 1): 40, (-1.0, 1): 40, (0.0, 1): 120}
    wide, narrow = bootstrap_difference(together), bootstrap_difference(apart)
    assert wide is not None
    assert narrow is not None
    assert wide.method == "bootstrap-by-cluster"
    assert narrow.method == "bootstrap-by-item"
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.1)


@settings(max_examples=25)
@given(scores)
def test_swapping_the_points_negates_everything(rows: list[tuple[float, float, int]]) -> None:
    first = {str(i): row[0] for i, row in enumerate(rows)}
    second = {str(i): row[1] for i, row in enumerate(rows)}
    clusters = {str(i): f"c{row[2]}" if row[2] else "" for i, row in enumerate(rows)}
    there, back = count_pairs(first, second, clusters), count_pairs(second, first, clusters)
    assert (there.gained, there.lost, there.n) == (back.lost, back.gained, back.n)
    one, two = compare("b", {1: there}), compare("a", {1: back})
    assert set(one) == set(two)
    for key, forward in one.items():
        backward = two[key]
        assert forward.difference.value == -backward.difference.value
        assert forward.difference.low == pytest.approx(-backward.difference.high, abs=1e-12)
        assert forward.difference.high == pytest.approx(-backward.difference.low, abs=1e-12)
        assert forward.p_value == pytest.approx(backward.p_value)
        turned = {"better": "worse", "worse": "better"}.get(forward.verdict, forward.verdict)
        assert backward.verdict == turned
        assert forward.items_to_settle == backward.items_to_settle


@settings(max_examples=25)
@given(scores, st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(rows: list[tuple[float, float, int]], random: object) -> None:
    keys = [str(i) for i in range(len(rows))]
    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    results = []
    for order in (keys, shuffled):
        pairs = count_pairs(
            {key: rows[int(key)][0] for key in order},
            {key: rows[int(key)][1] for key in reversed(order)},
            {key: f"c{rows[int(key)][2]}" for key in order},
        )
        results.append(compare("b", {1: pairs}))
    assert results[0] == results[1]


# The test by cluster


def slow_sign_flips(sums: list[float]) -> float:
    observed = abs(sum(sums))
    flips = list(itertools.product((1, -1), repeat=len(sums)))
    extreme = sum(abs(sum(s * f for s, f in zip(sums, flip, strict=True))) >= observed - 1e-9 for flip in flips)
    return extreme / len(flips)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_sign_flips_are_their_definition(sums: list[int]) -> None:
    counted = dict(Counter(float(value) for value in sums))
    assert sign_flip_test(counted) == pytest.approx(slow_sign_flips([float(value) for value in sums]))
    assert sign_flip_test({-value: count for value, count in counted.items()}) == pytest.approx(sign_flip_test(counted))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_sign_flips_of_single_items_are_mcnemars_test(gained: int, lost: int, same: int) -> None:
    assert sign_flip_test({1.0: gained, -1.0: lost, 0.0: same}) == pytest.approx(mcnemar_exact(gained, lost))


def test_sign_flips_of_graded_scores() -> None:
    sums = [0.31, -0.2, 0.45, 0.12, 0.05, 0.6, -0.11, 0.22, 0.4, 0.33]
    drawn = sign_flip_test(dict(Counter(sums)))
    assert drawn == pytest.approx(slow_sign_flips(sums), abs=0.01)
    assert drawn > 0


# Pairs by cluster, graded scores, verdicts


def test_pairs_by_cluster() -> None:
    reference = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0, "e": 1.0}
    candidate = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0, "e": None}
    pairs = count_pairs(candidate, reference, {"a": "p", "b": "p", "c": "q", "e": "p"})
    assert pairs == Pairs(n=4, gained=1, lost=2, left_out=1)
    assert pairs.kinds == {(-2.0, 2): 1, (1.0, 1): 1, (0.0, 1): 1}
    compared = compare("F16", {1: pairs})[1]
    assert compared.clusters == 3
    assert compared.difference.method == "bootstrap-by-cluster"
    assert compared.p_value == pytest.approx(slow_sign_flips([-2, 1, 0]))


def test_graded_scores_are_compared_by_their_size() -> None:
    pairs = count_pairs({"a": 0.5, "b": 0.25}, {"a": 0.75, "b": 0.0})
    assert (pairs.gained, pairs.lost, pairs.n) == (1, 1, 2)
    assert pairs.kinds == {(-0.25, 1): 1, (0.25, 1): 1}
    compared = compare("F16", {1: pairs})[1]
    assert compared.difference.value == 0
    assert compared.clusters is None


def test_pairs_of_several_tasks_keep_their_clusters() -> None:
    total = add_pairs([Pairs(10, 2, 1, 0), Pairs(4, 0, 2, 1, {(-2.0, 2): 1, (0.0, 1): 2})])
    assert total == Pairs(14, 2, 3, 1)
    assert total.kinds == {(1.0, 1): 2, (-1.0, 1): 1, (0.0, 1): 9, (-2.0, 2): 1}
    assert item_count(total.kinds) == 14


def test_an_undecided_comparison_says_how_many_items_would_settle_it() -> None:
    # Shares stay: 4 % gained, 6 % lost. Worse needs a half interval of 2 points.
    undecided = compare("F16", {1: Pairs(200, 8, 12, 0)})[1]
    assert undecided.verdict == "undecided"
    assert undecided.items_to_settle is not None
    needed = undecided.items_to_settle
    assert compare("F16", {1: Pairs(needed, round(0.04 * needed), round(0.06 * needed), 0)})[1].verdict != "undecided"
    half = needed // 2
    assert compare("F16", {1: Pairs(half, round(0.04 * half), round(0.06 * half), 0)})[1].verdict == "undecided"
    assert compare("F16", {1: Pairs(10_000, 8, 12, 0)})[1].items_to_settle is None  # the same
    nothing = Estimate(0.0, -0.02, 0.02, 100, 0, "by hand")
    assert items_to_settle(nothing, 0.01, 1) == 400
    assert items_to_settle(nothing, 0.0, 1) is None


# Macro-averages


def test_every_task_counts_once_in_a_macro_average() -> None:
    small = {(1.0, 1): 8, (0.0, 1): 2}
    large = {(1.0, 1): 300, (0.0, 1): 700}
    average = macro_average([small, large, {}])
    assert average is not None
    assert average.value == pytest.approx((0.8 + 0.3) / 2)
    assert average.n == 1010
    deviation = math.sqrt(0.8 * 0.2 / 10 + 0.3 * 0.7 / 1000) / 2
    assert average.high - average.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    assert macro_average([]) is None
    assert macro_difference([{}]) is None


def test_macro_intervals_cover_the_truth() -> None:
    random = np.random.default_rng(3)
    truth = (-0.05 + 0.02) / 2
    covered = 0
    for _ in range(600):
        first = random.multinomial(150, [0.05, 0.10, 0.85])
        second = random.multinomial(400, [0.07, 0.05, 0.88])
        tasks = [dict(zip([(1.0, 1), (-1.0, 1), (0.0, 1)], map(int, draw), strict=True)) for draw in (first, second)]
        estimate = macro_difference(tasks)
        assert estimate is not None
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / 600 <= 0.97
