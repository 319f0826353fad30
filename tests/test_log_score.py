"""Log scores against their definition, and their paired differences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from builders import point, task
from hypothesis import given
from hypothesis import strategies as st

from gguf_eval.analysis.intervals import FEW
from gguf_eval.analysis.log_score import LEAST, log_score_difference, log_scores
from gguf_eval.store.records import Outcome, PointRecord, TaskRecord


def outcome(key: str, logprobs: tuple[float, ...], value: float | None = 1.0, text: str | None = None) -> Outcome:
    return Outcome(key, value, 0, {}, logprobs, (1,) * len(logprobs), text=text)


def asked(golds: tuple[int, ...], *outcomes: Outcome) -> tuple[PointRecord, TaskRecord]:
    made = task("t1", len(outcomes))
    items = {key: replace(item, golds=golds) for key, item in made.items.items()}
    keyed = dict(zip(items, outcomes, strict=True))
    return replace(point(1, "F16", 16, {}), outcomes={"hash-t1": keyed}), replace(made, items=items)


@given(st.lists(st.floats(-30, 0), min_size=4, max_size=4), st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_log_scores_are_their_definition(logprobs: list[float], golds: set[int]) -> None:
    found, quiz = asked(tuple(sorted(golds)), outcome("x", tuple(logprobs)))
    weights = [math.exp(value) for value in logprobs]
    slow = math.log(max(LEAST, sum(weights[gold] for gold in golds) / sum(weights)))
    assert log_scores(found, quiz) == {"t1-0": pytest.approx(slow, abs=1e-9)}


def test_what_has_no_log_score() -> None:
    unscored, written = outcome("x", (), None), outcome("x", (-3.0,), text="an answer")
    broken = outcome("x", (float("nan"), -1.0))
    continuation, unlikely = outcome("x", (-2.5,)), outcome("x", (-40.0,))
    found, quiz = asked((0,), unscored, written, broken, continuation, unlikely)
    assert log_scores(found, quiz) == {"t1-3": -2.5, "t1-4": math.log(LEAST)}


def test_the_difference_is_paired_by_task_and_swaps_its_sign() -> None:
    random = np.random.default_rng(7)
    tasks = [task("t1", 40), task("t2", 30)]
    own = {t.hash: dict(zip(t.items, random.normal(-1.5, 1, len(t.items)), strict=True)) for t in tasks}
    base = {hash_: {key: value + 0.4 for key, value in values.items()} for hash_, values in own.items()}
    base["hash-t2"] = {key: value + 0.4 for key, value in base["hash-t2"].items()}
    base["hash-t1"].pop("t1-0")
    found, swapped = log_score_difference(own, base, tasks), log_score_difference(base, own, tasks)
    assert found is not None
    assert swapped is not None
    assert (found.value, found.n) == pytest.approx((-0.6, 69))  # the mean of -0.4 and -0.8
    assert found.low < found.value < found.high < 0
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert log_score_difference({}, base, tasks) is None


def differences(values: npt.NDArray[np.float64]) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """A point and its reference, whose log scores on one task differ by ``values``."""
    keys = [f"t1-{i}" for i in range(len(values))]
    base = dict.fromkeys(keys, -3.0)
    return {"hash-t1": {key: -3.0 + value for key, value in zip(keys, values.tolist(), strict=True)}}, {"hash-t1": base}


def test_differences_of_more_than_a_nat_are_not_cut() -> None:
    found = log_score_difference(*differences(np.full(30, -5.0)), [task("t1", 30)])
    assert found is not None
    assert found.value == pytest.approx(-5)
    assert found.low <= -5


def test_few_items_have_no_difference() -> None:
    """Most items change little and a few by nats: few items often hold none of those."""
    values = np.random.default_rng(3).normal(-0.5, 0.1, FEW)
    assert log_score_difference(*differences(values), [task("t1", FEW)]) is not None
    assert log_score_difference(*differences(values[1:]), [task("t1", FEW - 1)]) is None
    quiz = task("t1", FEW)
    items = {key: replace(item, cluster=f"pair {i // 2}") for i, (key, item) in enumerate(quiz.items.items())}
    assert log_score_difference(*differences(values), [replace(quiz, items=items)]) is None


def test_the_interval_holds_the_truth_where_few_items_carry_the_mean() -> None:
    """Nine items in ten are nearly certain; with added changes of a common size it holds it in 0.90 of samples."""
    random, n, rounds = np.random.default_rng(11), 40, 500
    certain = np.where(random.random(200_000) < 0.9, random.normal(5, 1.5, 200_000), random.normal(-2, 3, 200_000))
    odds = np.array([certain + random.normal(-0.2, 0.7, 200_000), certain])
    own, base = np.maximum(math.log(LEAST), -np.logaddexp(0, -odds))
    quiz = task("t1", n)
    held = 0
    for _ in range(rounds):
        found = log_score_difference(*differences((own - base)[random.integers(0, len(own), n)]), [quiz])
        assert found is not None
        held += found.low <= float((own - base).mean()) <= found.high
    assert held / rounds >= 0.93
