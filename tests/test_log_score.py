"""Log scores against their definition, and their paired differences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_statistics import point, task

from gguf_eval.analysis.log_score import LEAST, log_score_difference, log_scores
from gguf_eval.store.records import Outcome, PointRecord, TaskRecord


def outcome(key: str, logprobs: tuple[float, ...], value: float | None = 1.0, text: str | None = None) -> Outcome:
    return Outcome(key, value, 0, {}, logprobs, (1,) * len(logprobs), text=text)


def asked(golds: tuple[int, ...], *outcomes: Outcome) -> tuple[PointRecord, TaskRecord]:
    made = task("t1", len(outcomes))
    items = {key: replace(item, golds=golds, gold=golds[0]) for key, item in made.items.items()}
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


def test_differences_of_more_than_a_nat_are_not_cut() -> None:
    quiz = task("t1", 30)
    own = dict.fromkeys(quiz.items, -6.0)
    base = dict.fromkeys(quiz.items, -1.0)
    found = log_score_difference({quiz.hash: own}, {quiz.hash: base}, [quiz])
    assert found is not None
    assert found.value == pytest.approx(-5)
    assert found.low <= -5
