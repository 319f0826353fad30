"""Intervals, sign-flip test and verdicts by item, cluster and task, against slow definitions and by simulation."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_eval.analysis.comparison import Pairs, add_pairs, compare, count_pairs, items_to_settle
from gguf_eval.analysis.intervals import hall, item_count, macro_average, macro_difference, mean_interval, spread_of
from gguf_eval.analysis.sign_flips import sign_flip_test
from gguf_eval.analysis.statistics import Estimate, mcnemar_exact, paired_difference, wilson

scores = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]), st.integers(0, 4)), max_size=40)


CHANGES = ((1.0, 1), (-1.0, 1), (0.0, 1))


def kinds_of(values: list[float]) -> dict[tuple[float, int], int]:
    return dict(Counter((value, 1) for value in values))


def test_moments_are_their_slow_definition() -> None:
    """Every cluster by itself: what it adds to the mean over the tasks, and powers of that."""
    random = np.random.default_rng(5)
    tasks = [[random.integers(-1, 2, size) for size in random.integers(1, 6, count)] for count in (30, 12)]
    found = spread_of([dict(Counter((float(part.sum()), len(part)) for part in task)) for task in tasks])
    means = [np.concatenate(task).mean() for task in tasks]
    added = [
        [(part.sum() - mean * len(part)) / sum(map(len, task)) / 2 for part in task]
        for task, mean in zip(tasks, means, strict=True)
    ]
    variances = [sum(x**2 for x in task) * len(task) / (len(task) - 1) for task in added]
    assert found.value == pytest.approx(np.mean(means))
    assert found.variance == pytest.approx(sum(variances))
    assert found.cubes == pytest.approx(sum(x**3 for task in added for x in task))
    assert found.clusters == pytest.approx(4 / (1 / 30 + 1 / 12))
    satterthwaite = sum(variances) ** 2 / (variances[0] ** 2 / 29 + variances[1] ** 2 / 11)
    squares = sum(x**2 for task in added for x in task)
    of_squares = sum(sum(x**4 for x in task) - sum(x**2 for x in task) ** 2 / len(task) for task in added)
    assert found.freedom == pytest.approx(min(satterthwaite, 2 * squares**2 / of_squares))
    changes = [part.sum() / sum(map(len, task)) / 2 for task in tasks for part in task if part.sum()]
    assert found.change == pytest.approx(np.mean(np.square(changes)))


def test_halls_interval_undoes_his_cubic() -> None:
    low, high = hall(0.3, 0.02**2, 0.8 * 0.02**3, 2.1)
    for bound, quantile in ((low, 2.1), (high, -2.1)):
        t, x = (0.3 - bound) / 0.02, 0.8 / 3
        assert t + x * t**2 + x**2 * t**3 / 3 + x / 2 == pytest.approx(quantile)
    assert 0.3 - low < high - 0.3  # the truth may lie further up where the tail is above
    assert hall(0.3, 0.02**2, 0.0, 2.0) == pytest.approx((0.26, 0.34))
    assert hall(-0.3, 0.02**2, -0.8 * 0.02**3, 2.1) == (-high, -low)
    assert hall(0.3, 0.0, 0.0, 2.0) == (0.3, 0.3)


def test_the_effective_size_of_shares_is_their_number() -> None:
    """One share in tasks of one size: their pooled Wilson interval, but for the t-distribution and n / (n - 1)."""
    tasks = [{(1.0, 1): 300, (0.0, 1): 100}] * 5
    estimate, pooled = macro_average(tasks), wilson(1500, 2000)
    assert estimate is not None
    assert pooled is not None
    assert (estimate.low, estimate.high) == pytest.approx((pooled.low, pooled.high), abs=1e-4)
    assert macro_average([{(1.0, 1): 3, (0.0, 1): 9}], unscored=2) == wilson(3, 12, unscored=2)
    right = macro_average([{(1.0, 1): 10}, {(1.0, 1): 10}])
    assert right is not None
    whole = wilson(20, 20)
    assert whole is not None
    assert (right.value, right.low, right.high) == pytest.approx((1.0, whole.low, 1.0))


def test_graded_scores_have_the_interval_of_their_own_spread() -> None:
    """chrF-like scores vary a fifth as much as shares of the same mean: about Student's interval."""
    values = np.random.default_rng(2).beta(6, 6, 100)
    estimate = macro_average([kinds_of(values.tolist())])
    assert estimate is not None
    half = 1.984 * values.std(ddof=1) / 10
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)
    assert estimate.method == "wilson-by-item"


def test_small_graded_differences_have_a_small_interval() -> None:
    """Added changes are of the size of those seen, not of a whole item."""
    values = np.random.default_rng(1).normal(-0.01, 0.03, 100)
    estimate = macro_difference([kinds_of(values.tolist())])
    assert estimate is not None
    assert estimate.high - estimate.low == pytest.approx(2 * 1.984 * values.std(ddof=1) / 10, rel=0.05)
    nothing = macro_difference([{(0.0, 1): 100}, {(0.0, 1): 50}])
    assert nothing is not None
    assert nothing.low == -nothing.high
    assert 0.01 < nothing.high < 0.05  # no change seen is not none possible


def test_single_right_or_wrong_items_have_the_closed_form() -> None:
    for gained, lost, n in ((20, 30, 400), (0, 4, 20)):
        assert macro_difference([{(1.0, 1): gained, (-1.0, 1): lost, (0.0, 1): n - gained - lost}]) == (
            paired_difference(gained, lost, n)
        )


def test_tasks_of_one_cluster() -> None:
    alone = macro_difference([{(0.5, 1): 1}])
    assert alone is not None
    assert (alone.low, alone.high) == (-1.0, 1.0)
    values = [0.2, 0.5, 0.1, 0.7, 0.4]
    apart = spread_of([{(value, 1): 1} for value in values])
    assert apart.variance == pytest.approx(np.var(values, ddof=1) / 5)
    assert apart.freedom <= 4
    mixed = spread_of([{(1.0, 1): 5, (0.0, 1): 5}, {(1.0, 1): 1}])
    of_a_cluster = np.var([1] * 5 + [0] * 5, ddof=1)
    assert mixed.variance == pytest.approx((of_a_cluster / 10 + of_a_cluster) / 4)


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
        estimate = macro_difference([dict(Counter((float(total), size) for total in values.sum(axis=1)))])
        assert estimate is not None
        covered += estimate.low <= -0.1 <= estimate.high
    assert 0.93 <= covered / rounds <= 0.97


def test_ignoring_clusters_would_promise_too_much() -> None:
    together = {(4.0, 4): 10, (-4.0, 4): 10, (0.0, 4): 30}
    apart = {(1.0, 1): 40, (-1.0, 1): 40, (0.0, 1): 120}
    wide, narrow = macro_difference([together]), macro_difference([apart])
    assert wide is not None
    assert narrow is not None
    assert wide.method == "hall-by-cluster"
    assert narrow.method == "paired-adjusted-wald"
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
def test_the_order_of_the_items_does_not_matter(rows: list[tuple[float, float, int]], random: Random) -> None:
    keys = [str(i) for i in range(len(rows))]
    shuffled = list(keys)
    random.shuffle(shuffled)
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
    assert pairs.cluster_counts == {(-2.0, 2): 1, (1.0, 1): 1, (0.0, 1): 1}
    compared = compare("F16", {1: pairs})[1]
    assert compared.clusters == 3
    assert compared.difference.method == "hall-by-cluster"
    assert compared.p_value == pytest.approx(slow_sign_flips([-2, 1, 0]))


def test_graded_scores_are_compared_by_their_size() -> None:
    pairs = count_pairs({"a": 0.5, "b": 0.25}, {"a": 0.75, "b": 0.0})
    assert (pairs.gained, pairs.lost, pairs.n) == (1, 1, 2)
    assert pairs.cluster_counts == {(-0.25, 1): 1, (0.25, 1): 1}
    compared = compare("F16", {1: pairs})[1]
    assert compared.difference.value == 0
    assert compared.clusters is None


def test_pairs_of_several_tasks_keep_their_clusters() -> None:
    total = add_pairs([Pairs(10, 2, 1, 0), Pairs(4, 0, 2, 1, {(-2.0, 2): 1, (0.0, 1): 2})])
    assert total == Pairs(14, 2, 3, 1)
    assert total.cluster_counts == {(1.0, 1): 2, (-1.0, 1): 1, (0.0, 1): 9, (-2.0, 2): 1}
    assert item_count(total.cluster_counts) == 14


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
    deviation = math.sqrt(0.8 * 0.2 / 9 + 0.3 * 0.7 / 999) / 2
    student = 2.26  # nearly all of the spread is that of 10 items
    assert average.high - average.low == pytest.approx(2 * student * deviation, rel=0.05)
    assert macro_average([]) is None
    assert macro_difference([{}]) is None


@pytest.mark.parametrize(("tasks", "items"), [(57, 10), (25, 20), (5, 50)])
def test_scores_over_many_small_tasks_cover_the_truth(tasks: int, items: int) -> None:
    """What is added for answers not seen may pull no task to the middle: averaging would not remove it."""
    random = np.random.default_rng(11)
    shares = random.uniform(0.3, 0.99, tasks)
    gained, lost = random.uniform(0.0, 0.1, tasks), random.uniform(0.1, 0.3, tasks)
    covered, covered_difference, rounds = 0, 0, 500
    for _ in range(rounds):
        right = random.binomial(items, shares).tolist()
        score = macro_average([{(1.0, 1): count, (0.0, 1): items - count} for count in right])
        changes = random.multinomial(items, np.column_stack([gained, lost, 1 - gained - lost])).tolist()
        difference = macro_difference([dict(zip(CHANGES, counts, strict=True)) for counts in changes])
        assert score is not None
        assert difference is not None
        covered += score.low <= shares.mean() <= score.high
        covered_difference += difference.low <= (gained - lost).mean() <= difference.high
    assert 0.93 <= covered / rounds <= 0.97
    assert 0.93 <= covered_difference / rounds <= 0.97


@pytest.mark.parametrize("tasks", [1, 5])
def test_intervals_of_graded_scores_cover_the_truth(tasks: int) -> None:
    """Scores like F1: many nothing, some perfect; a third of them change. And differences like chrF's: small, all."""
    random = np.random.default_rng(12)
    covered, covered_sparse, covered_dense, rounds = 0, 0, 0, 500
    for _ in range(rounds):
        drawn = random.random((tasks, 60))
        scores = np.where(drawn < 0.4, 0.0, np.where(drawn < 0.6, 1.0, random.beta(2, 2, (tasks, 60))))
        dense = random.normal(-0.01, 0.03, (tasks, 60))
        sparse = np.where(random.random((tasks, 60)) < 0.3, random.normal(-0.02, 0.2, (tasks, 60)), 0.0)
        score = macro_average([kinds_of(values) for values in scores.tolist()])
        small, rare = (macro_difference([kinds_of(v) for v in table.tolist()]) for table in (dense, sparse))
        assert score is not None
        assert small is not None
        assert rare is not None
        covered += score.low <= 0.4 <= score.high
        covered_dense += small.low <= -0.01 <= small.high
        covered_sparse += rare.low <= -0.006 <= rare.high
    assert 0.93 <= covered / rounds <= 0.97
    assert 0.93 <= covered_dense / rounds <= 0.97
    assert 0.93 <= covered_sparse / rounds <= 0.97


def test_scores_by_cluster_cover_the_truth() -> None:
    """Items of a cluster are right together half of the time; taking them apart would cover 80 %."""
    random = np.random.default_rng(13)
    covered, rounds = 0, 500
    for _ in range(rounds):
        own = random.random((40, 5)) < 0.7
        values = np.where(random.random((40, 1)) < 0.5, random.random((40, 1)) < 0.7, own)
        estimate = macro_average([dict(Counter((float(total), 5) for total in values.sum(axis=1)))])
        assert estimate is not None
        assert estimate.method == "wilson-by-cluster"
        covered += estimate.low <= 0.7 <= estimate.high
    assert 0.93 <= covered / rounds <= 0.97


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


def test_values_whose_cubes_are_none_have_an_interval() -> None:
    sums = np.array([*[0.0] * 29, 2.5e-130])
    value, low, high = mean_interval(sums, np.ones(30))
    assert low <= value <= high
