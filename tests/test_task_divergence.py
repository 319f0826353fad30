"""Figures of the divergence on right answers: intervals, which reference counts, and where they are shown."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import builders
import numpy as np
import pytest
from builders import point, task
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gguf_eval.analysis.intervals import FEW
from gguf_eval.analysis.statistics import normal_quantile
from gguf_eval.analysis.summary import summarise
from gguf_eval.analysis.task_divergence import mean_with_interval, task_divergence
from gguf_eval.analysis.versus import versus, versus_references
from gguf_eval.report.by_task import whole_rows
from gguf_eval.report.data import item_rows, summary_rows
from gguf_eval.report.export import to_document
from gguf_eval.report.markdown import to_markdown
from gguf_eval.report.quality import print_comparisons
from gguf_eval.report.terminal import print_report
from gguf_eval.store.records import AnswerDivergences, PointRecord, StudyRecord, TaskRecord

KLDS = (0.1, 0.2, None, 0.4, 0.5, 0.3, *(0.1, 0.2, 0.3, 0.4, 0.5) * 5)


def divergences(reference: PointRecord, few: TaskRecord, klds: tuple[float | None, ...] = KLDS) -> AnswerDivergences:
    count = len(klds)
    return AnswerDivergences(
        reference.sha256 or "", reference.settings, tuple(few.items)[:count], tokens=(4,) * count, kld=klds,
        kld_variance=(1e-4,) * count, same_top=(3,) * count,
        reasons=tuple("broken" if kld is None else None for kld in klds),
    )  # fmt: skip


@pytest.fixture
def record() -> StudyRecord:
    """F16 and Q4_0 on 32 items; of the last the reference kept nothing, and one answer is broken."""
    few = task("t1", 32)
    reference = replace(point(1, "F16", 16.0, {"t1": "1" * 32}), sha256="1" * 64)
    candidate = point(2, "Q4_0", 4.5, {"t1": "0" * 32})
    other = replace(divergences(reference, few, (9.0,) * 32), reference_sha256="another file")
    stored = {few.hash: (other, divergences(reference, few))}
    return builders.record(reference, replace(candidate, divergences=stored), tasks=[few])


def test_figures_are_those_of_the_items_from_the_models_own_reference(record: StudyRecord) -> None:
    reference, candidate = record.points
    found = task_divergence(candidate, reference, record.tasks[0])
    assert found is not None
    assert found.mean.value == pytest.approx(0.3)
    assert (found.mean.low or 0) < 0.3 < (found.mean.high or 0)
    assert found.quantiles == pytest.approx({"median": 0.3, "90%": 0.5, "99%": 0.5})
    assert found.estimator_error == pytest.approx(1e-2 / 30**0.5)
    assert (found.items, found.tokens, found.same_top, found.left_out) == (30, 120, 0.75, 2)
    assert (found.reference, found.reasons, found.method) == ("F16", {"broken": 1}, "hall-by-item")
    assert task_divergence(reference, candidate, record.tasks[0]) is None
    assert task_divergence(candidate, replace(reference, settings={"max_tokens": 64}), record.tasks[0]) is None


def test_where_they_are_shown(record: StudyRecord) -> None:
    summary = summarise(record)
    document = to_document(summary)
    assert [p["tasks"]["t1"]["divergence"] is not None for p in document["points"]] == [False, True]
    assert document["points"][1]["tasks"]["t1"]["divergence"]["mean"]["value"] == pytest.approx(0.3)
    rows = {row["level"]: row for row in summary_rows(summary)}
    assert rows["Q4_0"]["answer_kld"] == pytest.approx(0.3)
    assert rows["Q4_0"]["answer_kld_left_out"] == 2
    items = [row for row in item_rows(record) if "answer_kld" in row]
    assert [row["answer_kld"] for row in items] == list(KLDS)
    assert {row["level"] for row in items} == {"Q4_0"}
    (row,) = whole_rows(summary.points)
    assert [cell.text for cell in row.cells] == ["–", "0.300"]
    assert row.cells[1].small.startswith("0.")
    printed = [
        builders.printed(lambda console: print_report(summary, console)),
        builders.printed(lambda console: print_comparisons(versus_references(record), console)),
    ]
    assert "t1: KLD of right answers" in printed[0]
    assert "t1, Q4_0: 2 items have none; 1: broken." in printed[0]
    assert "KLD of right answers" in printed[1]
    assert re.search(
        r"^\| t1: KLD of right answers \| – \| 0\.300 \(0\.\d+–0\.\d+\) \|$", to_markdown(summary), re.MULTILINE
    )
    assert re.search(r"left out$.* 2$", printed[1], re.MULTILINE | re.DOTALL)


def test_a_pair_that_was_never_compared_has_none(record: StudyRecord) -> None:
    reference, candidate = record.points
    (found,) = versus(record, [reference], candidate)
    assert found.tasks[0].divergence is None


@pytest.mark.parametrize("clusters", [30, 100])
@pytest.mark.parametrize("size", [1, 4])
def test_intervals_of_skewed_values_cover_the_truth(clusters: int, size: int) -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(600):
        shared = random.gamma(0.7, 1, clusters)
        sums = shared + random.gamma(0.7, 1, (size - 1, clusters)).sum(axis=0) if size > 1 else shared
        figure, _ = mean_with_interval({(value, size): 1 for value in sums.tolist()})
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low <= 0.7 <= figure.high
    assert 0.93 <= covered / 600 <= 0.97


def test_many_items_have_the_normal_interval_and_few_have_none() -> None:
    values = np.random.default_rng(1).gamma(2, 1, 20_000)
    figure, method = mean_with_interval({(value, 1): 1 for value in values.tolist()})
    half = normal_quantile() * values.std(ddof=1) / len(values) ** 0.5
    assert (figure.low, figure.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 50)
    assert method == "hall-by-item"
    for count in (1, 2, FEW - 1):
        figure, method = mean_with_interval({(0.5 + place, 1): 1 for place in range(count)})
        assert (figure.value, figure.low, figure.high, method) == (count / 2, None, None, None)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3)), min_size=30, max_size=40), st.randoms())
@example([(1.0, 1)] + [(6e-161, 2)] * 29, Random(0))  # squares too small for a float
@example([(0.1, 1), (0.3, 3)] * 15, Random(0))  # their spread is rounding
def test_order_means_nothing_and_scale_scales(rows: list[tuple[float, int]], random: Random) -> None:
    def figure(pairs: list[tuple[float, int]], scale: float = 1.0) -> tuple[float, float, float]:
        kinds: dict[tuple[float, int], int] = {}
        for value, size in pairs:
            kinds[(value * scale, size)] = kinds.get((value * scale, size), 0) + 1
        found = mean_with_interval(kinds)[0]
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.value <= found.high
        return found.value, found.low, found.high

    shuffled = list(rows)
    random.shuffle(shuffled)
    assert figure(shuffled) == figure(rows)
    assert figure(rows, 4.0) == pytest.approx([4 * value for value in figure(rows)], rel=1e-6, abs=1e-9)


def test_a_report_says_why_few_divergences_have_no_interval(record: StudyRecord) -> None:
    reference, candidate = record.points
    few = {record.tasks[0].hash: (divergences(reference, record.tasks[0], (0.1, 0.2, None)),)}
    summary = summarise(replace(record, points=(reference, replace(candidate, divergences=few))))
    text = builders.printed(lambda console: print_report(summary, console), 120)
    assert "t1: no interval of so few divergences; 30 items or clusters are needed." in text
